#include "gpu/module.h"

#include <fmt/format.h>

#include <array>
#include <string>
#include <utility>

#include "gpu/driver.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr std::size_t kLogBytes = 4096;

int attribute(CUfunction function, CUfunction_attribute which) {
  int value = 0;
  check(driver().func_get_attribute(&value, which, function), "cuFuncGetAttribute");
  return value;
}

// The log on one line, as every message is.
std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

}  // namespace

Module::Module(std::string_view image) {
  const std::string terminated(image);  // PTX must end with a NUL
  std::array<char, kLogBytes> log{};
  std::array<CUjit_option, 2> options = {CU_JIT_ERROR_LOG_BUFFER,
                                         CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  std::array<void*, 2> values = {log.data(), reinterpret_cast<void*>(log.size())};
  const CUresult result = driver().module_load_data_ex(&module_, terminated.data(),
                                                       static_cast<unsigned int>(options.size()),
                                                       options.data(), values.data());
  if (result == CUDA_SUCCESS) return;
  log.back() = '\0';
  const std::string words = one_line(log.data());
  const std::string call =
      words.empty() ? "cuModuleLoadDataEx" : fmt::format("cuModuleLoadDataEx ({})", words);
  throw_driver_error(result, call.c_str());
}

Module::Module(Module&& other) noexcept : module_(std::exchange(other.module_, nullptr)) {}

Module& Module::operator=(Module&& other) noexcept {
  std::swap(module_, other.module_);
  return *this;
}

Module::~Module() {
  if (module_ != nullptr) driver().module_unload(module_);
}

CUfunction Module::function(const char* name) const {
  if (const CUfunction function = find(name)) return function;
  throw Error(
      ErrorCode::kNotFound,
      fmt::format("no kernel {}: the module does not have it. Declare it extern \"C\".", name));
}

CUfunction Module::find(const char* name) const {
  CUfunction function = nullptr;
  const CUresult result = driver().module_get_function(&function, module_, name);
  if (result == CUDA_ERROR_NOT_FOUND) return nullptr;
  check(result, "cuModuleGetFunction");
  return function;
}

Kernel::Kernel(std::string_view image, const char* name)
    : module_(image),
      function_(module_.function(name)),
      registers_(attribute(function_, CU_FUNC_ATTRIBUTE_NUM_REGS)),
      local_bytes_(attribute(function_, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)),
      static_smem_bytes_(attribute(function_, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)) {}

void Kernel::allow_dynamic_smem(std::size_t bytes) {
  check(driver().func_set_attribute(function_, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                    static_cast<int>(bytes)),
        "cuFuncSetAttribute(MAX_DYNAMIC_SHARED_SIZE_BYTES)");
}

void launch(CUfunction function, std::uint32_t grid_x, std::uint32_t threads,
            std::uint32_t smem_bytes, CUstream stream, void** params, std::uint32_t cluster,
            bool dependent) {
  std::array<CUlaunchAttribute, 2> attributes{};
  unsigned int count = 0;
  if (cluster > 1) {
    attributes[count].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attributes[count].value.clusterDim = {cluster, 1, 1};
    ++count;
  }
  if (dependent) {
    attributes[count].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attributes[count].value.programmaticStreamSerializationAllowed = 1;
    ++count;
  }
  CUlaunchConfig config{};
  config.gridDimX = grid_x;
  config.gridDimY = 1;
  config.gridDimZ = 1;
  config.blockDimX = threads;
  config.blockDimY = 1;
  config.blockDimZ = 1;
  config.sharedMemBytes = smem_bytes;
  config.hStream = stream;
  config.attrs = attributes.data();
  config.numAttrs = count;
  check(driver().launch_kernel_ex(&config, function, params, nullptr), "cuLaunchKernelEx");
}

}  // namespace w4tune
