# Writes a C file that holds report/*: cmake -DFOLDER=… -DOUTPUT=… -P embed_report.cmake
# Scripts share one scope and come in the order of their names. A byte list, as in embed_schemas.cmake.
file(GLOB files ${FOLDER}/*.html ${FOLDER}/*.css ${FOLDER}/*.js)
list(SORT files)
set(arrays "")
set(rows "")
set(number 0)
foreach(file ${files})
  get_filename_component(name ${file} NAME)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REPEAT "0x..," 16 line)
  string(REGEX REPLACE "(${line})" "\\1\n" bytes "${bytes}")
  string(APPEND arrays "static const char file_${number}[] = {\n${bytes}0};\n")
  string(APPEND rows "    { \"${name}\", file_${number}, sizeof file_${number} - 1 },\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE ${OUTPUT}.new "/* Made by core/embed_report.cmake from core/report/; change those. */
#include \"report.h\"

${arrays}
const struct report_file report_files[] = {
${rows}};
const int report_file_count = ${number};
")
file(RENAME ${OUTPUT}.new ${OUTPUT})
