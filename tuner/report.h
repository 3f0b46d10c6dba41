// Report: what a run measured, as JSON and as a Markdown summary made from it.
// tuner/report_reader.h reads it back.
//
// Rows carry raw samples, so that a reader can judge them again. Times in microseconds, clocks in
// MHz. Version 2 added the clock of each sample (clock_mhz_samples) to its median. Keys that a
// reader may do without came later: "calibration" (core/calibration.h) and "model", how well the
// cost model ranked (tuner/model_fit.h).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "cache/store.h"
#include "tuner/options.h"

namespace w4tune {

// "schema" is the two together.
inline constexpr std::string_view kReportSchema = "w4tune.report/";
inline constexpr int kReportVersion = 2;

nlohmann::json calibration_json(const Calibration& calibration);

nlohmann::json report_json(const RunInfo& run, const TuneResult& result);

// Writes `text` beside `path` and renames it there, so that a reader never sees half a file. Throws
// Error{kEnvironment} when that fails.
void write_file(const std::string& path, std::string_view text);

// The JSON to `path` and the summary beside it with the extension .md.
void write_report(const std::string& path, const nlohmann::json& report);

// A table for people: each row's time, share of the floor and ratio to the baseline, and where the
// baseline is faster.
std::string markdown_summary(const nlohmann::json& report);

}  // namespace w4tune
