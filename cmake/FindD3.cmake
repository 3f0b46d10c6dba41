# Finds the scripts of D3 (d3js.org) that w4tune embeds: W4_D3_SCRIPT and its licence, W4_D3_LICENCE,
# as Debian's package libjs-d3 has them. Version 3 is the newest that is ECMAScript 5 as a whole, which
# is what MuJS runs; elsewhere take d3.min.js of such a release and name both files with -D.
find_file(W4_D3_SCRIPT d3.min.js PATHS /usr/share/javascript/d3)
find_file(W4_D3_LICENCE copyright PATHS /usr/share/doc/libjs-d3 NO_DEFAULT_PATH)
mark_as_advanced(W4_D3_SCRIPT W4_D3_LICENCE)

set(D3_VERSION "")
if(W4_D3_SCRIPT)
  file(READ ${W4_D3_SCRIPT} w4_d3_head LIMIT 200)
  string(REGEX MATCH "version: ?\"([0-9.]+)" w4_d3_head "${w4_d3_head}")
  set(D3_VERSION "${CMAKE_MATCH_1}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(D3 REQUIRED_VARS W4_D3_SCRIPT W4_D3_LICENCE
                                  VERSION_VAR D3_VERSION HANDLE_VERSION_RANGE)
