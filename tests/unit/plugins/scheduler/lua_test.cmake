add_dependencies(${target} plugin_scheduler_lua)
