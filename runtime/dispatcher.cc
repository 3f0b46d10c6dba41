#include "w4tune/dispatcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/gemm_args.h"
#include "core/problem.h"
#include "gpu/cublaslt.h"
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

w4::GemmArgs checked_args(const TunedKernel& kernel, const Problem& problem,
                          const LaunchOperands& operands) {
  check_pointer("launch", "x", operands.x);
  check_pointer("launch", "w", operands.w);
  check_pointer("launch", "scales", operands.scales);
  check_pointer("launch", "y", operands.y);
  const int most = max_tokens(kernel.footprint, problem, kernel.schedule.split_k);
  if (operands.m < 1 || operands.m > most) {
    invalid(fmt::format("launch: m = {} must be from 1 to {}.", operands.m, most));
  }
  w4::GemmArgs args{};
  args.x = operands.x;
  args.w = operands.w;
  args.scales = operands.scales;
  args.y = operands.y;
  args.ldx = checked_stride("ldx", operands.ldx, problem.k);
  args.ldy = checked_stride("ldy", operands.ldy, problem.n);
  args.m = operands.m;
  args.n = problem.n;
  args.k = problem.k;
  return args;
}

// What composites may use: nothing where the file has some and cuBLASLt is not to be had.
std::size_t scratch_limit(const std::vector<Winner>& winners, std::size_t wanted) {
  const bool any = std::any_of(winners.begin(), winners.end(),
                               [](const Winner& winner) { return winner.composite.has_value(); });
  return any && CublasLt::available() ? wanted : 0;
}

}  // namespace

class Dispatcher::Impl {
 public:
  Impl(const std::string& path, const OpenOptions& options) {
    if (options.device_name.empty()) gpu_ = std::make_unique<GpuState>(options.device);
    if (!gpu_) {
      DeviceRows rows = load_device_rows(path, options.device_name);
      device_name_ = rows.device.info.name;
      table_ = std::make_unique<Table>(std::move(rows.device.winners), rows.is_same_gpu,
                                       std::vector<Winner>{}, options.max_scratch_bytes);
      return;
    }
    const DeviceInfo& info = gpu_->info();
    DeviceRows tuned;
    DeviceRows defaults;
    const bool has_defaults = !options.defaults_path.empty();
    if (has_defaults) defaults = load_default_rows(options.defaults_path, info);
    if (!has_defaults) {
      tuned = load_device_rows(path, info);
    } else if (!path.empty()) {
      tuned = find_device_rows(path, info).value_or(DeviceRows{});
    }
    device_name_ = tuned.device.info.name;
    const std::size_t limit = scratch_limit(tuned.device.winners, options.max_scratch_bytes);
    table_ = std::make_unique<Table>(std::move(tuned.device.winners), tuned.is_same_gpu,
                                     std::move(defaults.device.winners), limit);
    gpu_->load({&tuned, &defaults}, *table_);
  }

  [[nodiscard]] const Table& table() const { return *table_; }
  [[nodiscard]] const std::string& device_name() const { return device_name_; }
  [[nodiscard]] double dram_gbps() const { return gpu_ ? gpu_->info().dram_gbps : 0.0; }

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

std::size_t Selection::scratch_bytes() const noexcept {
  return kernel == nullptr || !kernel->composite ? 0 : kernel->composite->scratch_bytes;
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
  const TunedKernel& kernel = *selection.kernel;
  const Problem problem = served_problem(kernel, selection.n, selection.k);
  const w4::GemmArgs args = checked_args(kernel, problem, operands);
  impl_->gpu("launch").launch(kernel, problem, args, stream, operands.dependent_launch);
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

void Dispatcher::dequantize(const Problem& problem, const void* packed_w, const void* packed_scales,
                            void* w, CudaStream stream) const {
  validate(problem);
  check_pointer("dequantize", "packed_w", packed_w);
  check_pointer("dequantize", "packed_scales", packed_scales);
  check_pointer("dequantize", "w", w);
  impl_->gpu("dequantize").dequantize(problem, packed_w, packed_scales, w, stream);
}

void Dispatcher::activate(Dtype dtype, const void* h, void* y, int m, int n,
                          CudaStream stream) const {
  check_pointer("activate", "h", h);
  check_pointer("activate", "y", y);
  if (m < 1) invalid(fmt::format("activate: m = {} must be at least 1.", m));
  if (n < 8 || n % 8 != 0) invalid(fmt::format("activate: n = {} must be a multiple of 8.", n));
  impl_->gpu("activate").activate(dtype, h, y, m, n, stream);
}

void Dispatcher::rotate(const Rotation& rotation, CudaStream stream) const {
  check_pointer("rotate", "x", rotation.x, 2);
  check_pointer("rotate", "blocks", rotation.blocks, 2);
  check_pointer("rotate", "y", rotation.y, 2);
  if (rotation.m < 1) invalid(fmt::format("rotate: m = {} must be at least 1.", rotation.m));
  if (rotation.width < 1)
    invalid(fmt::format("rotate: width = {} must be at least 1.", rotation.width));
  if (rotation.block < 1 || rotation.block > kMaxRotationBlock) {
    invalid(
        fmt::format("rotate: block = {} must be from 1 to {}.", rotation.block, kMaxRotationBlock));
  }
  if (rotation.ldx != 0 && rotation.ldx < rotation.width) {
    invalid(fmt::format("rotate: ldx = {} must be at least {}, or 0 for dense rows.", rotation.ldx,
                        rotation.width));
  }
  impl_->gpu("rotate").rotate(rotation, stream);
}

std::vector<ServedInterval> Dispatcher::intervals() const {
  std::vector<ServedInterval> intervals;
  for (const TunedKernel& kernel : impl_->table().kernels()) {
    if (kernel.is_default) continue;
    intervals.push_back({.problem = kernel.problem,
                         .m = kernel.m,
                         .m_lo = kernel.m_lo,
                         .m_hi = kernel.m_hi,
                         .config = kernel.config,
                         .match = kernel.match_at_m,
                         .time_us_median = kernel.time_us_median,
                         .floor_us = kernel.floor_us,
                         .baseline_us = kernel.baseline_us,
                         .scratch_bytes = kernel.composite ? kernel.composite->scratch_bytes : 0});
  }
  return intervals;
}

const std::string& Dispatcher::device_name() const noexcept { return impl_->device_name(); }

double Dispatcher::dram_gbps() const noexcept { return impl_->dram_gbps(); }

}  // namespace w4tune
