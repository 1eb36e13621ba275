# Run at each build (cmake -DSOURCE=… -DOUT=… -P): writes OUT with the commit that SOURCE stands
# at and whether its tracked files differ from it. The file is touched only when that changes.
set(BUILD_COMMIT "")
set(BUILD_DIRTY -1)
find_package(Git QUIET)
if(GIT_FOUND AND EXISTS ${SOURCE}/.git)
  execute_process(COMMAND ${GIT_EXECUTABLE} -C ${SOURCE} rev-parse HEAD
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    set(BUILD_COMMIT ${commit})
    execute_process(COMMAND ${GIT_EXECUTABLE} -C ${SOURCE} status --porcelain --untracked-files=no
      OUTPUT_VARIABLE changes ERROR_QUIET)
    set(BUILD_DIRTY 0)
    if(changes)
      set(BUILD_DIRTY 1)
    endif()
  endif()
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "/* Made at each build by cmake/commit.cmake. */
#define BUILD_COMMIT \"@BUILD_COMMIT@\"
#define BUILD_DIRTY @BUILD_DIRTY@
" @ONLY)
