#include "tuner/probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "core/gemm_args.h"
#include "core/half.h"
#include "core/stats.h"
#include "gpu/buffer.h"
#include "gpu/cublaslt.h"
#include "gpu/driver.h"
#include "gpu/event.h"
#include "gpu/graph.h"
#include "gpu/module.h"
#include "tuner/tune.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr std::size_t kCopyBytes = std::size_t{1} << 30;
constexpr int kMatrix = 8192;

// Samples of one figure: so many, or fewer where they would take too long.
constexpr std::size_t kRepeats = 9;
constexpr std::size_t kFewestRepeats = 3;
constexpr double kMostSeconds = 0.5;

template <typename Sample>
double median_of(const Sample& sample) {
  using Clock = std::chrono::steady_clock;
  sample();  // warms up
  const auto begin = Clock::now();
  std::vector<double> values;
  while (values.size() < kRepeats) {
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    if (values.size() >= kFewestRepeats && seconds > kMostSeconds) break;
    values.push_back(sample());
  }
  return median(std::move(values));
}

template <typename Work>
double median_us(const Stream& stream, const Work& work) {
  Event begin;
  Event end;
  return median_of([&] {
    begin.record(stream.handle());
    work();
    end.record(stream.handle());
    stream.synchronize();
    return elapsed_us(begin, end);
  });
}

// Of one of many launches that follow each other in a graph.
template <typename Work>
double launch_us(const Stream& stream, const Work& work) {
  constexpr int kLaunches = 500;
  Event begin;
  Event end;
  const Graph graph = Graph::capture(stream.handle(), [&] {
    begin.record_in_graph(stream.handle());
    for (int i = 0; i < kLaunches; ++i) work();
    end.record_in_graph(stream.handle());
  });
  return median_of([&] {
    graph.launch(stream.handle());
    stream.synchronize();
    return elapsed_us(begin, end) / kLaunches;
  });
}

double copy_gbps(const Stream& stream) {
  const Buffer from(kCopyBytes);
  const Buffer to(kCopyBytes);
  const double us = median_us(stream, [&] {
    check(driver().memcpy_dtod_async(to.address(), from.address(), kCopyBytes, stream.handle()),
          "cuMemcpyDtoDAsync");
  });
  return 2.0 * static_cast<double>(kCopyBytes) / us * 1e-3;
}

// Random operands: matrix products of zeros run faster than any real ones.
double matrix_tflops(const Stream& stream) {
  std::vector<std::uint16_t> host(static_cast<std::size_t>(kMatrix) * kMatrix);
  std::uint32_t state = 1;
  for (std::uint16_t& element : host) {
    state = state * 1664525U + 1013904223U;  // Numerical Recipes' generator
    element = f16_from_float(static_cast<float>(state >> 8) * 0x1p-23F - 1.0F);
  }
  Buffer x(host.size() * 2);
  Buffer w(host.size() * 2);
  const Buffer y(host.size() * 2);
  x.upload(host.data(), host.size() * 2);
  std::reverse(host.begin(), host.end());
  w.upload(host.data(), host.size() * 2);
  const CublasLtGemm gemm({.m = kMatrix, .n = kMatrix, .k = kMatrix});
  const Buffer workspace(CublasLtProduct::kDefaultWorkspaceBytes);
  const double us = median_us(stream, [&] {
    gemm.run(0, x.as<void>(), w.as<void>(), y.as<void>(), workspace.as<void>(), stream.handle());
  });
  return 2.0 * kMatrix * static_cast<double>(kMatrix) * kMatrix / us * 1e-6;
}

// mma.sync from registers, on all SMs for some milliseconds.
class MmaRate {
 public:
  MmaRate(const DeviceInfo& device, const UtilityKernels& utilities, const Stream& stream)
      : function_(utilities.function("w4_mma_rate")),
        grid_(static_cast<std::uint32_t>(device.sm_count * kCtasPerSm)),
        stream_(stream),
        sink_(sizeof(float)) {}

  void launch_once() const {
    auto* at = sink_.as<float>();
    int turns = kTurns;
    void* params[] = {&at, &turns};
    launch(function_, grid_, kThreads, 0, stream_.handle(), params);
  }

  [[nodiscard]] double tflops() const {
    constexpr double kOperations = 8 * 4096.0;  // of a warp, a turn
    const double us = median_us(stream_, [this] { launch_once(); });
    return kOperations * kTurns * (kThreads / 32.0) * grid_ / us * 1e-6;
  }

 private:
  static constexpr std::uint32_t kThreads = 256;
  static constexpr int kCtasPerSm = 2;
  static constexpr int kTurns = 20000;

  CUfunction function_;
  std::uint32_t grid_;
  const Stream& stream_;
  Buffer sink_;
};

// Of the SMs while mma.sync multiplies; 0 where it could not be read.
double loaded_clock_mhz(const DeviceInfo& device, const GpuSession& gpu) {
  constexpr int kTries = 8;  // both readings must come from one SM
  const MmaRate load(device, gpu.utilities(), gpu.stream());
  double clock_mhz = 0.0;
  for (int i = 0; i < kTries && clock_mhz == 0.0; ++i) {
    gpu.clock().record(gpu.stream().handle(), 0);
    load.launch_once();
    gpu.clock().record(gpu.stream().handle(), 1);
    gpu.stream().synchronize();
    clock_mhz = gpu.clock().clock_mhz(0, 1);
  }
  return clock_mhz;
}

// Cold reads of a large buffer by w4_read, whose threads ask for 64 bytes at a time.
std::vector<ReadPoint> read_curve(const DeviceInfo& device, const GpuSession& gpu,
                                  const OnStep& on_step) {
  constexpr std::size_t kThreadBytes = 64;
  constexpr std::uint32_t kMostThreads = 256;
  constexpr std::size_t kChunkBytes = 16;
  // So much of the last round can still be in the L2, which is small beside it.
  const std::size_t bytes = std::max(kCopyBytes, 8 * device.l2_bytes / kChunkBytes * kChunkBytes);
  Buffer from(bytes);
  from.fill(0);
  const Buffer sink(sizeof(std::uint32_t));
  void* weight = from.as<void>();
  auto weight_chunks = static_cast<long long>(bytes / kChunkBytes);
  long long no_chunks = 0;
  auto* sink_at = sink.as<std::uint32_t>();
  void* params[] = {&weight, &weight_chunks, &weight, &no_chunks, &sink_at};
  std::vector<ReadPoint> curve;
  for (std::size_t kb = 2; kb <= 64; kb *= 2) {
    on_step(fmt::format("read bandwidth with {} KB under way to each SM", kb));
    const auto threads_per_sm = static_cast<std::uint32_t>((kb << 10) / kThreadBytes);
    const std::uint32_t threads = std::min(kMostThreads, threads_per_sm);
    const std::uint32_t grid =
        static_cast<std::uint32_t>(device.sm_count) * (threads_per_sm / threads);
    const double us = median_us(gpu.stream(), [&] {
      launch(gpu.utilities().function("w4_read"), grid, threads, 0, gpu.stream().handle(), params);
    });
    curve.push_back({static_cast<double>(kb << 10), static_cast<double>(bytes) / us * 1e-3});
  }
  return curve;
}

double empty_launch_us(const DeviceInfo& device, const GpuSession& gpu, bool dependent) {
  constexpr std::uint32_t kThreads = 256;
  const auto grid = static_cast<std::uint32_t>(device.sm_count);
  return launch_us(gpu.stream(), [&] {
    launch(gpu.utilities().function("w4_nothing"), grid, kThreads, 0, gpu.stream().handle(),
           nullptr, 1, dependent);
  });
}

// A split of four with one CTA an SM, once with few partials and once with many, beside the launch:
// two equations for what does not depend on the bytes and what each byte costs.
void probe_reduction(const DeviceInfo& device, const GpuSession& gpu, Calibration& calibration) {
  constexpr int kSplit = 4;
  constexpr std::uint32_t kThreads = 256;
  constexpr double kLittleBytes = 4096.0;  // of a CTA; mirrored in templates/device/utility.cu
  constexpr double kMuchBytes = 32768.0;
  constexpr std::uint32_t kVoteBytes = 16;
  const int tiles = std::max(1, device.sm_count / kSplit);
  const auto ctas = static_cast<std::size_t>(tiles) * kSplit;
  const Buffer partials(ctas * static_cast<std::size_t>(kMuchBytes));
  const Buffer y(static_cast<std::size_t>(tiles) * static_cast<std::size_t>(kMuchBytes) / 2);
  Buffer counters(static_cast<std::size_t>(tiles) * sizeof(unsigned int));
  counters.fill(0);
  w4::GemmArgs args{};
  args.y = y.as<void>();
  args.partials = partials.as<float>();
  args.counters = counters.as<unsigned int>();
  args.split_k = kSplit;
  void* params[] = {&args};
  const auto measured = [&](const char* name) {
    return launch_us(gpu.stream(), [&] {
      launch(gpu.utilities().function(name), static_cast<std::uint32_t>(ctas), kThreads, kVoteBytes,
             gpu.stream().handle(), params);
    });
  };
  const double little_us = measured("w4_reduce_little");
  const double much_us = measured("w4_reduce_much");
  const double us_per_byte = (much_us - little_us) / (kSplit * (kMuchBytes - kLittleBytes));
  calibration.reduce_sm_gbps = 1e-3 / us_per_byte;
  calibration.reduce_us = little_us - calibration.launch_us - us_per_byte * kSplit * kLittleBytes;
}

}  // namespace

bool probe_mma_denormals(const UtilityKernels& utilities, const Stream& stream) {
  constexpr std::uint32_t kLanes = 32;
  Buffer right(sizeof(std::uint32_t));
  right.fill(0);
  auto* at = right.as<std::uint32_t>();
  void* params[] = {&at};
  launch(utilities.function("w4_probe_denormals"), 1, kLanes, 0, stream.handle(), params);
  stream.synchronize();
  std::uint32_t lanes = 0;
  right.download(&lanes, sizeof(lanes));
  return lanes == kLanes;
}

Ceilings probe_ceilings(const DeviceInfo& device, const UtilityKernels& utilities,
                        const Stream& stream) {
  Ceilings ceilings;
  ceilings.copy_gbps = copy_gbps(stream);
  ceilings.mma_sync_tflops = MmaRate(device, utilities, stream).tflops();
  if (CublasLt::available()) {
    ceilings.mma_tflops = matrix_tflops(stream);
    ceilings.mma_source = "cublaslt_8192";
  } else {
    const bool known = device.mma_tflops > 0.0;
    ceilings.mma_tflops = known ? device.mma_tflops : ceilings.mma_sync_tflops;
    ceilings.mma_source = known ? "data sheet" : "mma.sync";
  }
  return ceilings;
}

Calibration probe_device(const DeviceInfo& device, const GpuSession& gpu, const OnStep& on_step) {
  Calibration calibration;
  on_step("copy bandwidth and matrix rate");
  const Ceilings ceilings = probe_ceilings(device, gpu.utilities(), gpu.stream());
  calibration.copy_gbps = ceilings.copy_gbps;
  calibration.mma_tflops = ceilings.mma_tflops;
  calibration.mma_source = ceilings.mma_source;
  calibration.mma_sync_tflops = ceilings.mma_sync_tflops;
  calibration.clock_mhz = loaded_clock_mhz(device, gpu);
  calibration.read_curve = read_curve(device, gpu, on_step);
  for (const ReadPoint& point : calibration.read_curve) {
    calibration.read_gbps = std::max(calibration.read_gbps, point.gbps);
  }
  on_step("cost of a launch");
  calibration.launch_us = empty_launch_us(device, gpu, false);
  if (device.sm >= 90) calibration.dependent_launch_us = empty_launch_us(device, gpu, true);
  on_step("cost of a split's reduction");
  probe_reduction(device, gpu, calibration);
  if (!is_sound(calibration)) {
    throw Error(ErrorCode::kDevice,
                fmt::format("the probe of {} found what cannot be (launch {:.2f} us, reduction "
                            "{:.2f} us and {:.0f} GB/s an SM, reads {:.0f} GB/s). Stop what else "
                            "uses this GPU and try again.",
                            device.name, calibration.launch_us, calibration.reduce_us,
                            calibration.reduce_sm_gbps, calibration.read_gbps));
  }
  calibration.measured_at = timestamp_now();
  calibration.driver = describe_driver();
  return calibration;
}

std::optional<Calibration> usable_calibration(const Store& store, const DeviceInfo& device) {
  std::optional<Calibration> stored = store.calibration(device);
  const bool usable =
      stored && stored->method == Calibration::kMethod && stored->driver == describe_driver();
  return usable ? stored : std::nullopt;
}

Ceilings ceilings_of(const Calibration& calibration) {
  return {calibration.copy_gbps, calibration.mma_tflops, calibration.mma_source,
          calibration.mma_sync_tflops};
}

}  // namespace w4tune
