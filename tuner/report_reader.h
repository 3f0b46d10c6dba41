// ReportReader: what `compare` and `report` know of a run, from a report (tuner/report.h, any
// version so far) or from a cache file.
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
  std::vector<ReportBaseline> more_baselines = {};  // after the first
  std::optional<double> floor_us = {};              // the lower bound it was judged by
  // What bench measures besides: the kernel as a dependent launch, and one that only reads the
  // weight. Medians.
  std::optional<double> dependent_us = {};
  std::optional<double> read_us = {};
  // The M it serves; empty in reports from before intervals.
  struct Serves {
    int m_lo = 0;
    int m_hi = 0;  // kUnboundedM: all beyond
  };
  std::optional<Serves> serves = {};
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
