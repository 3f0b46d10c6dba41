#include "core/calibration.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/core/sample_calibration.h"

namespace w4tune {
namespace {

TEST(Calibration, ReadsBetweenThePointsOfTheCurveInAStraightLine) {
  Calibration calibration = sample_calibration();
  calibration.read_curve = {{4096.0, 1000.0}, {8192.0, 2000.0}, {16384.0, 3000.0}};
  calibration.read_gbps = 3000.0;
  EXPECT_DOUBLE_EQ(read_gbps_at(calibration, 2048.0), 500.0) << "in proportion below the first";
  EXPECT_DOUBLE_EQ(read_gbps_at(calibration, 4096.0), 1000.0);
  EXPECT_DOUBLE_EQ(read_gbps_at(calibration, 6144.0), 1500.0);
  EXPECT_DOUBLE_EQ(read_gbps_at(calibration, 12288.0), 2500.0);
  EXPECT_DOUBLE_EQ(read_gbps_at(calibration, 1e6), 3000.0) << "the last from there on";
  EXPECT_DOUBLE_EQ(bytes_reaching(calibration, 1.0), 16384.0);
  EXPECT_DOUBLE_EQ(bytes_reaching(calibration, 0.5), 6144.0);
  EXPECT_DOUBLE_EQ(bytes_reaching(calibration, 0.1), 1228.8);
}

TEST(Calibration, MoreUnderWayIsNeverWorseWhereTheCurveWasMeasuredWithADip) {
  Calibration calibration = sample_calibration();
  calibration.read_curve = {{4096.0, 1000.0}, {8192.0, 950.0}, {16384.0, 1900.0}};
  calibration.read_gbps = 1900.0;
  double last = 0.0;
  for (double bytes = 256.0; bytes < 40000.0; bytes += 256.0) {
    const double gbps = read_gbps_at(calibration, bytes);
    EXPECT_GE(gbps, last) << bytes;
    last = gbps;
  }
  EXPECT_DOUBLE_EQ(read_gbps_at(calibration, 8192.0), 1000.0);
}

TEST(Calibration, LatencyIsLittlesLawAtTheBend) {
  Calibration calibration = sample_calibration();
  calibration.read_curve = {{8000.0, 800.0}, {16000.0, 1000.0}};
  calibration.read_gbps = 1000.0;
  // 100 SMs with 8000 bytes each, at 800 GB/s.
  EXPECT_DOUBLE_EQ(loaded_latency_us(calibration, 100), 1.0);
}

TEST(Calibration, IsSoundWithEveryFigureAboveZero) {
  EXPECT_TRUE(is_sound(sample_calibration()));
  EXPECT_FALSE(is_sound({}));
  Calibration calibration = sample_calibration();
  calibration.dependent_launch_us = 0.0;
  calibration.clock_mhz = 0.0;
  EXPECT_TRUE(is_sound(calibration)) << "these may be unknown";
  calibration.reduce_us = 0.0;
  EXPECT_FALSE(is_sound(calibration));
  calibration = sample_calibration();
  calibration.read_gbps = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(is_sound(calibration));
  calibration = sample_calibration();
  std::swap(calibration.read_curve[0], calibration.read_curve[1]);
  EXPECT_FALSE(is_sound(calibration)) << "the curve must ascend";
}

}  // namespace
}  // namespace w4tune
