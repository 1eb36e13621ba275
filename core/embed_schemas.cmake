# Writes a C file that holds schemas/*.sql, so that the executable needs no files to make a
# database: cmake -DFOLDER=… -DOUTPUT=… -P embed_schemas.cmake
# A byte list rather than a string literal: literals have a length limit, and need escaping.
file(GLOB files ${FOLDER}/[0-9][0-9][0-9]_*.sql)
list(SORT files)
set(arrays "")
set(rows "")
foreach(file ${files})
  get_filename_component(name ${file} NAME_WE)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REPEAT "0x..," 16 line)
  string(REGEX REPLACE "(${line})" "\\1\n" bytes "${bytes}")
  string(APPEND arrays "static const char schema_${name}[] = {\n${bytes}0};\n")
  string(APPEND rows "    { \"${name}\", schema_${name} },\n")
endforeach()
list(LENGTH files count)
file(WRITE ${OUTPUT}.new "/* Made by core/embed_schemas.cmake from schemas/; change those. */
#include \"recorder_schema.h\"

${arrays}
const struct schema_file schema_files[] = {
${rows}};
const int schema_file_count = ${count};
")
file(RENAME ${OUTPUT}.new ${OUTPUT})
