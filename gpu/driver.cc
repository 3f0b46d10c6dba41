#include "gpu/driver.h"

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "gpu/shared_library.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr int kOldestDriver = 12000;  // CUDA 12.0, as cuDriverGetVersion counts

// Only this name: the toolkit's link-time stub is called libcuda.so and must not be found.
const std::string kDriverLibrary[] = {"libcuda.so.1"};

constexpr std::string_view kDriverRemedy =
    "Install the NVIDIA driver (CUDA 12.0 or newer); in a container, pass the GPU through.";

struct LoadedDriver {
  SharedLibrary library;
  Driver functions;
};

std::string describe(const Driver& functions, CUresult result) {
  const char* name = nullptr;
  const char* text = nullptr;
  functions.get_error_name(result, &name);
  functions.get_error_string(result, &text);
  return fmt::format("{} ({})", text != nullptr ? text : "unknown error",
                     name != nullptr ? name : std::to_string(static_cast<int>(result)));
}

void initialise(const Driver& functions) {
  int version = 0;
  if (functions.driver_get_version(&version) == CUDA_SUCCESS && version != 0 &&
      version < kOldestDriver) {
    throw Error(ErrorCode::kEnvironment,
                fmt::format("cannot use the NVIDIA driver: it supports CUDA {}.{} only. {}",
                            version / 1000, version % 1000 / 10, kDriverRemedy));
  }
  int count = 0;
  CUresult result = functions.init(0);
  if (result == CUDA_SUCCESS) result = functions.device_get_count(&count);
  if (result == CUDA_ERROR_NO_DEVICE || (result == CUDA_SUCCESS && count == 0)) {
    throw Error(ErrorCode::kNoDevice,
                "no GPU: the NVIDIA driver sees no device. Check nvidia-smi and "
                "CUDA_VISIBLE_DEVICES; in a container, pass the GPU through.");
  }
  if (result != CUDA_SUCCESS) {
    throw Error(
        ErrorCode::kEnvironment,
        fmt::format("cannot start the NVIDIA driver: cuInit: {}. Check that nvidia-smi works "
                    "and that the driver's library and kernel module match.",
                    describe(functions, result)));
  }
}

// Kept until the program ends: objects with static storage may still free GPU memory at exit.
const LoadedDriver* load() {
  LoadedDriver loaded{
      SharedLibrary::open(kDriverLibrary, "the NVIDIA driver (libcuda)", kDriverRemedy), {}};
#define W4_LOAD_FUNCTION(field, symbol_name) \
  loaded.functions.field = loaded.library.symbol<decltype(loaded.functions.field)>(#symbol_name);
  W4_DRIVER_FUNCTIONS(W4_LOAD_FUNCTION)
#undef W4_LOAD_FUNCTION
  initialise(loaded.functions);
  return new LoadedDriver(std::move(loaded));
}

std::string_view remedy_for(CUresult result) {
  switch (result) {
    case CUDA_ERROR_OUT_OF_MEMORY: return "Free memory on the GPU, or use smaller shapes.";
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
    case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
    case CUDA_ERROR_INVALID_IMAGE:
      return "Compile for this GPU, with a CUDA toolkit no newer than the driver.";
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
      return "A kernel failed and the process can no longer use the GPU: start it again.";
    default: return "Run w4tune doctor.";
  }
}

}  // namespace

const Driver& driver() {
  static const LoadedDriver* const loaded = load();
  return loaded->functions;
}

void throw_driver_error(CUresult result, const char* call) {
  throw Error(ErrorCode::kDevice, fmt::format("{} failed: {}. {}", call, describe(driver(), result),
                                              remedy_for(result)));
}

}  // namespace w4tune
