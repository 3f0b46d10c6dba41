// Results of a tuning run, as reports are made from.
#pragma once

#include "core/device_info.h"
#include "tuner/report.h"

namespace w4tune {

inline RunInfo sample_run() {
  RunInfo run;
  run.device = find_known_device("a40")->info;
  run.driver = "580.0 (CUDA 13.0)";
  run.nvrtc = "13.0";
  run.version = "0.1.0";
  run.protocol = "cold";
  run.started_at = "2026-01-01T00:00:00Z";
  return run;
}

inline WorkloadResult sample_row(int m, double time, double baseline) {
  WorkloadResult row;
  row.workload = {{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, m};
  Winner winner;
  winner.problem = row.workload.problem;
  winner.m = m;
  winner.provenance = Provenance::kMeasured;
  winner.candidate = {parse_kernel_config("mma_pipe row_tile=64"), {2, 1}};
  winner.time_us = {time * 0.99, time, time * 1.01};
  winner.clock_mhz = {1700, 1710, 1720};
  winner.time_us_median = time;
  winner.floor_us = time / 2;
  row.winner = winner;
  if (baseline > 0.0) {
    row.baseline = Baseline{"cublaslt_f16", "algo=1", {baseline, baseline}, {1700, 1700}};
  }
  return row;
}

inline TuneResult sample_result() {
  TuneResult result;
  result.ceilings = {600.0, 120.0, "cublaslt_8192"};
  result.rows = {sample_row(10, 5.0, 10.0), sample_row(968, 40.0, 20.0)};
  result.rows[0].winner->m_lo = 1;
  result.rows[0].winner->m_hi = 10;
  result.rows[1].winner->m_lo = 11;
  result.rows[1].winner->m_hi = kUnboundedM;
  result.rows.emplace_back();
  result.rows.back().workload = {{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, 1024};
  return result;
}

}  // namespace w4tune
