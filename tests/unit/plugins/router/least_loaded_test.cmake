add_dependencies(${target} plugin_router_least_loaded)
