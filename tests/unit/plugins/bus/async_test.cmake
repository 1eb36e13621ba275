add_dependencies(${target} plugin_bus_async)
