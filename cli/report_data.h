// What a page of plots is made from: one or two reports, and the trials behind them, as one JSON
// document. the scripts of cli/page/ read it.
//
//   reports      [{name, provenance, environment, assumed, rows, searches}]
//     provenance measured, predicted, or mixed
//     rows       [{problem, op, n, k, group, dtype, m, m_lo, m_hi, provenance, family, config, us,
//                 q1, q3, samples, mhz, floor_us, read_us, chained_us, note,
//                 baselines: [{name, detail, us}]}]: times in us; m_hi null means all beyond; null
//                 where not known; q1 and q3 are the quartiles of the samples
//     searches   [{workload, problem, m, families: [{name, parameters}], trials: [[index of the
//                 family, us or null, outcome, values...]]}]: in the order they were stored
//   comparison   of the second report with the first as `compare --json` has it, with `change` in
//                each row; null for one report
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/device_info.h"
#include "core/problem.h"
#include "core/trial.h"
#include "tuner/report_reader.h"

namespace w4tune {

// The trials of one workload, by one run.
struct Search {
  Workload workload;
  std::vector<Trial> trials;
};

struct ReportWithSearches {
  Report report;
  std::vector<Search> searches;  // of a cache file; none of a report
};

// What read_report does, and the trials where the file has them: of each workload those begun last.
ReportWithSearches read_with_searches(const std::string& path,
                                      const std::function<bool(const DeviceInfo&)>& wanted);

// Requires one or two.
nlohmann::json report_data(const std::vector<ReportWithSearches>& reports);

}  // namespace w4tune
