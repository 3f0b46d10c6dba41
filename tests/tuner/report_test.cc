#include "tuner/report.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "templates/cost.h"
#include "tests/core/sample_calibration.h"
#include "tests/tuner/sample_reports.h"
#include "tuner/report_reader.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

TEST(Report, HasTheFieldsOfTheSchema) {
  const nlohmann::json report = report_json(sample_run(), sample_result());
  EXPECT_EQ(report.at("schema"), "w4tune.report/2");
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
                          "clock_mhz_samples",
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
}

TEST(Report, WritesASummaryBesideIt) {
  const std::string path = (std::filesystem::temp_directory_path() / "w4tune_report.json").string();
  write_report(path, report_json(sample_run(), sample_result()));
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
  result.assumed = describe(rates_of(a40), a40);
  const std::string summary = markdown_summary(report_json(sample_run(), result));
  for (const char* part : {"assumed: DRAM 619 GB/s, 89 % of the data sheet's 696", "84 SMs at 1740",
                           "90 % of the data sheet's 149.7", "99 KB a block", "6 MB"}) {
    EXPECT_NE(summary.find(part), std::string::npos) << part << " in\n" << summary;
  }
}

TEST(Report, SaysHowWellTheModelRankedAndWhatItRestsOn) {
  TuneResult result = sample_result();
  nlohmann::json report = report_json(sample_run(), result);
  EXPECT_FALSE(report.contains("model")) << "nothing was measured but winners";
  EXPECT_FALSE(report.contains("calibration"));
  result.calibration = sample_calibration();
  for (int i = 1; i <= 5; ++i) result.rows[0].predictions.push_back({"mma_pipe", 1.0 * i, 2.0 * i});
  report = report_json(sample_run(), result);
  EXPECT_EQ(report.at("model").at("spearman"), 1.0);
  EXPECT_EQ(report.at("model").at("top_recall"), 1.0);
  EXPECT_EQ(report.at("model").at("families").at("mma_pipe").at("trials"), 5);
  EXPECT_EQ(report.at("calibration").at("read_curve").size(), 6U);
  EXPECT_EQ(report.at("calibration").at("launch_us"), 0.6);
  EXPECT_NO_THROW(parse_report(report.dump(), "a report with more keys"));
  const std::string summary = markdown_summary(report);
  EXPECT_NE(summary.find("| all | 1 | 5 | 1.00 | 100 % |\n| mma_pipe | 1 | 5 |"), std::string::npos)
      << summary;
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

TEST(WriteFile, LeavesTheOldFileWhenItFails) {
  EXPECT_THROW(write_file("/proc/no/such/folder/file", "text"), Error);
}

}  // namespace
}  // namespace w4tune
