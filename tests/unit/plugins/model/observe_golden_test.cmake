add_dependencies(${target} plugin_model_llama)
