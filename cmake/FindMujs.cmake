# Finds MuJS, the JavaScript interpreter that draws plots in the tool, and defines Mujs::Mujs.
find_path(Mujs_INCLUDE_DIR mujs.h)
find_library(Mujs_LIBRARY mujs)
mark_as_advanced(Mujs_INCLUDE_DIR Mujs_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Mujs REQUIRED_VARS Mujs_LIBRARY Mujs_INCLUDE_DIR)

if(Mujs_FOUND AND NOT TARGET Mujs::Mujs)
  add_library(Mujs::Mujs UNKNOWN IMPORTED)
  set_target_properties(Mujs::Mujs PROPERTIES
                        IMPORTED_LOCATION "${Mujs_LIBRARY}"
                        INTERFACE_INCLUDE_DIRECTORIES "${Mujs_INCLUDE_DIR}")
endif()
