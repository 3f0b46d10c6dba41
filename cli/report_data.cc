#include "cli/report_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "cache/store.h"
#include "cli/comparison_output.h"
#include "core/check.h"
#include "core/stats.h"
#include "tuner/baseline.h"
#include "tuner/comparison.h"

namespace w4tune {
namespace {

using nlohmann::json;

// Digits beyond a tenth of a nanosecond say nothing, and make a page of many trials larger.
double rounded(double us) { return std::round(us * 1e4) / 1e4; }

json optional_time(const std::optional<double>& us) { return us ? json(rounded(*us)) : json(); }

std::string family_of(const std::string& config) { return config.substr(0, config.find(' ')); }

json baselines_json(const ReportRow& row) {
  json out = json::array();
  const auto add = [&](const ReportBaseline& each) {
    out.push_back({{"name", each.name},
                   {"detail", each.detail},
                   {"us", rounded(each.timing.time_us_median)}});
  };
  if (row.baseline) add(*row.baseline);
  for (const ReportBaseline& each : row.more_baselines) add(each);
  return out;
}

// `before` is the row before, if it is of the same problem: from it follows what a row serves whose
// report does not say so.
json row_json(const ReportRow& row, const ReportRow* before) {
  const Problem& problem = row.workload.problem;
  const Timing& timing = row.timing;
  const bool sampled = !timing.time_us.empty();
  const ReportRow::Serves serves = row.serves.value_or(
      ReportRow::Serves{before == nullptr ? 1 : before->workload.m + 1, row.workload.m});
  return {{"problem", to_string(problem)},
          {"op", to_string(problem.op)},
          {"n", problem.n},
          {"k", problem.k},
          {"group", problem.group_size},
          {"dtype", to_string(problem.dtype)},
          {"m", row.workload.m},
          {"m_lo", serves.m_lo},
          {"m_hi", serves.m_hi == kUnboundedM ? json() : json(serves.m_hi)},
          {"provenance", to_string(row.provenance)},
          {"family", family_of(row.config)},
          {"config", row.config},
          {"us", rounded(timing.time_us_median)},
          {"q1", sampled ? json(rounded(quantile(timing.time_us, 0.25))) : json()},
          {"q3", sampled ? json(rounded(quantile(timing.time_us, 0.75))) : json()},
          {"samples", timing.time_us.size()},
          {"mhz", timing.clock_mhz.empty() ? json() : json(std::round(median(timing.clock_mhz)))},
          {"floor_us", optional_time(row.floor_us)},
          {"read_us", optional_time(row.read_us)},
          {"chained_us", optional_time(row.dependent_us)},
          {"note", row.baseline ? baseline_note(problem) : ""},
          {"baselines", baselines_json(row)}};
}

json search_json(const Search& search) {
  json families = json::array();
  json trials = json::array();
  std::map<std::pair<std::string, std::vector<std::string>>, std::size_t> index;
  for (const Trial& trial : search.trials) {
    std::vector<std::string> names;
    json row = {0, nullptr, to_string(trial.outcome)};
    for (const auto& [name, value] : trial.candidate.config.parameters) {
      names.push_back(name);
      row.push_back(value);
    }
    names.insert(names.end(), {"split_k", "raster"});
    row.push_back(trial.candidate.schedule.split_k);
    row.push_back(trial.candidate.schedule.raster);
    const std::string& family = trial.candidate.config.family;
    const auto [place, is_new] = index.try_emplace({family, names}, index.size());
    if (is_new) families.push_back({{"name", family}, {"parameters", names}});
    row[0] = place->second;
    if (trial.outcome == Outcome::kOk) row[1] = rounded(trial.time_us_median());
    trials.push_back(std::move(row));
  }
  return {{"workload", to_string(search.workload)},
          {"problem", to_string(search.workload.problem)},
          {"m", search.workload.m},
          {"families", std::move(families)},
          {"trials", std::move(trials)}};
}

std::string_view provenance_of(const Report& report) {
  const auto is = [](Provenance provenance) {
    return [provenance](const ReportRow& row) { return row.provenance == provenance; };
  };
  if (std::none_of(report.rows.begin(), report.rows.end(), is(Provenance::kPredicted))) {
    return "measured";
  }
  const bool mixed = std::any_of(report.rows.begin(), report.rows.end(), is(Provenance::kMeasured));
  return mixed ? "mixed" : "predicted";
}

json report_json(const ReportWithSearches& each) {
  const Report& report = each.report;
  json rows = json::array();
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    const ReportRow* before = i > 0 ? &report.rows[i - 1] : nullptr;
    if (before != nullptr && before->workload.problem != report.rows[i].workload.problem) {
      before = nullptr;
    }
    rows.push_back(row_json(report.rows[i], before));
  }
  json searches = json::array();
  for (const Search& search : each.searches) searches.push_back(search_json(search));
  json environment = report.environment;
  environment.erase("assumed");
  json assumed = json::array();
  if (const auto found = report.environment.find("assumed"); found != report.environment.end()) {
    const json lines = json::parse(found->second, nullptr, false);
    for (const json& line : lines.is_array() ? lines : json::array()) {
      if (line.is_string()) assumed.push_back(line);
    }
  }
  return {{"name", report.name},
          {"provenance", provenance_of(report)},
          {"environment", std::move(environment)},
          {"assumed", std::move(assumed)},
          {"rows", std::move(rows)},
          {"searches", std::move(searches)}};
}

json comparison_of(const std::vector<Report>& reports) {
  Compared compared;
  compared.reports = reports;
  compared.comparisons = compare_reports(reports, compared.options);
  json out = comparison_json(compared).at("comparisons").at(0);
  for (json& row : out.at("rows")) {
    row["change"] =
        config_change(row.at("a_config").get<std::string>(), row.at("b_config").get<std::string>());
  }
  return out;
}

}  // namespace

ReportWithSearches read_with_searches(const std::string& path,
                                      const std::function<bool(const DeviceInfo&)>& wanted) {
  ReportWithSearches out;
  bool is_cache = false;
  // A cache file asks about its devices; a report has one and does not.
  out.report = read_report(path, [&](const DeviceInfo& device) {
    is_cache = true;
    return wanted(device);
  });
  if (!is_cache) return out;
  Store store = Store::open(path, Store::Mode::kReadOnly);
  std::map<Workload, TrialSet> newest;
  for (TrialSet& set : store.trial_sets()) {
    const DeviceInfo& device = set.run.device;
    if (!wanted(device) || device.name != out.report.environment.at("gpu")) continue;
    const Workload workload = set.workload;
    newest.insert_or_assign(workload, std::move(set));
  }
  for (const auto& [workload, set] : newest) {
    std::vector<Trial> trials = store.trials(store.begin_run(set.run), workload);
    const bool worked = std::any_of(trials.begin(), trials.end(), [](const Trial& trial) {
      return trial.outcome == Outcome::kOk && !trial.time_us.empty();
    });
    if (worked) out.searches.push_back({workload, std::move(trials)});
  }
  return out;
}

json report_data(const std::vector<ReportWithSearches>& reports) {
  W4_CHECK(reports.size() == 1 || reports.size() == 2, "one or two reports");
  json documents = json::array();
  std::vector<Report> plain;
  for (const ReportWithSearches& each : reports) {
    documents.push_back(report_json(each));
    plain.push_back(each.report);
  }
  return {{"reports", std::move(documents)},
          {"comparison", reports.size() == 2 ? comparison_of(plain) : json()}};
}

}  // namespace w4tune
