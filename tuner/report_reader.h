// ReportReader: what `compare` knows of a run, from a report (tuner/report.h, any version so far)
// or from a cache file.
//
// Whatever the file holds, the result is sound: workloads are valid and occur once, times and
// clocks are positive and finite, texts have no control characters. Everything else is refused in
// one line.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/device_info.h"
#include "core/problem.h"
#include "core/winner.h"

namespace w4tune {

inline constexpr std::size_t kLargestReportBytes = std::size_t{32} << 20;
inline constexpr std::size_t kMostSamples = 100000;  // of one row

struct Timing {
  double time_us_median = 0.0;
  std::vector<double> time_us;  // raw samples; empty where there are none
  // One for each sample, or their median alone (reports of version 1), or empty: not known.
  std::vector<double> clock_mhz;
};

// What was measured beside a row by the same protocol.
struct ReportBaseline {
  std::string name;
  std::string detail;  // which algorithm it was
  Timing timing;
};

struct ReportRow {
  Workload workload;
  Provenance provenance = Provenance::kMeasured;
  std::string config;  // of what serves: kernel and schedule, or composite
  Timing timing;
  std::optional<ReportBaseline> baseline;
};

struct Report {
  std::string name;                                // as it was asked for
  std::map<std::string, std::string> environment;  // values as text
  std::vector<ReportRow> rows;                     // by problem and m; untuned ones are left out
};

// A report from its JSON; messages call it `name`. Throws Error{kInvalidArgument}.
Report parse_report(const std::string& bytes, const std::string& name);

// Reads a report, or the winners of a cache file: of the GPU that `wanted` accepts, of which there
// must be one. Throws Error{kNotFound} when the file can't be read, Error{kDatabase} for a cache
// file that cannot be used, and Error{kInvalidArgument} for whatever is neither.
Report read_report(const std::string& path, const std::function<bool(const DeviceInfo&)>& wanted);

}  // namespace w4tune
