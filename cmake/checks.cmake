# Targets format-check, format and tidy. clang-tidy reads what ships (not tests and benchmarks) and
# leaves a stamp for each source, so that a second run looks only at what changed.
find_program(W4_CLANG_FORMAT clang-format REQUIRED)
find_program(W4_CLANG_TIDY clang-tidy REQUIRED)

set(shipped core gpu search templates tuner cache runtime cli)
set(patterns templates/device/*.cuh templates/device/*.cu tests/*.c)
foreach(folder IN LISTS shipped ITEMS tests bench examples)
  list(APPEND patterns ${folder}/*.h ${folder}/*.cc)
endforeach()
file(GLOB_RECURSE formatted CONFIGURE_DEPENDS ${patterns})

add_custom_target(format-check
  COMMAND ${W4_CLANG_FORMAT} --dry-run -Werror ${formatted}
  COMMENT "Checking the format (make format mends it)" VERBATIM)
add_custom_target(format
  COMMAND ${W4_CLANG_FORMAT} -i ${formatted}
  COMMENT "Formatting" VERBATIM)

list(TRANSFORM shipped APPEND /*.h OUTPUT_VARIABLE header_patterns)
list(TRANSFORM shipped APPEND /*.cc OUTPUT_VARIABLE source_patterns)
file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${header_patterns})
file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${source_patterns})
set(stamps "")
foreach(source IN LISTS sources)
  cmake_path(RELATIVE_PATH source BASE_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE name)
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
