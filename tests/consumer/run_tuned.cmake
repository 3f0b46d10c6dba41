# Tunes PLAN (JSON) on the GPU that is there and runs PROGRAM on the cache file, with ARGUMENTS behind
# it; its words must match EXPECTED. TOOL, CACHE.
set(kNoDevice 3)  # the tool's exit code for it
file(REMOVE ${CACHE})
file(WRITE ${CACHE}.json "${PLAN}")
execute_process(COMMAND ${TOOL} --gpu auto --plan ${CACHE}.json --db ${CACHE}
                RESULT_VARIABLE result OUTPUT_VARIABLE words ERROR_VARIABLE words)
if(result EQUAL kNoDevice)
  message("skipped: no GPU here: ${words}")
  return()
endif()
if(NOT result EQUAL 0)
  message(FATAL_ERROR "tuning failed (${result}): ${words}")
endif()

separate_arguments(ARGUMENTS UNIX_COMMAND "${ARGUMENTS}")
execute_process(COMMAND ${PROGRAM} ${CACHE} ${ARGUMENTS}
                RESULT_VARIABLE result OUTPUT_VARIABLE words ERROR_VARIABLE words)
message("${words}")
if(NOT result EQUAL 0 OR NOT words MATCHES "${EXPECTED}")
  message(FATAL_ERROR "${PROGRAM} failed (${result}).")
endif()
