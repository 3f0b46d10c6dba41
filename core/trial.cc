#include "core/trial.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "core/check.h"
#include "core/stats.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr std::array<std::pair<Outcome, std::string_view>, 7> kOutcomes = {{
    {Outcome::kOk, "ok"},
    {Outcome::kInvalidConfig, "invalid_config"},
    {Outcome::kCompileError, "compile_error"},
    {Outcome::kResourceLimit, "resource_limit"},
    {Outcome::kLaunchError, "launch_error"},
    {Outcome::kWrongResult, "wrong_result"},
    {Outcome::kTimeout, "timeout"},
}};

}  // namespace

std::string to_string(const Candidate& candidate) {
  return fmt::format("{} | split_k={} raster={}", to_string(candidate.config),
                     candidate.schedule.split_k, candidate.schedule.raster);
}

std::string_view to_string(Outcome outcome) {
  for (const auto& [value, text] : kOutcomes) {
    if (value == outcome) return text;
  }
  W4_CHECK(false, "an outcome without a name");
}

Outcome parse_outcome(std::string_view text) {
  for (const auto& [value, name] : kOutcomes) {
    if (name == text) return value;
  }
  throw Error(ErrorCode::kDatabase, fmt::format("outcome '{}' is not known. Was the file written "
                                                "by a newer w4tune?",
                                                text));
}

double Trial::time_us_median() const { return median(time_us); }

}  // namespace w4tune
