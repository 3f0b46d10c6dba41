# Targets format-check, format and tidy. clang-tidy leaves a stamp for each source, so that a second
# run looks only at what changed.
find_program(W4_CLANG_FORMAT clang-format REQUIRED)
find_program(W4_CLANG_TIDY clang-tidy REQUIRED)

set(folders core gpu search templates tuner cache runtime cli tests bench)
set(header_patterns ${folders})
set(source_patterns ${folders})
list(TRANSFORM header_patterns APPEND /*.h)
list(TRANSFORM source_patterns APPEND /*.cc)
set(other_patterns templates/device/*.cuh templates/device/*.cu tests/*.c)
file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${header_patterns})
file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${source_patterns})
file(GLOB_RECURSE others CONFIGURE_DEPENDS ${other_patterns})

add_custom_target(format-check
  COMMAND ${W4_CLANG_FORMAT} --dry-run -Werror ${headers} ${sources} ${others}
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} COMMENT "Checking the format" VERBATIM)
add_custom_target(format
  COMMAND ${W4_CLANG_FORMAT} -i ${headers} ${sources} ${others}
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} COMMENT "Formatting" VERBATIM)

set(stamps "")
foreach(source IN LISTS sources)
  cmake_path(RELATIVE_PATH source BASE_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE name)
  if(name MATCHES "^tests/consumer/")  # a project of its own
    continue()
  endif()
  set(stamp ${PROJECT_BINARY_DIR}/tidy/${name}.stamp)
  cmake_path(GET stamp PARENT_PATH folder)
  file(MAKE_DIRECTORY ${folder})
  add_custom_command(OUTPUT ${stamp}
    COMMAND ${W4_CLANG_TIDY} --quiet -p ${PROJECT_BINARY_DIR} ${source}
    COMMAND ${CMAKE_COMMAND} -E touch ${stamp}
    DEPENDS ${source} ${headers} ${PROJECT_SOURCE_DIR}/.clang-tidy w4_generated
    COMMENT "clang-tidy ${name}" VERBATIM)
  list(APPEND stamps ${stamp})
endforeach()
add_custom_target(tidy DEPENDS ${stamps})
