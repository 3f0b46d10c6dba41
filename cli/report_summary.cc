#include "cli/report_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/stats.h"

namespace w4tune {
namespace {

std::string environment(const Report& report, const char* key) {
  const auto found = report.environment.find(key);
  return found == report.environment.end() ? "" : found->second;
}

// Within a cell of a table: no bar ends it, and nothing is markup.
std::string cell(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("|<>*_`[]").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string provenance(const Report& report) {
  std::set<std::string> kinds;
  for (const ReportRow& row : report.rows) kinds.emplace(to_string(row.provenance));
  return fmt::format("{}", fmt::join(kinds, ", "));
}

std::string range_of_m(const Report& report) {
  const auto less = [](const ReportRow& a, const ReportRow& b) {
    return a.workload.m < b.workload.m;
  };
  const auto [lo, hi] = std::minmax_element(report.rows.begin(), report.rows.end(), less);
  if (lo->workload.m == hi->workload.m) return fmt::format("{}", lo->workload.m);
  return fmt::format("{}–{}", lo->workload.m, hi->workload.m);
}

// The columns over FP16: geometric mean, range, where FP16 is faster, and as dependent launches;
// then the floor's.
std::string judged(const Report& report) {
  std::vector<double> ratios;
  std::vector<double> chained;
  std::vector<double> shares;
  for (const ReportRow& row : report.rows) {
    const double us = row.timing.time_us_median;
    if (row.baseline) ratios.push_back(row.baseline->timing.time_us_median / us);
    if (row.baseline && row.dependent_us) {
      chained.push_back(row.baseline->timing.time_us_median / *row.dependent_us);
    }
    if (row.floor_us) shares.push_back(*row.floor_us / us);
  }
  std::string out = "| – | – | – |";
  if (!ratios.empty()) {
    const auto [lo, hi] = std::minmax_element(ratios.begin(), ratios.end());
    out = fmt::format(
        "| {:.2f}× | {:.2f}–{:.2f}× | {} |", geometric_mean(ratios), *lo, *hi,
        std::count_if(ratios.begin(), ratios.end(), [](double ratio) { return ratio < 1.0; }));
  }
  out += chained.empty() ? " – |" : fmt::format(" {:.2f}× |", geometric_mean(chained));
  return out + (shares.empty() ? " – |" : fmt::format(" {:.0f} % |", 100.0 * median(shares)));
}

std::string line(const SummarisedReport& each) {
  const Report& report = each.report;
  std::set<Problem> problems;
  for (const ReportRow& row : report.rows) problems.insert(row.workload.problem);
  return fmt::format("| [{}]({}) | {} | {} | {} | {} | {} | {} | {} {}\n", cell(report.name),
                     report.name, cell(environment(report, "gpu")),
                     cell(environment(report, "date").substr(0, 10)),
                     cell(environment(report, "commit")), provenance(report), problems.size(),
                     range_of_m(report), report.rows.size(), judged(report));
}

}  // namespace

std::string folder_summary(const std::vector<SummarisedReport>& reports) {
  std::string out =
      "# Reports\n\nWritten by `w4tune report --folder`; do not edit. `over FP16` is the geometric "
      "mean of cuBLASLt FP16's time over ours, `FP16 faster` in how many workloads it is below 1, "
      "`chained` the "
      "mean where each launch may begin before the one before has ended, "
      "`of floor` the median share.\n\n"
      "| report | GPU | date | commit | provenance | problems | M | workloads | over FP16 | range "
      "| "
      "FP16 faster | chained | of floor |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (const SummarisedReport& each : reports) out += line(each);
  for (const SummarisedReport& each : reports) {
    const bool compared =
        std::any_of(each.report.rows.begin(), each.report.rows.end(),
                    [](const ReportRow& row) { return row.baseline.has_value(); });
    out += fmt::format("\n## {}\n\n", cell(each.report.name));
    if (compared) out += fmt::format("![Speed-up over FP16]({}/speedup.svg)\n\n", each.plots);
    out += fmt::format(
        "![Time against M]({0}/time.svg)\n\nMore: [share of the floor]({0}/floor.svg), "
        "[what serves which M]({0}/families.svg)\n",
        each.plots);
  }
  return out;
}

}  // namespace w4tune
