target_link_libraries(${target} PRIVATE lathe_gguf lathe_utf8 lathe_jinja)
