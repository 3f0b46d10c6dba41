#include "w4tune/dispatcher.h"

#include <fmt/format.h>

#include <cstdint>
#include <utility>

#include "core/gemm_args.h"
#include "core/problem.h"
#include "gpu/device.h"
#include "runtime/device_rows.h"
#include "runtime/gpu_state.h"
#include "runtime/table.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr std::uintptr_t kPointerAlignment = 16;
constexpr std::int64_t kStrideMultiple = 8;  // 16 bytes

[[noreturn]] void invalid(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, what);
}

void check_pointer(const char* call, const char* name, const void* pointer,
                   std::uintptr_t alignment = kPointerAlignment) {
  if (pointer == nullptr) invalid(fmt::format("{}: {} is null. Pass device memory.", call, name));
  if (reinterpret_cast<std::uintptr_t>(pointer) % alignment != 0) {
    invalid(fmt::format("{}: {} = {} must be a multiple of {} bytes. Align it.", call, name,
                        pointer, alignment));
  }
}

std::int64_t checked_stride(const char* name, std::int64_t stride, int width) {
  if (stride == 0 && width % kStrideMultiple == 0) return width;
  if (stride >= width && stride % kStrideMultiple == 0) return stride;
  invalid(
      fmt::format("launch: {} = {} must be a multiple of {} and at least {}, or 0 for dense rows.",
                  name, stride, kStrideMultiple, width));
}

w4::GemmArgs checked_args(const TunedKernel& kernel, const LaunchOperands& operands) {
  check_pointer("launch", "x", operands.x);
  check_pointer("launch", "w", operands.w);
  check_pointer("launch", "scales", operands.scales);
  check_pointer("launch", "y", operands.y);
  if (operands.m < 1 || operands.m > kernel.max_m) {
    invalid(fmt::format("launch: m = {} must be from 1 to {}.", operands.m, kernel.max_m));
  }
  w4::GemmArgs args{};
  args.x = operands.x;
  args.w = operands.w;
  args.scales = operands.scales;
  args.y = operands.y;
  args.ldx = checked_stride("ldx", operands.ldx, kernel.problem.k);
  args.ldy = checked_stride("ldy", operands.ldy, kernel.problem.n);
  args.m = operands.m;
  args.n = kernel.problem.n;
  args.k = kernel.problem.k;
  return args;
}

}  // namespace

class Dispatcher::Impl {
 public:
  Impl(const std::string& path, const OpenOptions& options) {
    if (options.device_name.empty()) gpu_ = std::make_unique<GpuState>(options.device);
    DeviceRows rows = gpu_ ? load_device_rows(path, query_device(gpu_->device()))
                           : load_device_rows(path, options.device_name);
    device_name_ = rows.device.info.name;
    table_ = std::make_unique<Table>(std::move(rows.device.winners), rows.is_same_gpu);
    if (gpu_) gpu_->load(rows, *table_);
  }

  [[nodiscard]] const Table& table() const { return *table_; }
  [[nodiscard]] const std::string& device_name() const { return device_name_; }

  [[nodiscard]] GpuState& gpu(const char* call) const {
    if (gpu_) return *gpu_;
    throw Error(ErrorCode::kNoDevice,
                fmt::format("{}: this Dispatcher was opened by device name, for looking only. Open "
                            "it without device_name.",
                            call));
  }

 private:
  std::string device_name_;
  std::unique_ptr<GpuState> gpu_;  // null: for looking only
  std::unique_ptr<Table> table_;
};

const char* Selection::config() const noexcept {
  return kernel == nullptr ? "" : kernel->config.c_str();
}

const char* match_name(Match match) noexcept { return to_string(match).data(); }

Dispatcher::Dispatcher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Dispatcher::Dispatcher(Dispatcher&& other) noexcept = default;
Dispatcher& Dispatcher::operator=(Dispatcher&& other) noexcept = default;
Dispatcher::~Dispatcher() = default;

Dispatcher Dispatcher::open(const std::string& path, const OpenOptions& options) {
  return Dispatcher(std::make_unique<Impl>(path, options));
}

Selection Dispatcher::select(const Problem& problem, int m) const noexcept {
  return impl_->table().select(problem, m);
}

void Dispatcher::launch(const Selection& selection, const LaunchOperands& operands,
                        CudaStream stream) const {
  if (!selection) {
    invalid(fmt::format("launch: nothing was selected: {}. Check the Selection first.",
                        selection.reason));
  }
  if (!impl_->table().owns(selection.kernel)) {
    invalid("launch: the Selection belongs to another Dispatcher. Select from this one.");
  }
  const w4::GemmArgs args = checked_args(*selection.kernel, operands);
  impl_->gpu("launch").launch(*selection.kernel, args, stream, operands.dependent_launch);
}

void Dispatcher::pack_weights(const Problem& problem, const UnpackedWeight& weight, void* packed_w,
                              void* packed_scales, CudaStream stream) const {
  validate(problem);
  check_pointer("pack_weights", "nibbles", weight.nibbles, 1);
  check_pointer("pack_weights", "scales", weight.scales, 2);
  check_pointer("pack_weights", "packed_w", packed_w);
  check_pointer("pack_weights", "packed_scales", packed_scales);
  impl_->gpu("pack_weights").pack_weights(problem, weight, packed_w, packed_scales, stream);
}

std::vector<ServedInterval> Dispatcher::intervals() const {
  std::vector<ServedInterval> intervals;
  for (const TunedKernel& kernel : impl_->table().kernels()) {
    intervals.push_back({.problem = kernel.problem,
                         .m = kernel.m,
                         .m_lo = kernel.m_lo,
                         .m_hi = kernel.m_hi,
                         .config = kernel.config,
                         .match = kernel.match_at_m,
                         .time_us_median = kernel.time_us_median,
                         .floor_us = kernel.floor_us,
                         .baseline_us = kernel.baseline_us});
  }
  return intervals;
}

const std::string& Dispatcher::device_name() const noexcept { return impl_->device_name(); }

}  // namespace w4tune
