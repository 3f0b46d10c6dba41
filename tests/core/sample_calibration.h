// A calibration that tests share: what is known of an H200 (docs/kernels.md), rounded.
#pragma once

#include "core/calibration.h"

namespace w4tune {

inline Calibration sample_calibration() {
  return {.measured_at = "2026-11-25T12:00:00Z",
          .driver = "580.1 (CUDA 13.0)",
          .clock_mhz = 1980.0,
          .copy_gbps = 4270.0,
          .read_gbps = 4500.0,
          .read_curve = {{2048.0, 680.0},
                         {4096.0, 1340.0},
                         {8192.0, 2350.0},
                         {16384.0, 3650.0},
                         {32768.0, 4400.0},
                         {65536.0, 4500.0}},
          .launch_us = 0.6,
          .dependent_launch_us = 0.4,
          .mma_tflops = 750.0,
          .mma_source = "cublaslt_8192",
          .mma_sync_tflops = 625.0,
          .reduce_us = 1.6,
          .reduce_sm_gbps = 60.0};
}

}  // namespace w4tune
