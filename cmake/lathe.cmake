# Functions that the lists use. No global flag is edited: everything goes through lathe_flags.

add_library(lathe_flags INTERFACE)
target_compile_options(lathe_flags INTERFACE
  -Wall -Wextra -Wshadow=local -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla
  -fno-math-errno -ffp-contract=off)
target_compile_definitions(lathe_flags INTERFACE _GNU_SOURCE)
if(LATHE_SANITIZE)
  target_compile_options(lathe_flags INTERFACE
    -fsanitize=${LATHE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(lathe_flags INTERFACE -fsanitize=${LATHE_SANITIZE})
endif()

# lathe_add_plugin(KIND NAME source …): a module at plugins/KIND/NAME.so in the build tree,
# exporting one symbol, linking nothing of the host's.
function(lathe_add_plugin kind name)
  set(target plugin_${kind}_${name})
  add_library(${target} MODULE ${ARGN})
  set_target_properties(${target} PROPERTIES PREFIX "" OUTPUT_NAME ${name}
    LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/plugins/${kind})
  target_link_libraries(${target} PRIVATE lathe_sdk lathe_flags m)
  if(NOT LATHE_SANITIZE)
    target_link_options(${target} PRIVATE -Wl,-z,defs)
  endif()
  if(NOT name STREQUAL "template")
    install(TARGETS ${target} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/lathe/plugins/${kind})
  endif()
endfunction()
