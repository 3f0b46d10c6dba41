# Tunes one layer on the GPU that is there and runs the README's program on it. TOOL, PROGRAM, CACHE.
set(kNoDevice 3)  # the tool's exit code for it
file(REMOVE ${CACHE})
execute_process(COMMAND ${TOOL} --gpu auto --shape 4096,1024 --m 16 --db ${CACHE}
                RESULT_VARIABLE result OUTPUT_VARIABLE words ERROR_VARIABLE words)
if(result EQUAL kNoDevice)
  message("skipped: no GPU here: ${words}")
  return()
endif()
if(NOT result EQUAL 0)
  message(FATAL_ERROR "tuning failed (${result}): ${words}")
endif()

execute_process(COMMAND ${PROGRAM} ${CACHE} RESULT_VARIABLE result OUTPUT_VARIABLE words
                ERROR_VARIABLE words)
message("${words}")
# 40960 outputs of 1.5, which is 0x3e00 in FP16.
if(NOT result EQUAL 0 OR NOT words MATCHES "0x26c00000")
  message(FATAL_ERROR "the program of the README failed (${result}).")
endif()
