add_dependencies(${target} plugin_kvcache_window)
