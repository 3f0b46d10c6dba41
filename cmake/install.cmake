# install(): the tool, libw4tune with its public headers, and what find_package(w4tune) needs.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(w4_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/w4tune)
install(TARGETS w4tune RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS w4tune_runtime EXPORT w4tuneTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY runtime/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/w4tune)

configure_package_config_file(cmake/w4tuneConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/w4tuneConfig.cmake
                              INSTALL_DESTINATION ${w4_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/w4tuneConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(EXPORT w4tuneTargets NAMESPACE w4tune:: DESTINATION ${w4_package_dir})
install(FILES ${PROJECT_BINARY_DIR}/w4tuneConfig.cmake
              ${PROJECT_BINARY_DIR}/w4tuneConfigVersion.cmake cmake/FindSodium.cmake
        DESTINATION ${w4_package_dir})
