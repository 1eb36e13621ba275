add_dependencies(${target} plugin_router_round_robin)
