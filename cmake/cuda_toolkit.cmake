# Finds the headers of the CUDA toolkit: W4_CUDA_INCLUDE_DIR. Its libraries are opened at run time,
# never linked. As a script (cmake -P) it says in one line on stdout what is missing, and fails.
cmake_minimum_required(VERSION 3.25)

set(w4_cuda_hints "${CUDA_HOME}" "$ENV{CUDA_HOME}" "$ENV{CUDA_PATH}" /usr/local/cuda /opt/cuda)
find_path(W4_CUDA_INCLUDE_DIR NAMES cublasLt.h HINTS ${w4_cuda_hints}
          PATH_SUFFIXES include targets/x86_64-linux/include NO_CACHE)

set(w4_cuda_problem "")
if(NOT W4_CUDA_INCLUDE_DIR)
  set(w4_cuda_problem "no CUDA toolkit here: cublasLt.h was not found")
else()
  foreach(header IN ITEMS cuda.h nvrtc.h)
    if(NOT EXISTS ${W4_CUDA_INCLUDE_DIR}/${header})
      set(w4_cuda_problem "the CUDA toolkit is incomplete: ${W4_CUDA_INCLUDE_DIR} lacks ${header}")
    endif()
  endforeach()
endif()
if(NOT w4_cuda_problem)
  file(STRINGS ${W4_CUDA_INCLUDE_DIR}/cuda.h w4_cuda_version REGEX "^#define CUDA_VERSION")
  string(REGEX MATCH "[0-9]+" w4_cuda_version "${w4_cuda_version}")
  if(w4_cuda_version LESS 12000)
    set(w4_cuda_problem "the CUDA toolkit in ${W4_CUDA_INCLUDE_DIR} is older than 12.0")
  endif()
endif()

if(w4_cuda_problem)
  string(APPEND w4_cuda_problem ". Install CUDA 12.0 or newer "
                                "(https://developer.nvidia.com/cuda-downloads), "
                                "or set CUDA_HOME to the folder that holds it.")
  if(CMAKE_SCRIPT_MODE_FILE)
    execute_process(COMMAND ${CMAKE_COMMAND} -E echo "w4tune: ${w4_cuda_problem}")
  endif()
  message(FATAL_ERROR "${w4_cuda_problem}")
endif()
