add_dependencies(${target} plugin_router_split)
