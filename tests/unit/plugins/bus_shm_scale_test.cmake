add_dependencies(${target} lathe mischief plugin_bus_shm plugin_tokenizer_byte plugin_model_tiny plugin_sampler_greedy)
target_link_libraries(${target} PRIVATE Threads::Threads)
