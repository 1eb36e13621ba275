target_link_libraries(${target} PRIVATE lathe_bus ${CMAKE_DL_LIBS})
