// Driver: the functions of libcuda that w4tune uses, opened at run time. The table lives until the
// program ends; any thread may read it. Works with drivers from CUDA 12.0 on.
#pragma once

#include <cuda.h>

namespace w4tune {

// (field, exported symbol). The symbols carry the version that cuda.h maps the plain name to,
// except cuEventElapsedTime: toolkit 13 maps it to a _v2 that drivers before 12.8 lack; the
// signature is the same.
#define W4_DRIVER_FUNCTIONS(X)                                              \
  X(init, cuInit)                                                           \
  X(driver_get_version, cuDriverGetVersion)                                 \
  X(get_error_name, cuGetErrorName)                                         \
  X(get_error_string, cuGetErrorString)                                     \
  X(device_get, cuDeviceGet)                                                \
  X(device_get_count, cuDeviceGetCount)                                     \
  X(device_get_name, cuDeviceGetName)                                       \
  X(device_get_attribute, cuDeviceGetAttribute)                             \
  X(primary_ctx_retain, cuDevicePrimaryCtxRetain)                           \
  X(primary_ctx_release, cuDevicePrimaryCtxRelease_v2)                      \
  X(ctx_get_current, cuCtxGetCurrent)                                       \
  X(ctx_set_current, cuCtxSetCurrent)                                       \
  X(ctx_get_device, cuCtxGetDevice)                                         \
  X(mem_alloc, cuMemAlloc_v2)                                               \
  X(mem_free, cuMemFree_v2)                                                 \
  X(memcpy_htod, cuMemcpyHtoD_v2)                                           \
  X(memcpy_dtoh, cuMemcpyDtoH_v2)                                           \
  X(memcpy_dtod_async, cuMemcpyDtoDAsync_v2)                                \
  X(memset_d8, cuMemsetD8_v2)                                               \
  X(memset_d8_async, cuMemsetD8Async)                                       \
  X(stream_create, cuStreamCreate)                                          \
  X(stream_destroy, cuStreamDestroy_v2)                                     \
  X(stream_synchronize, cuStreamSynchronize)                                \
  X(stream_begin_capture, cuStreamBeginCapture_v2)                          \
  X(stream_end_capture, cuStreamEndCapture)                                 \
  X(thread_exchange_stream_capture_mode, cuThreadExchangeStreamCaptureMode) \
  X(event_create, cuEventCreate)                                            \
  X(event_destroy, cuEventDestroy_v2)                                       \
  X(event_record, cuEventRecord)                                            \
  X(event_record_with_flags, cuEventRecordWithFlags)                        \
  X(event_synchronize, cuEventSynchronize)                                  \
  X(event_elapsed_time, cuEventElapsedTime)                                 \
  X(module_load_data_ex, cuModuleLoadDataEx)                                \
  X(module_unload, cuModuleUnload)                                          \
  X(module_get_function, cuModuleGetFunction)                               \
  X(func_get_attribute, cuFuncGetAttribute)                                 \
  X(func_set_attribute, cuFuncSetAttribute)                                 \
  X(launch_kernel_ex, cuLaunchKernelEx)                                     \
  X(tensor_map_encode_tiled, cuTensorMapEncodeTiled)                        \
  X(graph_destroy, cuGraphDestroy)                                          \
  X(graph_instantiate, cuGraphInstantiateWithFlags)                         \
  X(graph_exec_destroy, cuGraphExecDestroy)                                 \
  X(graph_launch, cuGraphLaunch)

struct Driver {
// NOLINTNEXTLINE(bugprone-macro-parentheses): a name cannot be put in parentheses here
#define W4_DECLARE_FUNCTION(field, symbol) decltype(&::symbol) field = nullptr;
  W4_DRIVER_FUNCTIONS(W4_DECLARE_FUNCTION)
#undef W4_DECLARE_FUNCTION
};

// Loads libcuda and initialises it on the first call. Throws Error{kEnvironment} where the driver
// is missing, too old or broken, Error{kNoDevice} where it sees no GPU; then the next call tries
// again.
const Driver& driver();

[[noreturn]] void throw_driver_error(CUresult result, const char* call);

// Throws Error{kDevice} with the driver's name and text for `result` unless it is CUDA_SUCCESS.
inline void check(CUresult result, const char* call) {
  if (result != CUDA_SUCCESS) throw_driver_error(result, call);
}

}  // namespace w4tune
