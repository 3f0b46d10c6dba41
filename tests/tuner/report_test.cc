#include "tuner/report.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "templates/cost.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

RunInfo sample_run() {
  RunInfo run;
  run.device = find_known_device("a40")->info;
  run.driver = "580.0 (CUDA 13.0)";
  run.nvrtc = "13.0";
  run.version = "0.1.0";
  run.protocol = "cold";
  run.started_at = "2026-01-01T00:00:00Z";
  return run;
}

WorkloadResult sample_row(int m, double time, double baseline) {
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

TuneResult sample_result() {
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

TEST(Report, HasTheFieldsOfTheSchema) {
  const nlohmann::json report = report_json(sample_run(), sample_result());
  EXPECT_EQ(report.at("schema"), "w4tune.report/1");
  for (const char* key : {"gpu", "sm", "sm_count", "l2_bytes", "driver", "cuda", "nvrtc", "w4tune",
                          "commit", "protocol", "date", "mma_denormals"}) {
    EXPECT_TRUE(report.at("environment").contains(key)) << key;
  }
  const nlohmann::json& row = report.at("rows").at(0);
  for (const char* key : {"op",
                          "n",
                          "k",
                          "group",
                          "dtype",
                          "m",
                          "provenance",
                          "family",
                          "config",
                          "split_k",
                          "time_us_median",
                          "time_us_samples",
                          "clock_mhz_median",
                          "floor_us",
                          "floor_fraction",
                          "error",
                          "baselines",
                          "m_lo",
                          "m_hi",
                          "fp16_faster_by"}) {
    EXPECT_TRUE(row.contains(key)) << key;
  }
  EXPECT_EQ(row.at("baselines").at("cublaslt_f16").at("time_us_samples").size(), 2U);
  EXPECT_EQ(report.at("rows").at(2).at("provenance"), "untuned");
  EXPECT_TRUE(report.at("environment").at("mma_denormals").is_null()) << "not probed";
  TuneResult probed = sample_result();
  probed.mma_denormals = true;
  EXPECT_EQ(report_json(sample_run(), probed).at("environment").at("mma_denormals"), true);
}

TEST(Report, ACompositeServesInPlaceOfItsKernel) {
  TuneResult result = sample_result();
  result.rows[0].composite_left_out = "fewer than 64 tokens";
  result.rows[1].winner->composite = Composite{.slice_rows = 2048,
                                               .scratch_bytes = std::size_t{8} << 20,
                                               .time_us_median = 25.0,
                                               .time_us = {25.0, 25.0},
                                               .error_worst_ratio = 0.5};
  const nlohmann::json report = report_json(sample_run(), result);
  EXPECT_EQ(report.at("rows").at(0).at("composite").at("left_out"), "fewer than 64 tokens");
  const nlohmann::json& row = report.at("rows").at(1);
  EXPECT_EQ(row.at("composite").at("config"), "dequant_cublas slice_rows=2048");
  EXPECT_EQ(row.at("composite").at("scratch_bytes"), 8 << 20);
  EXPECT_EQ(row.at("time_us_median"), 40.0) << "the kernel's";
  EXPECT_EQ(row.at("served_us"), 25.0);
  EXPECT_DOUBLE_EQ(row.at("fp16_faster_by").get<double>(), 0.25) << "FP16 takes 20 us";
  const std::string summary = markdown_summary(report);
  EXPECT_NE(summary.find("| 25.00 | 20.00 | 80 % | 20.00 | 0.80"), std::string::npos) << summary;
  EXPECT_NE(
      summary.find("dequant_cublas slice_rows=2048, 8.0 MB of scratch; without it 40.00 us by "
                   "mma_pipe row_tile=64 split_k=2 raster=1"),
      std::string::npos)
      << summary;
  const std::string path =
      (std::filesystem::temp_directory_path() / "w4tune_composite.json").string();
  write_report(path, report);
  const Report read = read_report(path);
  EXPECT_EQ(read.rows[1].time_us_median, 25.0) << "what compare compares";
  EXPECT_EQ(read.rows[1].config, "dequant_cublas slice_rows=2048");
  EXPECT_EQ(read.rows[0].config, "mma_pipe row_tile=64");
}

TEST(Report, SurvivesAFileAndBack) {
  const std::string path = (std::filesystem::temp_directory_path() / "w4tune_report.json").string();
  write_report(path, report_json(sample_run(), sample_result()));
  const Report report = read_report(path);
  ASSERT_EQ(report.rows.size(), 2U) << "the untuned row has no time";
  EXPECT_EQ(report.rows[0].workload.m, 10);
  EXPECT_DOUBLE_EQ(report.rows[0].time_us_median, 5.0);
  EXPECT_DOUBLE_EQ(report.rows[0].baseline_us, 10.0);
  EXPECT_EQ(report.environment.at("gpu"), "NVIDIA A40");
  EXPECT_TRUE(std::filesystem::exists(std::filesystem::path(path).replace_extension(".md")));
}

TEST(Report, SummaryNamesWhatIsLost) {
  const std::string summary = markdown_summary(report_json(sample_run(), sample_result()));
  EXPECT_NE(
      summary.find("Geometric mean of the ratios over 2 cells: 1.00. The baseline is faster in 1."),
      std::string::npos)
      << summary;
  EXPECT_NE(summary.find("| 1024 | | untuned |"), std::string::npos);
}

TEST(Report, SaysForEachIntervalWhetherFp16IsFaster) {
  TuneResult result = sample_result();
  nlohmann::json report = report_json(sample_run(), result);
  EXPECT_EQ(report.at("rows").at(0).at("fp16_faster_by"), 0.0);
  EXPECT_EQ(report.at("rows").at(1).at("fp16_faster_by"), 1.0);
  EXPECT_TRUE(report.at("rows").at(1).at("m_hi").is_null());
  ASSERT_EQ(report.at("fp16_intervals").size(), 2U);
  EXPECT_EQ(report.at("fp16_intervals").at(1).at("m_lo"), 11);
  std::string summary = markdown_summary(report);
  for (const char* part :
       {"| 10 | 1-10 | 5.00 |", "| not faster |", "| 968 | 11- | 40.00 |", "| faster by 100.0 % |",
        "## Where FP16 is faster",
        "- FP16 is faster for M from 11 on of gemm_n4096_k1024_g128_f16 (by up to 100.0 %)\n"}) {
    EXPECT_NE(summary.find(part), std::string::npos) << part << " in\n" << summary;
  }

  result.rows[1].baseline.reset();
  report = report_json(sample_run(), result);
  EXPECT_TRUE(report.at("rows").at(1).at("fp16_faster_by").is_null());
  summary = markdown_summary(report);
  for (const char* part :
       {"| unknown |", "- FP16 is nowhere faster where it was measured\n",
        "- FP16 was not measured for M from 11 on of gemm_n4096_k1024_g128_f16: whether"}) {
    EXPECT_NE(summary.find(part), std::string::npos) << part << " in\n" << summary;
  }
}

TEST(Report, PredictedTimesStandBesideWhatTheyRestOn) {
  TuneResult result = sample_result();
  EXPECT_EQ(markdown_summary(report_json(sample_run(), result)).find("assumed: DRAM"),
            std::string::npos);
  const DeviceInfo a40 = find_known_device("a40")->info;
  result.assumed = describe(assumed_rates(a40), a40);
  const std::string summary = markdown_summary(report_json(sample_run(), result));
  for (const char* part : {"assumed: DRAM 619 GB/s, 89 % of the data sheet's 696", "84 SMs at 1740",
                           "90 % of the data sheet's 149.7", "99 KB a block", "6 MB"}) {
    EXPECT_NE(summary.find(part), std::string::npos) << part << " in\n" << summary;
  }
}

TEST(Report, SaysWhatTheBaselineOfGegluIs) {
  TuneResult result = sample_result();
  const std::string plain = markdown_summary(report_json(sample_run(), result));
  EXPECT_EQ(plain.find("twice the rows"), std::string::npos);
  result.rows[0].workload.problem.op = Op::kGeglu;
  const nlohmann::json report = report_json(sample_run(), result);
  const std::string note = "FP16 GEMM of twice the rows, no activation";
  EXPECT_EQ(report.at("rows").at(0).at("baselines").at("cublaslt_f16").at("note"), note);
  EXPECT_NE(markdown_summary(report).find("The baseline is one " + note), std::string::npos);
}

TEST(Report, RefusesWhatIsNotAReport) {
  const std::string path = (std::filesystem::temp_directory_path() / "w4tune_bad.json").string();
  for (const char* text :
       {"", "[1]", R"({"schema": "other"})",
        R"({"schema": "w4tune.report/1", "environment": {}, "rows": [{"time_us_median": 1}]})"}) {
    std::ofstream(path) << text;
    try {
      read_report(path);
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << text;
    }
  }
  EXPECT_THROW(read_report("/no/such/report.json"), Error);
}

TEST(WriteFile, LeavesTheOldFileWhenItFails) {
  EXPECT_THROW(write_file("/proc/no/such/folder/file", "text"), Error);
}

}  // namespace
}  // namespace w4tune
