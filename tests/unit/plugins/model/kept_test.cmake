# The reference reads the files itself.
target_link_libraries(${target} PRIVATE lathe_gguf)
