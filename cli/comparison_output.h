// A comparison of reports as text for people, Markdown, CSV and JSON. Reports are called A, B, C in
// the order given.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tuner/comparison.h"
#include "tuner/report_reader.h"

namespace w4tune {

// What all forms are made from.
struct Compared {
  std::vector<Report> reports;
  ComparisonOptions options;
  std::vector<Comparison> comparisons;  // of the first report with each other one
};

std::string comparison_text(const Compared& compared, bool colour);
std::string comparison_markdown(const Compared& compared);
// One line a workload; those without a partner have the verdict MISSING or ADDED.
std::string comparison_csv(const Compared& compared);
nlohmann::json comparison_json(const Compared& compared);

// "both", "cycles" or "time", and back. Throws Error{kInvalidArgument}.
std::string_view to_string(ClockRule rule);
ClockRule parse_clock_rule(std::string_view text);

// "stages 3 -> 4, split_k 1 -> 2" for kernels of one family, else both texts; "" for the same.
std::string config_change(const std::string& a, const std::string& b);

}  // namespace w4tune
