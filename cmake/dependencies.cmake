# Every third-party package, found here and nowhere else. Folders link the targets; the packages of
# Debian and Ubuntu that hold them are listed in cmake/packages.txt.
if(W4TUNE_STATIC_DEPENDENCIES)
  set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
endif()

find_package(fmt 9 REQUIRED)
find_package(SQLite3 3.35 REQUIRED)
find_package(Sodium REQUIRED)
find_package(ZLIB REQUIRED)
find_package(Threads REQUIRED)
find_package(nlohmann_json 3.10 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
find_package(Mujs REQUIRED)
find_package(D3 3.5...<4 REQUIRED)
if(W4TUNE_BUILD_TESTS)
  find_package(GTest 1.12 REQUIRED)
  find_package(Boost 1.74 CONFIG REQUIRED COMPONENTS context)
  include(GoogleTest)
endif()
if(W4TUNE_BUILD_BENCH)
  find_package(benchmark 1.7 REQUIRED)
endif()

# Distributions ship fmt as a shared library only; its headers serve where that must not be needed.
set(W4_FMT fmt::fmt)
if(W4TUNE_STATIC_DEPENDENCIES)
  set(W4_FMT fmt::fmt-header-only)
endif()

# Headers of the CUDA toolkit, for the folders that talk to the GPU.
include(cmake/cuda_toolkit.cmake)
message(STATUS "CUDA headers: ${W4_CUDA_INCLUDE_DIR}")
add_library(w4_cuda_headers INTERFACE)
target_include_directories(w4_cuda_headers SYSTEM INTERFACE ${W4_CUDA_INCLUDE_DIR})
