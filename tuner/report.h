// Report: what a run measured, as JSON ("w4tune.report/1") and as a Markdown summary made from it.
//
// Rows carry raw samples, so that a reader can judge them again. Times in microseconds, clocks in
// MHz.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cache/store.h"
#include "core/problem.h"
#include "tuner/options.h"

namespace w4tune {

inline constexpr std::string_view kReportSchema = "w4tune.report/1";

nlohmann::json report_json(const RunInfo& run, const TuneResult& result);

// Writes `text` beside `path` and renames it there, so that a reader never sees half a file. Throws
// Error{kEnvironment} when that fails.
void write_file(const std::string& path, std::string_view text);

// The JSON to `path` and the summary beside it with the extension .md.
void write_report(const std::string& path, const nlohmann::json& report);

// A report as `compare` needs it: times and configurations of what serves.
struct ReportRow {
  Workload workload;
  std::string provenance;
  std::string config;
  double time_us_median = 0.0;
  std::vector<double> time_us;
  double baseline_us = 0.0;  // 0: none
};
struct Report {
  std::map<std::string, std::string> environment;  // values as text
  std::vector<ReportRow> rows;
};

// Throws Error{kNotFound} when the file can't be read and Error{kInvalidArgument} when it is not a
// report of this schema.
Report read_report(const std::string& path);

// A table for people: each row's time, share of the floor and ratio to the baseline, and where the
// baseline is faster.
std::string markdown_summary(const nlohmann::json& report);

}  // namespace w4tune
