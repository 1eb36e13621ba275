target_link_libraries(${target} PRIVATE lathe_forward lathe_kernels lathe_gguf PkgConfig::OPENBLAS Threads::Threads)
