#include "core/winner.h"

#include <fmt/format.h>

#include <algorithm>

#include "w4tune/error.h"

namespace w4tune {

std::string_view to_string(Provenance provenance) {
  return provenance == Provenance::kMeasured ? "measured" : "predicted";
}

Provenance parse_provenance(std::string_view text) {
  if (text == "measured") return Provenance::kMeasured;
  if (text == "predicted") return Provenance::kPredicted;
  throw Error(ErrorCode::kDatabase, fmt::format("provenance '{}' is not known. Was the file "
                                                "written by a newer w4tune?",
                                                text));
}

std::string served_text(const Winner& winner) {
  return winner.composite ? to_string(*winner.composite) : to_string(winner.candidate);
}

void assign_intervals(std::vector<Winner>& winners) {
  std::sort(winners.begin(), winners.end(),
            [](const Winner& a, const Winner& b) { return a.m < b.m; });
  int next = 1;
  for (Winner& winner : winners) {
    winner.m_lo = next;
    winner.m_hi = winner.m;
    next = winner.m + 1;
  }
  if (!winners.empty()) winners.back().m_hi = kUnboundedM;
}

}  // namespace w4tune
