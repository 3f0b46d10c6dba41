#include "runtime/gpu_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <string_view>

#include "gpu/device.h"
#include "gpu/driver.h"
#include "gpu/tensor_map.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr const char* kGemmKernel = "w4_kernel";
constexpr const char* kUtilityModule = "utility";
constexpr const char* kPackKernel = "w4_pack_weight";

constexpr std::uint32_t kPackThreads = 256;
constexpr std::size_t kPackMaxBlocks = 4096;  // the kernel strides over the rest

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

GpuState::GpuState(int device)
    : context_(device), can_begin_early_(query_device(context_.device()).sm >= 90) {}

GpuState::~GpuState() {
  try {
    const ContextScope scope(context_.handle());
    workspace_.reset();
    pack_kernel_.reset();
    kernels_.clear();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch)
    // The context is gone, and what it held with it.
  }
}

void GpuState::load(const DeviceRows& rows, Table& table) {
  const ContextScope scope(context_.handle());
  struct Loaded {
    std::size_t index = 0;
    int smem_bytes = 0;
  };
  std::map<std::string_view, Loaded> by_cubin;  // several keys may share one cubin
  for (TunedKernel& tuned : table.kernels()) {
    const std::string& cubin = rows.cubins.at(tuned.compilation_key);
    const auto [at, is_new] = by_cubin.try_emplace(cubin, Loaded{.index = kernels_.size()});
    if (is_new) kernels_.emplace_back(cubin, kGemmKernel);
    at->second.smem_bytes = std::max(at->second.smem_bytes, tuned.footprint.smem_bytes);
    tuned.function = kernels_[at->second.index].function();
  }
  for (const auto& [cubin, loaded] : by_cubin) {
    kernels_[loaded.index].allow_dynamic_smem(static_cast<std::size_t>(loaded.smem_bytes));
  }
  for (const auto& [name, key] : rows.device.device_kernels) {
    if (name == kUtilityModule) pack_kernel_.emplace(rows.cubins.at(key), kPackKernel);
  }
  workspace_.emplace(table.workspace_need());
}

void GpuState::launch(const TunedKernel& kernel, w4::GemmArgs args, CUstream stream,
                      bool dependent) {
  const ContextScope scope(context_.handle());
  const LaunchPlan plan = fit_launch_plan(kernel, args.m, workspace_->size());
  if (plan.counter_count > 0) {
    const Workspace::Slot slot = workspace_->slot(stream);
    args.partials = slot.partials;
    args.counters = slot.counters;
  }
  args.split_k = plan.schedule.split_k;
  args.raster = plan.schedule.raster;
  const Footprint& footprint = kernel.footprint;
  dependent = dependent && footprint.dependent && can_begin_early_;
  args.dependent = dependent ? 1 : 0;
  CUtensorMap tokens{};
  if (footprint.token_map) {
    const TokenBox box = token_box(footprint, args.m);
    tokens = map_matrix(args.x, args.m, args.k, args.ldx, box.tokens, box.depth);
  }
  void* params[] = {&args, &tokens};  // a kernel without a token map has one parameter
  w4tune::launch(kernel.function, plan.grid, plan.threads, plan.smem_bytes, stream, params,
                 plan.cluster, dependent);
}

void GpuState::pack_weights(const Problem& problem, const UnpackedWeight& weight, void* packed_w,
                            void* packed_scales, CUstream stream) const {
  if (!pack_kernel_) {
    throw Error(ErrorCode::kNotFound,
                "pack_weights: the file has no packing kernel. Tune again, or pack on the CPU.");
  }
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
  const std::size_t blocks = std::min((words + kPackThreads - 1) / kPackThreads, kPackMaxBlocks);
  w4tune::launch(pack_kernel_->function(), static_cast<std::uint32_t>(blocks), kPackThreads, 0,
                 stream, params);
}

}  // namespace w4tune
