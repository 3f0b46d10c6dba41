#include "core/calibration.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace w4tune {
namespace {

// Of read_gbps, where the curve bends: below it latency binds, above it the memory does.
constexpr double kBend = 0.8;

bool is_rate(double value) { return std::isfinite(value) && value > 0.0; }

}  // namespace

bool is_sound(const Calibration& calibration) {
  const auto& curve = calibration.read_curve;
  for (std::size_t i = 0; i < curve.size(); ++i) {
    if (!is_rate(curve[i].gbps) || !is_rate(curve[i].bytes_per_sm)) return false;
    if (i > 0 && curve[i].bytes_per_sm <= curve[i - 1].bytes_per_sm) return false;
  }
  const double needed[] = {calibration.copy_gbps,       calibration.read_gbps,
                           calibration.launch_us,       calibration.mma_tflops,
                           calibration.mma_sync_tflops, calibration.reduce_us,
                           calibration.reduce_sm_gbps};
  return !curve.empty() && std::all_of(std::begin(needed), std::end(needed), is_rate);
}

double read_gbps_at(const Calibration& calibration, double bytes_per_sm) {
  W4_CHECK(!calibration.read_curve.empty(), "a calibration has a curve");
  ReadPoint below;  // nothing under way, nothing read
  for (const ReadPoint& point : calibration.read_curve) {
    const double gbps = std::max(below.gbps, point.gbps);
    if (bytes_per_sm < point.bytes_per_sm) {
      const double share =
          (bytes_per_sm - below.bytes_per_sm) / (point.bytes_per_sm - below.bytes_per_sm);
      return below.gbps + share * (gbps - below.gbps);
    }
    below = {point.bytes_per_sm, gbps};
  }
  return below.gbps;
}

double bytes_reaching(const Calibration& calibration, double share) {
  W4_CHECK(share > 0.0 && share <= 1.0, "a share is above 0 and at most 1");
  const double wanted = share * calibration.read_gbps;
  ReadPoint below;
  for (const ReadPoint& point : calibration.read_curve) {
    if (point.gbps >= wanted) {
      return below.bytes_per_sm + (wanted - below.gbps) / (point.gbps - below.gbps) *
                                      (point.bytes_per_sm - below.bytes_per_sm);
    }
    below = {point.bytes_per_sm, std::max(below.gbps, point.gbps)};
  }
  return below.bytes_per_sm;
}

double loaded_latency_us(const Calibration& calibration, int sm_count) {
  return bytes_reaching(calibration, kBend) * sm_count / (kBend * calibration.read_gbps * 1e3);
}

}  // namespace w4tune
