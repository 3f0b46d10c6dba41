// What people read: text for a terminal, and Markdown.
#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "cli/comparison_output.h"
#include "cli/table.h"
#include "cli/terminal.h"

namespace w4tune {
namespace {

using Table = std::vector<std::vector<std::string>>;

std::string letter(std::size_t report) { return std::string(1, static_cast<char>('A' + report)); }

std::string value_of(const Report& report, const char* key) {
  const auto found = report.environment.find(key);
  return found == report.environment.end() ? "?" : found->second;
}

std::string report_line(const Report& report, std::size_t index) {
  return fmt::format("{}: {} ({}, {}, {} workloads)", letter(index), report.name,
                     value_of(report, "gpu"), value_of(report, "date"), report.rows.size());
}

std::string percent(double share) { return fmt::format("{:.3g} %", 100.0 * share); }

std::string method_line(const Compared& compared) {
  return fmt::format(
      "A ratio is A's time over the other's: above 1 the other is faster. Intervals hold 95 %; "
      "threshold {}; verdicts hold together at 5 % (Holm).",
      percent(compared.options.threshold));
}

std::string interval_text(const std::optional<Interval>& interval) {
  return interval ? fmt::format("[{:.3f}, {:.3f}]", interval->lo, interval->hi) : "";
}

// The clocks, and the ratio of what was not taken as the ratio.
std::string clock_text(const ComparedRow& row, ClockRule rule) {
  if (!row.clocks) return {};
  const std::string clocks =
      fmt::format("{:.0f} -> {:.0f} MHz", row.clocks->a_mhz, row.clocks->b_mhz);
  if (rule == ClockRule::kCycles) {
    return fmt::format("{}, {:.3f} in time", clocks, row.a_us / row.b_us);
  }
  return fmt::format("{}, {:.3f} in cycles", clocks, row.clocks->ratio_of_cycles);
}

std::string note_text(const ComparedRow& row, ClockRule rule) {
  const std::string clocks = clock_text(row, rule);
  return fmt::format("{}{}{}", row.reason, row.reason.empty() || clocks.empty() ? "" : "; ",
                     clocks);
}

Colour colour_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kFaster: return Colour::kGreen;
    case Verdict::kSlower: return Colour::kRed;
    case Verdict::kSame: return Colour::kNone;
    case Verdict::kUnclear: return Colour::kYellow;
  }
  return Colour::kNone;
}

std::string verdict_text(Verdict verdict, bool colour) {
  return painted(to_string(verdict), colour ? colour_of(verdict) : Colour::kNone);
}

Table row_table(const Comparison& comparison, const ComparisonOptions& options, std::size_t other,
                bool colour) {
  const std::string b = letter(other);
  Table table = {{"problem", ">M", ">A us", fmt::format(">{} us", b), ">ratio", "interval",
                  "verdict", "kernel", "note"}};
  for (const ComparedRow& row : comparison.rows) {
    table.push_back({to_string(row.workload.problem), fmt::format("{}", row.workload.m),
                     fmt::format("{:.2f}", row.a_us), fmt::format("{:.2f}", row.b_us),
                     fmt::format("{:.3f}", row.ratio), interval_text(row.interval),
                     verdict_text(row.verdict, colour),
                     row.a_config == row.b_config ? "same" : "changed",
                     note_text(row, options.clock_rule)});
  }
  return table;
}

Table mean_table(const Comparison& comparison) {
  Table table = {{"geometric mean of", ">workloads", ">ratio", "interval"}};
  const auto add = [&](const GroupMean& mean) {
    table.push_back({mean.name, fmt::format("{}", mean.rows), fmt::format("{:.3f}", mean.ratio),
                     mean.interval ? interval_text(mean.interval) : "not all have samples"});
  };
  for (const GroupMean& mean : comparison.by_problem) add(mean);
  for (const GroupMean& mean : comparison.by_tokens) add(mean);
  if (comparison.all) add(*comparison.all);
  return table;
}

std::vector<std::string> environment_lines(const Comparison& comparison) {
  std::vector<std::string> lines;
  for (const EnvironmentDifference& difference : comparison.environment) {
    lines.push_back(fmt::format("{}: {} -> {}", difference.key, difference.a, difference.b));
  }
  return lines;
}

// What the reader must know before the verdicts.
std::vector<std::string> caveat_lines(const Comparison& comparison,
                                      const ComparisonOptions& options) {
  std::vector<std::string> lines;
  if (!comparison.same_protocol) {
    lines.push_back(options.ignore_protocol
                        ? "The protocols differ: the times may not mean the same."
                        : "The protocols differ: the times may not mean the same, and nothing is "
                          "judged (--ignore-protocol judges all the same).");
  }
  const RunNoise& noise = comparison.noise;
  std::string text = fmt::format("Run noise {}", percent(noise.deviation));
  if (noise.controls > 0) {
    text +=
        fmt::format("; of {} FP16 baselines by one algorithm in both the median ratio is {:.3f}",
                    noise.controls, noise.control_ratio);
  }
  lines.push_back(text + ".");
  const auto at_other_clocks =
      std::count_if(comparison.rows.begin(), comparison.rows.end(),
                    [](const ComparedRow& row) { return row.clocks.has_value(); });
  if (at_other_clocks > 0) {
    lines.push_back(
        fmt::format("Clocks differ in {} of {} workloads, which are {}.", at_other_clocks,
                    comparison.rows.size(),
                    options.clock_rule == ClockRule::kCycles
                        ? "judged by cycles (time x SM clock)"
                        : "judged by times and by cycles (time x SM clock): both must agree"));
  }
  return lines;
}

std::vector<std::string> change_lines(const Comparison& comparison) {
  std::vector<std::string> lines;
  for (const ComparedRow& row : comparison.rows) {
    const std::string change = config_change(row.a_config, row.b_config);
    if (!change.empty()) lines.push_back(fmt::format("{}: {}", to_string(row.workload), change));
  }
  return lines;
}

std::vector<std::string> unmatched_lines(const Comparison& comparison, std::size_t other) {
  std::vector<std::string> lines;
  for (const Workload& workload : comparison.missing) {
    lines.push_back(fmt::format("missing in {}: {}", letter(other), to_string(workload)));
  }
  for (const Workload& workload : comparison.added) {
    lines.push_back(fmt::format("added in {}: {}", letter(other), to_string(workload)));
  }
  return lines;
}

std::string counts_line(const Comparison& comparison) {
  std::string text;
  for (const Verdict verdict : kVerdicts) {
    text += fmt::format("{} {}, ", to_string(verdict), comparison.count(verdict));
  }
  return text +
         fmt::format("missing {}, added {}", comparison.missing.size(), comparison.added.size());
}

void add_section(std::string& out, const char* title, const std::vector<std::string>& lines) {
  if (lines.empty()) return;
  out += fmt::format("\n{}\n", title);
  for (const std::string& line : lines) out += fmt::format("  {}\n", line);
}

std::string markdown_cell(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c;
  }
  return out;
}

std::string markdown_table(const Table& table) {
  std::string out;
  for (std::size_t r = 0; r < table.size(); ++r) {
    std::string rule = "|";
    out += "|";
    for (const std::string& cell : table[r]) {
      const bool right = r == 0 && cell.rfind('>', 0) == 0;
      out += fmt::format(" {} |", markdown_cell(right ? cell.substr(1) : cell));
      rule += right ? "---:|" : "---|";
    }
    out += "\n";
    if (r == 0) out += rule + "\n";
  }
  return out;
}

std::string markdown_list(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) out += fmt::format("- {}\n", line);
  return out;
}

void add_markdown_section(std::string& out, const char* title,
                          const std::vector<std::string>& lines) {
  if (!lines.empty()) out += fmt::format("\n### {}\n\n{}", title, markdown_list(lines));
}

// "row_tile=64" apart into its name and value; a family's name has no value.
std::vector<std::pair<std::string, std::string>> parts_of(const std::string& config) {
  std::vector<std::pair<std::string, std::string>> parts;
  std::istringstream stream(config);
  for (std::string part; stream >> part;) {
    const auto equals = part.find('=');
    if (equals == std::string::npos) {
      parts.emplace_back(part, "");
    } else {
      parts.emplace_back(part.substr(0, equals), part.substr(equals + 1));
    }
  }
  return parts;
}

}  // namespace

std::string config_change(const std::string& a, const std::string& b) {
  if (a == b) return {};
  const auto mine = parts_of(a);
  const auto theirs = parts_of(b);
  const bool alike =
      std::equal(mine.begin(), mine.end(), theirs.begin(), theirs.end(),
                 [](const auto& one, const auto& other) { return one.first == other.first; });
  if (!alike) return fmt::format("{} -> {}", a, b);
  std::string out;
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (mine[i].second == theirs[i].second) continue;
    out += fmt::format("{}{} {} -> {}", out.empty() ? "" : ", ", mine[i].first, mine[i].second,
                       theirs[i].second);
  }
  return out;
}

std::string comparison_text(const Compared& compared, bool colour) {
  std::string out;
  for (std::size_t i = 0; i < compared.reports.size(); ++i) {
    out += report_line(compared.reports[i], i) + "\n";
  }
  for (std::size_t i = 0; i < compared.comparisons.size(); ++i) {
    const Comparison& comparison = compared.comparisons[i];
    const std::string title = fmt::format("{} against A", letter(i + 1));
    out += fmt::format("\n{}\n", painted(title, colour ? Colour::kBold : Colour::kNone));
    add_section(out, "environments differ:", environment_lines(comparison));
    out += "\n";
    for (const std::string& line : caveat_lines(comparison, compared.options)) out += line + "\n";
    out +=
        fmt::format("\n{}", format_table(row_table(comparison, compared.options, i + 1, colour)));
    add_section(out, "without a partner:", unmatched_lines(comparison, i + 1));
    add_section(out, "changed kernels:", change_lines(comparison));
    out += fmt::format("\n{}\n{}\n", format_table(mean_table(comparison)), counts_line(comparison));
  }
  return fmt::format("{}\n{}\n", out, method_line(compared));
}

std::string comparison_markdown(const Compared& compared) {
  std::string out = "# w4tune compare\n\n";
  std::vector<std::string> reports;
  for (std::size_t i = 0; i < compared.reports.size(); ++i) {
    reports.push_back(report_line(compared.reports[i], i));
  }
  out += fmt::format("{}\n{}\n", markdown_list(reports), method_line(compared));
  for (std::size_t i = 0; i < compared.comparisons.size(); ++i) {
    const Comparison& comparison = compared.comparisons[i];
    out += fmt::format("\n## {} against A\n\n{}\n", letter(i + 1), counts_line(comparison));
    add_markdown_section(out, "Environments differ", environment_lines(comparison));
    for (const std::string& line : caveat_lines(comparison, compared.options)) {
      out += fmt::format("\n{}\n", line);
    }
    out += "\n";
    out += markdown_table(row_table(comparison, compared.options, i + 1, false));
    add_markdown_section(out, "Without a partner", unmatched_lines(comparison, i + 1));
    add_markdown_section(out, "Changed kernels", change_lines(comparison));
    out += fmt::format("\n### Geometric means\n\n{}", markdown_table(mean_table(comparison)));
  }
  return out;
}

}  // namespace w4tune
