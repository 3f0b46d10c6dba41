#include "tuner/probe.h"

#include <algorithm>
#include <vector>

#include "core/half.h"
#include "core/stats.h"
#include "gpu/buffer.h"
#include "gpu/cublaslt.h"
#include "gpu/driver.h"
#include "gpu/event.h"
#include "gpu/module.h"

namespace w4tune {
namespace {

constexpr std::size_t kCopyBytes = std::size_t{1} << 30;
constexpr int kMatrix = 8192;
constexpr int kRepeats = 9;

template <typename Work>
double median_us(const Stream& stream, const Work& work) {
  Event begin;
  Event end;
  std::vector<double> times;
  for (int i = 0; i <= kRepeats; ++i) {
    begin.record(stream.handle());
    work();
    end.record(stream.handle());
    stream.synchronize();
    if (i > 0) times.push_back(elapsed_us(begin, end));  // the first warms up
  }
  return median(times);
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

double mma_sync_tflops(const DeviceInfo& device, const UtilityKernels& utilities,
                       const Stream& stream) {
  constexpr std::uint32_t kThreads = 256;
  constexpr double kOperations = 8 * 4096.0;  // of a warp, a turn
  constexpr int kCtasPerSm = 2;
  const Buffer sink(sizeof(float));
  auto* at = sink.as<float>();
  int turns = 20000;  // some milliseconds
  void* params[] = {&at, &turns};
  const auto grid = static_cast<std::uint32_t>(device.sm_count * kCtasPerSm);
  const double us = median_us(stream, [&] {
    launch(utilities.function("w4_mma_rate"), grid, kThreads, 0, stream.handle(), params);
  });
  return kOperations * turns * (kThreads / 32.0) * grid / us * 1e-6;
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
  ceilings.mma_sync_tflops = mma_sync_tflops(device, utilities, stream);
  if (CublasLt::available()) {
    ceilings.mma_tflops = matrix_tflops(stream);
    ceilings.mma_source = "cublaslt_8192";
  } else {
    ceilings.mma_tflops = device.mma_tflops;
    ceilings.mma_source = "data sheet";
  }
  return ceilings;
}

}  // namespace w4tune
