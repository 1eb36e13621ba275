add_dependencies(${target} plugin_router_p2c)
