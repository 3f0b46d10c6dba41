#include "gpu/context.h"

#include "gpu/driver.h"

namespace w4tune {

Context::Context(int ordinal) {
  check(driver().device_get(&device_, ordinal), "cuDeviceGet");
  check(driver().ctx_get_current(&previous_), "cuCtxGetCurrent");
  check(driver().primary_ctx_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
  const CUresult result = driver().ctx_set_current(context_);
  if (result != CUDA_SUCCESS) {
    driver().primary_ctx_release(device_);
    throw_driver_error(result, "cuCtxSetCurrent");
  }
}

Context::~Context() {
  CUcontext current = nullptr;
  driver().ctx_get_current(&current);
  if (current == context_) driver().ctx_set_current(previous_);
  driver().primary_ctx_release(device_);
}

void Context::make_current() const { check(driver().ctx_set_current(context_), "cuCtxSetCurrent"); }

}  // namespace w4tune
