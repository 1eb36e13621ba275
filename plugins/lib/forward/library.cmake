target_link_libraries(${target} PRIVATE lathe_kernels m)
