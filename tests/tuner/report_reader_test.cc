#include "tuner/report_reader.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cache/samples.h"
#include "tests/tuner/sample_reports.h"

namespace w4tune {
namespace {

using nlohmann::json;
using samples::expect_error;

Report read(const std::string& path, const std::string& gpu = "") {
  return read_report(path,
                     [&](const DeviceInfo& device) { return gpu.empty() || device.name == gpu; });
}

Report read_text(const samples::Folder& folder, const std::string& text) {
  samples::write_file(folder.file("report.json"), text);
  return read(folder.file("report.json"));
}

TEST(ReportReader, ReadsWhatWasWritten) {
  const samples::Folder folder;
  const Report report = read_text(folder, report_json(sample_run(), sample_result()).dump());
  EXPECT_EQ(report.name, folder.file("report.json"));
  EXPECT_EQ(report.environment.at("gpu"), "NVIDIA A40");
  EXPECT_EQ(report.environment.at("sm"), "86");
  ASSERT_EQ(report.rows.size(), 2U) << "the untuned row has no time";
  const ReportRow& row = report.rows[0];
  EXPECT_EQ(row.workload.m, 10);
  EXPECT_EQ(row.provenance, Provenance::kMeasured);
  EXPECT_EQ(row.config, "mma_pipe row_tile=64 | split_k=2 raster=1");
  EXPECT_DOUBLE_EQ(row.timing.time_us_median, 5.0);
  EXPECT_EQ(row.timing.time_us.size(), 3U);
  EXPECT_EQ(row.timing.clock_mhz, (std::vector<double>{1700, 1710, 1720}));
  ASSERT_TRUE(row.baseline);
  EXPECT_EQ(row.baseline->name, "cublaslt_f16");
  EXPECT_EQ(row.baseline->detail, "algo=1");
  EXPECT_EQ(row.baseline->timing.time_us, (std::vector<double>{10.0, 10.0}));
}

TEST(ReportReader, ReadsWhatPlotsShowBesides) {
  const samples::Folder folder;
  json report = report_json(sample_run(), sample_result());
  json& rows = report["rows"];
  rows[0]["read"] = {{"time_us_median", 3.0}};
  rows[0]["dependent"] = {{"time_us_median", 4.0}};
  rows[0]["baselines"]["peer"] = rows[0]["baselines"]["cublaslt_f16"];
  rows[1]["floor_us"] = 0.0;
  rows[1].erase("m_lo");
  const Report read = read_text(folder, report.dump());
  const ReportRow& row = read.rows[0];
  EXPECT_EQ(row.floor_us, 2.5);
  EXPECT_EQ(row.read_us, 3.0);
  EXPECT_EQ(row.dependent_us, 4.0);
  ASSERT_TRUE(row.serves);
  EXPECT_EQ(row.serves->m_lo, 1);
  EXPECT_EQ(row.serves->m_hi, 10);
  EXPECT_EQ(row.baseline->name, "cublaslt_f16");
  ASSERT_EQ(row.more_baselines.size(), 1U);
  EXPECT_EQ(row.more_baselines[0].name, "peer");
  EXPECT_FALSE(read.rows[1].floor_us) << "none was computed";
  EXPECT_FALSE(read.rows[1].read_us);
  EXPECT_FALSE(read.rows[1].serves) << "a report from before intervals";
  rows[1]["m_lo"] = 11;
  EXPECT_EQ(read_text(folder, report.dump()).rows[1].serves->m_hi, kUnboundedM);
}

TEST(ReportReader, ACompositeIsWhatServes) {
  const samples::Folder folder;
  TuneResult result = sample_result();
  result.rows[1].winner->composite = Composite{.slice_rows = 2048,
                                               .scratch_bytes = std::size_t{8} << 20,
                                               .time_us_median = 25.0,
                                               .time_us = {25.0, 25.0},
                                               .error_worst_ratio = 0.5};
  const Report report = read_text(folder, report_json(sample_run(), result).dump());
  EXPECT_EQ(report.rows[1].timing.time_us_median, 25.0);
  EXPECT_EQ(report.rows[1].config, "dequant_cublas slice_rows=2048");
  EXPECT_TRUE(report.rows[1].timing.clock_mhz.empty()) << "the kernel's clock is not its";
  EXPECT_EQ(report.rows[0].config, "mma_pipe row_tile=64 | split_k=2 raster=1");
}

// Version 1 had no clock for each sample, earlier ones of it no composite and no note.
TEST(ReportReader, ReadsOlderReports) {
  const samples::Folder folder;
  json report = report_json(sample_run(), sample_result());
  report["schema"] = "w4tune.report/1";
  for (json& row : report["rows"]) {
    row.erase("clock_mhz_samples");
    row.erase("composite");
  }
  const Report read = read_text(folder, report.dump());
  EXPECT_EQ(read.rows[0].timing.clock_mhz, (std::vector<double>{1710}));
  for (const char* name : {"h200/pi05_f16.json", "h200/small_m_f16.json", "h100/large_m_f16.json",
                           "a40_predicted/pi05_f16.json"}) {
    const Report result = w4tune::read_report(std::string(W4TUNE_SOURCE_DIR) + "/results/" + name,
                                              [](const DeviceInfo&) { return true; });
    EXPECT_GE(result.rows.size(), 42U) << name;
  }
}

TEST(ReportReader, ClocksThatCouldNotBeReadAreUnknown) {
  const samples::Folder folder;
  TuneResult result = sample_result();
  result.rows[0].winner->clock_mhz[1] = 0.0;
  const Report report = read_text(folder, report_json(sample_run(), result).dump());
  EXPECT_TRUE(report.rows[0].timing.clock_mhz.empty());
  EXPECT_EQ(report.rows[1].timing.clock_mhz.size(), 3U);
}

TEST(ReportReader, ReadsWinnersOfACache) {
  const samples::Folder folder;
  const std::string db = folder.file("w4tune.db");
  {
    Store store = Store::open(db, Store::Mode::kReadWrite);
    const std::int64_t run = store.begin_run(samples::run_info());
    store.put_compilation(samples::config(), samples::compilation());
    store.put_winners(run, samples::problem(),
                      {samples::composite_winner(512), samples::winner(16, Provenance::kMeasured),
                       samples::winner(1, Provenance::kPredicted)});
    store.put_baseline(run, {samples::problem(), 16},
                       {"cublaslt_f16", "algo=1", {60.0, 61.0, 62.0}, {1740.0, 0.0, 1740.0}});
  }
  const Report report = read(db);
  EXPECT_EQ(report.environment.at("gpu"), "NVIDIA A40");
  EXPECT_EQ(report.environment.at("driver"), "580.1");
  EXPECT_EQ(report.environment.at("protocol"), "cold=3 reps=30");
  ASSERT_EQ(report.rows.size(), 3U);
  EXPECT_EQ(report.rows[0].provenance, Provenance::kPredicted);
  EXPECT_EQ(report.rows[1].timing.time_us, (std::vector<double>{30.0, 30.1, 30.2}));
  ASSERT_TRUE(report.rows[1].baseline);
  EXPECT_EQ(report.rows[1].baseline->timing.time_us_median, 61.0);
  EXPECT_TRUE(report.rows[1].baseline->timing.clock_mhz.empty());
  EXPECT_EQ(report.rows[2].config, "dequant_cublas slice_rows=4096");
  EXPECT_EQ(report.rows[2].timing.time_us, (std::vector<double>{25.0, 25.0}));
  EXPECT_FALSE(report.rows[2].baseline);

  // What is exported has no baselines, and is the same otherwise.
  Store::open(db, Store::Mode::kReadOnly).export_to(folder.file("export.db"));
  const Report exported = read(folder.file("export.db"));
  ASSERT_EQ(exported.rows.size(), 3U);
  EXPECT_EQ(exported.rows[1].timing.time_us, report.rows[1].timing.time_us);
  EXPECT_FALSE(exported.rows[1].baseline);

  {
    Store store = Store::open(db, Store::Mode::kReadWrite);
    RunInfo other = samples::run_info();
    other.device = samples::device("NVIDIA L4");
    const std::int64_t run = store.begin_run(other);
    store.put_winners(run, samples::problem(), {samples::winner(16, Provenance::kMeasured)});
  }
  expect_error(ErrorCode::kInvalidArgument, "has winners of 2 GPUs (NVIDIA A40, NVIDIA L4). Choose",
               [&] { read(db); });
  EXPECT_EQ(read(db, "NVIDIA L4").rows.size(), 1U);
  expect_error(ErrorCode::kNotFound, "has no winners of the GPU in question",
               [&] { read(db, "NVIDIA H100"); });
}

TEST(ReportReader, FilesThatAreNoReportsAreRefusedInOneLine) {
  const samples::Folder folder;
  const std::string path = folder.file("bad.json");
  const auto refused = [&](const std::string& text, const std::string& message,
                           ErrorCode code = ErrorCode::kInvalidArgument) {
    samples::write_file(path, text);
    expect_error(code, message, [&] { read(path); });
  };
  refused("", "ends after 0 bytes in the midst of its JSON");
  refused("hello", "is damaged: it is not JSON: parse error at line 1, column 1");
  refused(std::string("\x1b[2J\n\x00\xff", 7), "it is not JSON");
  refused("[1e999]", "it is not JSON: number overflow parsing '1e999'");
  refused("[1]", "is neither a report nor a cache file of w4tune");
  refused("null", "is neither a report");
  refused(R"({"schema": 7})", "is neither a report");
  refused(R"({"schema": "other/1"})", "is neither a report");
  refused(R"({"schema": "w4tune.report/"})", "is neither a report");
  refused(R"({"schema": "w4tune.report/2x"})", "is neither a report");
  refused(R"({"schema": "w4tune.report/-1"})", "is neither a report");
  refused(R"({"schema": "w4tune.report/99999999999999999999"})", "is neither a report");
  refused(R"({"schema": "w4tune.report/3", "rows": 1})",
          "is of version 3, and this w4tune reads up to version 2. Use a newer w4tune.");
  refused(std::string(1 << 20, '['), "is nested too deeply");
  refused(std::string("{\"a\":").append(kLargestReportBytes, ' '), "is larger than 32 MB");
  refused("SQLite format 3", "cache", ErrorCode::kDatabase);
  refused("SQLite format 3" + std::string(5000, '\0'), "cache", ErrorCode::kDatabase);
  expect_error(ErrorCode::kNotFound, "can't be read. Check the path.",
               [&] { read(folder.file("absent.json")); });
  expect_error(ErrorCode::kNotFound, "can't be read. Check the path.",
               [&] { read(folder.path().string()); });
}

TEST(ReportReader, ATruncatedReportIsRefusedWhereverItEnds) {
  const samples::Folder folder;
  const std::string whole = report_json(sample_run(), sample_result()).dump(1);
  ASSERT_NO_THROW(read_text(folder, whole));
  for (std::size_t size = 0; size < whole.size(); size += 37) {
    expect_error(ErrorCode::kInvalidArgument, "is damaged",
                 [&] { read_text(folder, whole.substr(0, size)); });
  }
}

// A report, but for one value.
TEST(ReportReader, DamagedValuesAreRefusedWithTheirPlace) {
  const samples::Folder folder;
  const json whole = report_json(sample_run(), sample_result());
  const auto refused = [&](const char* pointer, const json& value, const std::string& message) {
    json report = whole;
    report[json::json_pointer(pointer)] = value;
    expect_error(ErrorCode::kInvalidArgument, message, [&] { read_text(folder, report.dump()); });
  };
  refused("/environment", 1, "environment is not an object");
  refused("/rows", 1, "rows is not an array");
  refused("/rows/0", 1, "rows[0] is not an object");
  refused("/rows/0/op", "conv", "rows[0]: op 'conv' is not known");
  refused("/rows/0/op", 1, "rows[0].op is not a text");
  refused("/rows/0/n", 1e30, "rows[0].n is not a number from 0 to");
  refused("/rows/0/n", -16, "rows[0].n is not a number from 0 to");
  refused("/rows/0/n", 17, "rows[0]: gemm_n17_k1024_g128_f16: N = 17 must be");
  refused("/rows/0/k", 18446744073709551615ULL, "rows[0].k is not a number from 0 to");
  refused("/rows/0/group", 0, "group size 0 must be");
  refused("/rows/0/dtype", "f64", "rows[0]: dtype 'f64' is not known");
  refused("/rows/0/m", 0, "rows[0].m is not positive");
  refused("/rows/0/m", 968, "gemm_n4096_k1024_g128_f16 m=968 is there twice");
  refused("/rows/0/provenance", "guessed", "rows[0]: provenance 'guessed' is not known");
  refused("/rows/0/config", nullptr, "rows[0].config is not a text");
  refused("/rows/0/time_us_median", nullptr, "rows[0].time_us_median is no time");
  refused("/rows/0/time_us_median", -1.0, "rows[0].time_us_median is no time");
  refused("/rows/0/time_us_median", 1e300, "rows[0].time_us_median is no time");
  refused("/rows/0/time_us_samples", "5", "rows[0].time_us_samples is not an array");
  refused("/rows/0/time_us_samples/1", 0, "rows[0].time_us_samples[1] is no time");
  refused("/rows/0/time_us_samples", std::vector<int>(kMostSamples + 1, 1),
          "rows[0].time_us_samples has 100001 samples, more than 100000");
  refused("/rows/0/clock_mhz_samples", {1700.0}, "rows[0] has 1 clocks for 3 samples");
  refused("/rows/0/clock_mhz_samples", "fast", "rows[0].clock_mhz_samples is not an array");
  refused("/rows/0/clock_mhz_samples/0", "fast", "clock_mhz_samples has what is not a number");
  refused("/rows/0/baselines", 1, "rows[0].baselines is not an object");
  refused("/rows/0/baselines/cublaslt_f16", 1, "rows[0].baselines.cublaslt_f16 is not an object");
  refused("/rows/0/baselines/cublaslt_f16/time_us_samples", {0.0},
          "cublaslt_f16.time_us_samples[0]");
  refused("/rows/0/floor_us", -1.0, "rows[0].floor_us is no time");
  refused("/rows/0/floor_us", "low", "rows[0].floor_us is no time");
  refused("/rows/0/read", 1, "rows[0].read is not an object");
  refused("/rows/0/dependent", {{"time_us_median", 1e300}},
          "rows[0].dependent.time_us_median is no time");
  refused("/rows/0/m_lo", -1, "rows[0].m_lo is not a number from 0 to");
  refused("/rows/0/m_hi", "all", "rows[0].m_hi is not a number from 0 to");
  refused("/rows/0/composite", {{"time_us_median", 1.0}}, "rows[0].composite.config is missing");
  json lacking = whole;
  lacking["rows"][1].erase("time_us_samples");
  expect_error(ErrorCode::kInvalidArgument, "rows[1].time_us_samples is missing",
               [&] { read_text(folder, lacking.dump()); });
  lacking.erase("rows");
  expect_error(ErrorCode::kInvalidArgument, "is damaged: rows is missing",
               [&] { read_text(folder, lacking.dump()); });
}

TEST(ReportReader, TextsCannotDriveATerminal) {
  const samples::Folder folder;
  json report = report_json(sample_run(), sample_result());
  report["environment"]["gpu"] = "A40\x1b[2J\n";
  report["rows"][0]["config"] = "mma_pipe\x1b]0;x\x07 row_tile=1";
  const Report read = read_text(folder, report.dump());
  EXPECT_EQ(read.environment.at("gpu"), "A40?[2J?");
  EXPECT_EQ(read.rows[0].config, "mma_pipe?]0;x? row_tile=1 | split_k=2 raster=1");
}

}  // namespace
}  // namespace w4tune
