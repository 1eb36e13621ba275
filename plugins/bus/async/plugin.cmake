target_link_libraries(${target} PRIVATE lathe_bus Threads::Threads)
