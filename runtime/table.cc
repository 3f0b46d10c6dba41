#include "runtime/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <tuple>
#include <utility>

#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr const char* kUnknownProblem = "the file has no kernel for this problem";
constexpr const char* kNoTokens = "m must be at least 1";

static_assert(kUnboundedTokens == kUnboundedM);

// Largest M whose one-dimensional grid the GPU takes.
int max_tokens(const Winner& winner) {
  const std::int64_t row_tiles =
      (weight_rows(winner.problem) + winner.footprint.row_tile - 1) / winner.footprint.row_tile;
  const std::int64_t token_tiles =
      std::numeric_limits<std::int32_t>::max() / (row_tiles * winner.candidate.schedule.split_k);
  return static_cast<int>(
      std::min<std::int64_t>(token_tiles * winner.footprint.token_tile, kUnboundedM));
}

void check_winner(const Winner& winner) {
  validate(winner.problem);
  const Footprint& f = winner.footprint;
  const Schedule& s = winner.candidate.schedule;
  const bool is_sane = winner.m >= 1 && winner.m_lo >= 1 && winner.m_lo <= winner.m_hi &&
                       winner.m_hi <= kUnboundedM && f.row_tile >= 1 && f.token_tile >= 1 &&
                       f.depth_tile >= 1 && f.threads >= 1 && f.threads <= 1024 &&
                       f.smem_bytes >= 0 && s.split_k >= 1 && s.raster >= 1 &&
                       max_tokens(winner) >= winner.m;
  if (is_sane) return;
  throw Error(ErrorCode::kDatabase,
              fmt::format("the cache is damaged: the winner of {} is not possible. Restore a copy, "
                          "or move it away and tune again.",
                          to_string(Workload{winner.problem, winner.m})));
}

TunedKernel tuned_kernel(Winner&& winner, bool is_same_gpu) {
  check_winner(winner);
  TunedKernel kernel;
  if (winner.provenance == Provenance::kPredicted) {
    kernel.match_at_m = kernel.match_nearby = Match::kPredicted;
  } else if (!is_same_gpu) {
    kernel.match_at_m = kernel.match_nearby = Match::kSameArch;
  } else {
    kernel.match_at_m = Match::kExact;
    kernel.match_nearby = Match::kInterpolatedM;
  }
  kernel.problem = winner.problem;
  kernel.m = winner.m;
  kernel.m_lo = winner.m_lo;
  kernel.m_hi = winner.m_hi;
  kernel.footprint = winner.footprint;
  kernel.schedule = winner.candidate.schedule;
  kernel.max_m = max_tokens(winner);
  kernel.config = to_string(winner.candidate);
  kernel.compilation_key = std::move(winner.compilation_key);
  kernel.time_us_median = winner.time_us_median;
  kernel.floor_us = winner.floor_us;
  kernel.baseline_us = winner.baseline_us;
  return kernel;
}

}  // namespace

Table::Table(std::vector<Winner> winners, bool is_same_gpu) {
  std::sort(winners.begin(), winners.end(), [](const Winner& a, const Winner& b) {
    return std::tie(a.problem, a.m) < std::tie(b.problem, b.m);
  });
  for (Winner& winner : winners) {
    if (ranges_.empty() || ranges_.back().problem != winner.problem) {
      ranges_.push_back({winner.problem, kernels_.size(), kernels_.size()});
    }
    kernels_.push_back(tuned_kernel(std::move(winner), is_same_gpu));
    m_hi_.push_back(kernels_.back().m_hi);
    ranges_.back().end = kernels_.size();
  }
}

Selection Table::select(const Problem& problem, int m) const noexcept {
  if (m < 1) return {.reason = kNoTokens};
  const auto range =
      std::lower_bound(ranges_.begin(), ranges_.end(), problem,
                       [](const Range& a, const Problem& b) { return a.problem < b; });
  if (range == ranges_.end() || range->problem != problem) return {.reason = kUnknownProblem};
  const auto first = m_hi_.begin() + static_cast<std::ptrdiff_t>(range->begin);
  // The last interval serves whatever is beyond it.
  const auto last = m_hi_.begin() + static_cast<std::ptrdiff_t>(range->end) - 1;
  const auto at = std::lower_bound(first, last, m) - m_hi_.begin();
  const TunedKernel& kernel = kernels_[static_cast<std::size_t>(at)];
  return {.kernel = &kernel, .match = m == kernel.m ? kernel.match_at_m : kernel.match_nearby};
}

bool Table::owns(const TunedKernel* kernel) const noexcept {
  const std::less<> before;
  return !kernels_.empty() && !before(kernel, kernels_.data()) && !before(&kernels_.back(), kernel);
}

WorkspaceNeed Table::workspace_need() const {
  WorkspaceNeed need;
  for (const TunedKernel& kernel : kernels_) {
    const int m = std::min(kernel.m_hi == kUnboundedM ? kernel.m : kernel.m_hi, kernel.max_m);
    const LaunchPlan plan = make_launch_plan(kernel.footprint, kernel.problem, m, kernel.schedule);
    need.partial_bytes = std::max(need.partial_bytes, plan.partial_bytes);
    need.counter_count = std::max(need.counter_count, plan.counter_count);
  }
  return need;
}

LaunchPlan fit_launch_plan(const TunedKernel& kernel, int m, const WorkspaceNeed& available) {
  const LaunchPlan plan = make_launch_plan(kernel.footprint, kernel.problem, m, kernel.schedule);
  if (plan.partial_bytes <= available.partial_bytes &&
      plan.counter_count <= available.counter_count) {
    return plan;
  }
  Schedule fitting = kernel.schedule;
  fitting.split_k = 1;
  if (plan.counter_count <= available.counter_count) {
    const std::size_t share = plan.partial_bytes / static_cast<std::size_t>(plan.schedule.split_k);
    fitting.split_k = std::max(1, static_cast<int>(available.partial_bytes / share));
  }
  return make_launch_plan(kernel.footprint, kernel.problem, m, fitting);
}

}  // namespace w4tune
