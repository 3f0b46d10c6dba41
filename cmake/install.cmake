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
# For builds without CMake. Where the file lies tells the prefix, so that an install may be moved.
file(RELATIVE_PATH W4_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
set(W4_PC_PRIVATE "")
if(NOT BUILD_SHARED_LIBS)
  set(W4_PC_PRIVATE "-lsodium -lsqlite3 -lpthread -ldl -lstdc++")
  if(NOT W4TUNE_STATIC_DEPENDENCIES)  # there fmt is header-only
    string(PREPEND W4_PC_PRIVATE "-lfmt ")
  endif()
endif()
configure_file(cmake/w4tune.pc.in ${PROJECT_BINARY_DIR}/w4tune.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/w4tune.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(EXPORT w4tuneTargets NAMESPACE w4tune:: DESTINATION ${w4_package_dir})
install(FILES ${PROJECT_BINARY_DIR}/w4tuneConfig.cmake
              ${PROJECT_BINARY_DIR}/w4tuneConfigVersion.cmake cmake/FindSodium.cmake
        DESTINATION ${w4_package_dir})
