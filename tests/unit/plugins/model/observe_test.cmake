# Its reference reads the file's weights by itself.
target_link_libraries(${target} PRIVATE lathe_gguf)
add_dependencies(${target} plugin_model_llama plugin_model_tiny)
