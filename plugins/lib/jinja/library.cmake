target_link_libraries(${target} PUBLIC PkgConfig::JANSSON PRIVATE lathe_utf8 m)
