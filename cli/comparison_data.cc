// What programs read: CSV and JSON.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/comparison_output.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

using nlohmann::json;

constexpr const char* kColumns =
    "a,b,op,n,k,group,dtype,m,verdict,reason,a_us,b_us,ratio,ratio_lo,ratio_hi,p_value,a_mhz,b_mhz,"
    "ratio_of_cycles,a_provenance,b_provenance,a_config,b_config\n";

// RFC 4180.
std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

std::string csv_head(const Comparison& comparison, const Workload& workload) {
  const Problem& problem = workload.problem;
  return fmt::format("{},{},{},{},{},{},{},{}", quoted(comparison.a), quoted(comparison.b),
                     to_string(problem.op), problem.n, problem.k, problem.group_size,
                     to_string(problem.dtype), workload.m);
}

// Empty where there is none.
std::string number(std::optional<double> value) { return value ? fmt::format("{}", *value) : ""; }

std::string csv_row(const Comparison& comparison, const ComparedRow& row) {
  const auto lo = row.interval ? std::optional(row.interval->lo) : std::nullopt;
  const auto hi = row.interval ? std::optional(row.interval->hi) : std::nullopt;
  const auto clock = [&](double ComparedRow::Clocks::*member) {
    return number(row.clocks ? std::optional((*row.clocks).*member) : std::nullopt);
  };
  return fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n",
                     csv_head(comparison, row.workload), to_string(row.verdict), quoted(row.reason),
                     row.a_us, row.b_us, row.ratio, number(lo), number(hi), number(row.p_value),
                     clock(&ComparedRow::Clocks::a_mhz), clock(&ComparedRow::Clocks::b_mhz),
                     clock(&ComparedRow::Clocks::ratio_of_cycles), to_string(row.a_provenance),
                     to_string(row.b_provenance), quoted(row.a_config), quoted(row.b_config));
}

json interval_json(const std::optional<Interval>& interval) {
  return interval ? json::array({interval->lo, interval->hi}) : json(nullptr);
}

json row_json(const ComparedRow& row) {
  json out = {{"problem", to_string(row.workload.problem)},
              {"m", row.workload.m},
              {"verdict", to_string(row.verdict)},
              {"reason", row.reason},
              {"a_us", row.a_us},
              {"b_us", row.b_us},
              {"ratio", row.ratio},
              {"interval", interval_json(row.interval)},
              {"p_value", row.p_value ? json(*row.p_value) : json(nullptr)},
              {"clocks", nullptr},
              {"a_provenance", to_string(row.a_provenance)},
              {"b_provenance", to_string(row.b_provenance)},
              {"a_config", row.a_config},
              {"b_config", row.b_config},
              {"same_config", row.a_config == row.b_config}};
  if (row.clocks) {
    out["clocks"] = {{"a_mhz", row.clocks->a_mhz},
                     {"b_mhz", row.clocks->b_mhz},
                     {"ratio_of_cycles", row.clocks->ratio_of_cycles}};
  }
  return out;
}

json mean_json(const GroupMean& mean) {
  return {{"name", mean.name},
          {"workloads", mean.rows},
          {"ratio", mean.ratio},
          {"interval", interval_json(mean.interval)}};
}

json means_json(const std::vector<GroupMean>& means) {
  json out = json::array();
  for (const GroupMean& mean : means) out.push_back(mean_json(mean));
  return out;
}

json workloads_json(const std::vector<Workload>& workloads) {
  json out = json::array();
  for (const Workload& workload : workloads) {
    out.push_back({{"problem", to_string(workload.problem)}, {"m", workload.m}});
  }
  return out;
}

json comparison_document(const Comparison& comparison) {
  json environment = json::array();
  for (const EnvironmentDifference& difference : comparison.environment) {
    environment.push_back({{"key", difference.key}, {"a", difference.a}, {"b", difference.b}});
  }
  json counts;
  for (const Verdict verdict : kVerdicts) {
    counts[std::string(to_string(verdict))] = comparison.count(verdict);
  }
  json rows = json::array();
  for (const ComparedRow& row : comparison.rows) rows.push_back(row_json(row));
  return {{"a", comparison.a},
          {"b", comparison.b},
          {"environment_differences", std::move(environment)},
          {"same_protocol", comparison.same_protocol},
          {"run_noise",
           {{"deviation", comparison.noise.deviation},
            {"controls", comparison.noise.controls},
            {"control_ratio", comparison.noise.control_ratio}}},
          {"counts", std::move(counts)},
          {"rows", std::move(rows)},
          {"missing", workloads_json(comparison.missing)},
          {"added", workloads_json(comparison.added)},
          {"geometric_means",
           {{"by_problem", means_json(comparison.by_problem)},
            {"by_tokens", means_json(comparison.by_tokens)},
            {"all", comparison.all ? mean_json(*comparison.all) : json(nullptr)}}}};
}

}  // namespace

std::string comparison_csv(const Compared& compared) {
  std::string out = kColumns;
  for (const Comparison& comparison : compared.comparisons) {
    for (const ComparedRow& row : comparison.rows) out += csv_row(comparison, row);
    const auto add = [&](const std::vector<Workload>& workloads, const char* verdict) {
      for (const Workload& workload : workloads) {
        out += fmt::format("{},{},,,,,,,,,,,,,,\n", csv_head(comparison, workload), verdict);
      }
    };
    add(comparison.missing, "MISSING");
    add(comparison.added, "ADDED");
  }
  return out;
}

json comparison_json(const Compared& compared) {
  json reports = json::array();
  for (const Report& report : compared.reports) {
    reports.push_back({{"name", report.name},
                       {"environment", report.environment},
                       {"workloads", report.rows.size()}});
  }
  json comparisons = json::array();
  for (const Comparison& comparison : compared.comparisons) {
    comparisons.push_back(comparison_document(comparison));
  }
  return {{"schema", "w4tune.comparison/1"},
          {"threshold", compared.options.threshold},
          {"clocks", to_string(compared.options.clock_rule)},
          {"reports", std::move(reports)},
          {"comparisons", std::move(comparisons)}};
}

std::string_view to_string(ClockRule rule) {
  switch (rule) {
    case ClockRule::kBoth: return "both";
    case ClockRule::kCycles: return "cycles";
    case ClockRule::kTime: return "time";
  }
  return "both";
}

ClockRule parse_clock_rule(std::string_view text) {
  for (const ClockRule rule : {ClockRule::kBoth, ClockRule::kCycles, ClockRule::kTime}) {
    if (text == to_string(rule)) return rule;
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("--clocks '{}' is not known. Use both, cycles or time.", text));
}

}  // namespace w4tune
