#include "runtime/gpu_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <exception>
#include <map>
#include <string>
#include <string_view>

#include "gpu/device.h"
#include "gpu/driver.h"
#include "gpu/tensor_map.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr const char* kGemmKernel = "w4_kernel";
constexpr const char* kUtilityModule = "utility";
// By GpuState::Utility: the call that needs it, and its kernels for FP16 and BF16.
struct UtilityNames {
  const char* call;
  std::array<const char*, 2> kernels;
};
constexpr std::array<UtilityNames, 4> kUtilities = {
    {{"pack_weights", {"w4_pack_weight", "w4_pack_weight"}},
     {"dequantize", {"w4_dequantize_f16", "w4_dequantize_bf16"}},
     {"activate", {"w4_activate_rows_f16", "w4_activate_rows_bf16"}},
     {"rotate", {"w4_rotate_f16", "w4_rotate_bf16"}}}};

constexpr int kDependentSm = 90;              // dependent launches from here on
constexpr std::size_t kMostProducts = 512;    // remembered; then they are asked for anew
constexpr std::uint32_t kRotationTokens = 8;  // of a thread: w4::rotate in device/utility.cu

const std::string& cubin_of(const std::vector<const DeviceRows*>& layers, const std::string& key) {
  for (const DeviceRows* rows : layers) {
    const auto at = rows->cubins.find(key);
    if (at != rows->cubins.end()) return at->second;
  }
  throw Error(ErrorCode::kInternal, fmt::format("no file has compilation {}", key));
}

}  // namespace

ServingContext::ServingContext(int device) {
  CUcontext current = nullptr;
  check(driver().ctx_get_current(&current), "cuCtxGetCurrent");
  CUdevice current_device = 0;
  if (current != nullptr) check(driver().ctx_get_device(&current_device), "cuCtxGetDevice");
  if (current != nullptr && (device == -1 || device == current_device)) {
    device_ = current_device;
    context_ = current;
    return;
  }
  const int ordinal = std::max(device, 0);
  const int count = device_count();
  if (device < -1 || ordinal >= count) {
    throw Error(ErrorCode::kNoDevice,
                fmt::format("no GPU {}: this machine has {}, numbered from 0. "
                            "Ask for another.",
                            device, count));
  }
  check(driver().device_get(&device_, ordinal), "cuDeviceGet");
  check(driver().primary_ctx_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
  is_retained_ = true;
}

ServingContext::~ServingContext() {
  if (is_retained_) driver().primary_ctx_release(device_);
}

ContextScope::ContextScope(CUcontext context) {
  check(driver().ctx_get_current(&previous_), "cuCtxGetCurrent");
  if (previous_ == context) return;
  check(driver().ctx_set_current(context), "cuCtxSetCurrent");
  is_switched_ = true;
}

ContextScope::~ContextScope() {
  if (is_switched_) driver().ctx_set_current(previous_);
}

GpuState::GpuState(int device) : context_(device), info_(query_device(context_.device())) {}

GpuState::~GpuState() {
  try {
    const ContextScope scope(context_.handle());
    products_.clear();
    scratch_.reset();
    workspace_.reset();
    utilities_.reset();
    kernels_.clear();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch)
    // The context is gone, and what it held with it.
  }
}

void GpuState::load(const std::vector<const DeviceRows*>& layers, Table& table) {
  const ContextScope scope(context_.handle());
  struct Loaded {
    std::size_t index = 0;
    int smem_bytes = 0;
  };
  std::map<std::string_view, Loaded> by_cubin;  // several keys may share one cubin
  for (TunedKernel& tuned : table.kernels()) {
    const std::string& cubin = cubin_of(layers, tuned.compilation_key);
    const auto [at, is_new] = by_cubin.try_emplace(cubin, Loaded{.index = kernels_.size()});
    if (is_new) kernels_.emplace_back(cubin, kGemmKernel);
    at->second.smem_bytes = std::max(at->second.smem_bytes, tuned.footprint.smem_bytes);
    tuned.function = kernels_[at->second.index].function();
  }
  for (const auto& [cubin, loaded] : by_cubin) {
    kernels_[loaded.index].allow_dynamic_smem(static_cast<std::size_t>(loaded.smem_bytes));
  }
  for (const DeviceRows* rows : layers) {
    for (const auto& [name, key] : rows->device.device_kernels) {
      if (name == kUtilityModule) utilities_.emplace(rows->cubins.at(key));
    }
  }
  static_assert(kUtilities.size() == static_cast<std::size_t>(Utility::kCount));
  for (std::size_t i = 0; utilities_ && i < kUtilities.size(); ++i) {
    for (std::size_t dtype = 0; dtype < 2; ++dtype) {
      utility_functions_[i][dtype] = utilities_->find(kUtilities[i].kernels[dtype]);
    }
  }
  workspace_.emplace(table.workspace_need(info_.sm_count));
  scratch_.emplace(WorkspaceNeed{.partial_bytes = table.scratch_bytes()});
  if (table.scratch_bytes() > 0) CublasLt::get().prepare();
}

CUfunction GpuState::utility(Utility utility, Dtype dtype) const {
  const auto index = static_cast<std::size_t>(utility);
  const CUfunction function = utility_functions_[index][static_cast<std::size_t>(dtype)];
  if (function != nullptr) return function;
  throw Error(ErrorCode::kNotFound,
              fmt::format("{}: the file has no kernel for it: it was not made by this version of "
                          "w4tune. Tune again.",
                          kUtilities[index].call));
}

void GpuState::launch(const TunedKernel& kernel, const Problem& problem, w4::GemmArgs args,
                      CUstream stream, bool dependent) {
  const ContextScope scope(context_.handle());
  if (kernel.composite) {
    launch_slices(kernel, args, stream);
    return;
  }
  const Footprint& footprint = kernel.footprint;
  const Schedule schedule = kernel.is_default
                                ? default_schedule(footprint, problem, args.m, info_.sm_count)
                                : kernel.schedule;
  const LaunchPlan plan =
      fit_launch_plan(footprint, problem, args.m, schedule, workspace_->size(), info_.sm_count);
  if (plan.counter_count > 0) {
    const Workspace::Slot slot = workspace_->slot(stream);
    args.partials = slot.partials;
    args.counters = slot.counters;
  }
  args.split_k = plan.schedule.split_k;
  args.raster = plan.schedule.raster;
  dependent = dependent && footprint.dependent && info_.sm >= kDependentSm;
  args.dependent = dependent ? 1 : 0;
  KernelMaps maps = kernel_maps(footprint, problem, args);
  void* params[] = {&args, &maps.tokens, &maps.weights};  // kernels without maps have fewer
  w4tune::launch(kernel.function, plan.grid, plan.threads, plan.smem_bytes, stream, params,
                 plan.cluster, dependent);
}

void GpuState::launch_slices(const TunedKernel& kernel, const w4::GemmArgs& args, CUstream stream) {
  const Dtype dtype = kernel.problem.dtype;
  const SliceKernels kernels{.dequantize = utility(Utility::kDequantize, dtype),
                             .activate = utility(Utility::kActivate, dtype)};
  sliced_product(kernel, args)->run(kernels, args, scratch_->slot(stream).partials, stream);
}

std::shared_ptr<const SlicedProduct> GpuState::sliced_product(const TunedKernel& kernel,
                                                              const w4::GemmArgs& args) {
  const std::lock_guard lock(products_mutex_);
  const ProductKey key{&kernel, args.m, args.ldx, args.ldy};
  const auto known = products_.find(key);
  if (known != products_.end()) return known->second;
  if (products_.size() >= kMostProducts) products_.clear();
  auto product = std::make_shared<const SlicedProduct>(kernel.problem, kernel.composite->slice_rows,
                                                       kernel.m, args.m, args.ldx, args.ldy);
  products_.emplace(key, product);
  return product;
}

void GpuState::pack_weights(const Problem& problem, const UnpackedWeight& weight, void* packed_w,
                            void* packed_scales, CUstream stream) const {
  const CUfunction function = utility(Utility::kPack, problem.dtype);
  const ContextScope scope(context_.handle());
  const void* nibbles = weight.nibbles;
  const void* scales = weight.scales;
  int rows = weight_rows(problem);
  int n = problem.n;
  int k = problem.k;
  int groups = num_groups(problem);
  int geglu = problem.op == Op::kGeglu ? 1 : 0;
  // Flipping the sign bit of a two's complement nibble adds 8, modulo 16.
  unsigned int flip = weight.encoding == NibbleEncoding::kSigned ? 8 : 0;
  void* params[] = {&nibbles, &scales, &packed_w, &packed_scales, &rows,
                    &n,       &k,      &groups,   &geglu,         &flip};
  const std::size_t words = weight_bytes(problem) / sizeof(std::uint32_t);
  w4tune::launch(function, striding_grid(words), kUtilityThreads, 0, stream, params);
}

void GpuState::dequantize(const Problem& problem, const void* packed_w, const void* packed_scales,
                          void* w, CUstream stream) const {
  const CUfunction function = utility(Utility::kDequantize, problem.dtype);
  const ContextScope scope(context_.handle());
  int rows = weight_rows(problem);
  int n = problem.n;
  int k = problem.k;
  int groups = num_groups(problem);
  int geglu = problem.op == Op::kGeglu ? 1 : 0;
  void* params[] = {&packed_w, &packed_scales, &w, &rows, &n, &k, &groups, &geglu};
  // A lane for 32 weights.
  const auto weights = static_cast<std::size_t>(rows) * static_cast<std::size_t>(k);
  w4tune::launch(function, striding_grid(weights / 32), kUtilityThreads, 0, stream, params);
}

void GpuState::activate(Dtype dtype, const void* h, void* y, int m, int n, CUstream stream) const {
  const CUfunction function = utility(Utility::kActivate, dtype);
  const ContextScope scope(context_.handle());
  long long ldy = n;
  void* params[] = {&h, &y, &m, &n, &ldy};
  const auto outputs = static_cast<std::size_t>(m) * static_cast<std::size_t>(n);
  w4tune::launch(function, striding_grid(outputs / 8), kUtilityThreads, 0, stream, params);
}

void GpuState::rotate(const Rotation& rotation, CUstream stream) const {
  const CUfunction function = utility(Utility::kRotate, rotation.dtype);
  const ContextScope scope(context_.handle());
  Rotation r = rotation;
  if (r.ldx == 0) r.ldx = r.width;
  int columns = static_cast<int>(std::bit_ceil(static_cast<unsigned>(std::max(r.block, 16))));
  const auto tokens = kUtilityThreads / static_cast<std::uint32_t>(columns) * kRotationTokens;
  const auto blocks = static_cast<std::uint32_t>((r.width + r.block - 1) / r.block);
  const std::uint32_t grid = blocks * ((static_cast<std::uint32_t>(r.m) + tokens - 1) / tokens);
  void* params[] = {&r.x,     &r.permutation, &r.blocks, &r.y,  &r.m,
                    &r.width, &r.block,       &columns,  &r.ldx};
  w4tune::launch(function, grid, kUtilityThreads, 0, stream, params);
}

}  // namespace w4tune
