# What every target of ours is compiled with, and the one way to make a folder's library.
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

add_library(w4_warnings INTERFACE)
target_compile_options(w4_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
                                             -Wsign-conversion)

add_library(w4_options INTERFACE)
target_compile_features(w4_options INTERFACE cxx_std_20)
target_include_directories(w4_options INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}
                                                ${PROJECT_SOURCE_DIR}/runtime/include)
target_link_libraries(w4_options INTERFACE w4_warnings ${W4_FMT})
if(W4TUNE_STATIC_DEPENDENCIES)
  target_link_options(w4_options INTERFACE -static-libstdc++ -static-libgcc)
endif()

# Everything that is generated before anything is compiled.
add_custom_target(w4_generated)

# w4_glob(variable patterns... [EXCLUDE patterns...]): the sources of a folder; an empty one where
# it holds none yet.
function(w4_glob variable)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "EXCLUDE")
  file(GLOB sources CONFIGURE_DEPENDS ${arg_UNPARSED_ARGUMENTS})
  if(arg_EXCLUDE)
    file(GLOB excluded CONFIGURE_DEPENDS ${arg_EXCLUDE})
    list(REMOVE_ITEM sources ${excluded})
  endif()
  if(NOT sources)
    set(sources ${PROJECT_BINARY_DIR}/generated/empty.cc)
    file(CONFIGURE OUTPUT ${sources} CONTENT "")
  endif()
  set(${variable} ${sources} PARENT_SCOPE)
endfunction()

# w4_object_library(target SOURCES... [LINK target...]): the objects of one folder. Objects do not
# travel through other object libraries: an executable names every folder that it is made of.
function(w4_object_library target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK")
  add_library(${target} OBJECT ${arg_SOURCES})
  target_link_libraries(${target} PUBLIC w4_options ${arg_LINK})
endfunction()
