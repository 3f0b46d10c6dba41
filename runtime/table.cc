#include "runtime/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <tuple>
#include <utility>

#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr const char* kUnknownProblem = "the file has no kernel for this problem";
constexpr const char* kInvalidProblem =
    "no kernel is possible: n must be a multiple of 16, k of 64 and of the group, and the group "
    "32, 64, 128 or k";
constexpr const char* kNoTokens = "m must be at least 1";

static_assert(kUnboundedTokens == kUnboundedM);

int ceil_div(int a, int b) { return (a + b - 1) / b; }

bool is_possible(const Winner& winner, const Composite& composite) {
  return composite.slice_rows >= kSliceUnit && composite.slice_rows % kSliceUnit == 0 &&
         composite.slice_rows <= weight_rows(winner.problem) &&
         composite.scratch_bytes ==
             slice_scratch(winner.problem, composite.slice_rows, winner.m).total();
}

void check_winner(const Winner& winner) {
  validate(winner.problem);
  const Footprint& f = winner.footprint;
  const Schedule& s = winner.candidate.schedule;
  const bool is_sane = winner.m >= 1 && winner.m_lo >= 1 && winner.m_lo <= winner.m_hi &&
                       winner.m_hi <= kUnboundedM && f.row_tile >= 1 && f.token_tile >= 1 &&
                       f.depth_tile >= 1 && f.threads >= 1 && f.threads <= 1024 &&
                       f.smem_bytes >= 0 && s.split_k >= 1 && s.raster >= 1 &&
                       max_tokens(f, winner.problem, s.split_k) >= winner.m &&
                       (!winner.composite || is_possible(winner, *winner.composite));
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
  kernel.config = to_string(winner.candidate);
  kernel.compilation_key = std::move(winner.compilation_key);
  kernel.time_us_median = winner.time_us_median;
  kernel.floor_us = winner.floor_us;
  kernel.baseline_us = winner.baseline_us;
  if (winner.composite) {
    kernel.composite = std::move(winner.composite);
    kernel.time_us_median = kernel.composite->time_us_median;
    kernel.config = to_string(*kernel.composite);
  }
  return kernel;
}

void sort_by_problem(std::vector<Winner>& winners) {
  std::sort(winners.begin(), winners.end(), [](const Winner& a, const Winner& b) {
    return std::tie(a.problem, a.m) < std::tie(b.problem, b.m);
  });
}

// Whether every kernel could be asked for the problem: what validate() says, without throwing.
bool is_valid(const Problem& problem) {
  try {
    validate(problem);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

Problem default_key(const Problem& problem) {
  Problem key = problem;
  const bool one_group = problem.group_size == problem.k;
  key.n = 0;
  key.k = 0;
  if (one_group) key.group_size = 0;
  return key;
}

Problem served_problem(const TunedKernel& kernel, int n, int k) {
  Problem problem = kernel.problem;
  if (!kernel.is_default) return problem;
  const bool one_group = problem.group_size == problem.k;
  problem.n = n;
  problem.k = k;
  if (one_group) problem.group_size = k;
  validate(problem);
  return problem;
}

Schedule default_schedule(const Footprint& footprint, const Problem& problem, int m, int sm_count) {
  constexpr int kLeastSteps = 4;  // of a share of the depth: less does not fill its pipeline
  const int tiles =
      ceil_div(weight_rows(problem), footprint.row_tile) * ceil_div(m, footprint.token_tile);
  const int most = std::max(1, problem.k / footprint.depth_tile / kLeastSteps);
  return {.split_k = std::min(most, ceil_div(sm_count, tiles)), .raster = 1};
}

Table::Table(std::vector<Winner> winners, bool is_same_gpu, std::vector<Winner> defaults,
             std::size_t max_scratch_bytes) {
  const auto add = [&](std::vector<Range>& ranges, const Problem& problem, Winner&& winner) {
    if (ranges.empty() || ranges.back().problem != problem) {
      ranges.push_back({problem, kernels_.size(), kernels_.size()});
    }
    const auto append = [&](Winner&& part) {
      kernels_.push_back(tuned_kernel(std::move(part), is_same_gpu));
      m_hi_.push_back(kernels_.back().m_hi);
    };
    if (winner.composite && winner.composite->scratch_bytes > max_scratch_bytes) {
      winner.composite.reset();
    }
    // A composite costs as much at few tokens as at many: there the kernel serves.
    if (winner.composite && winner.m_lo < kLeastCompositeTokens) {
      Winner few = winner;
      few.composite.reset();
      few.m_hi = kLeastCompositeTokens - 1;
      winner.m_lo = kLeastCompositeTokens;
      append(std::move(few));
    }
    append(std::move(winner));
    ranges.back().end = kernels_.size();
  };
  sort_by_problem(winners);
  for (Winner& winner : winners) {
    const Problem problem = winner.problem;
    add(ranges_, problem, std::move(winner));
  }
  sort_by_problem(defaults);
  for (Winner& winner : defaults) {
    const Problem key = default_key(winner.problem);
    winner.composite.reset();  // of the example
    add(defaults_, key, std::move(winner));
    TunedKernel& kernel = kernels_.back();
    kernel.match_at_m = kernel.match_nearby = Match::kDefault;
    kernel.is_default = true;
    kernel.time_us_median = kernel.floor_us = kernel.baseline_us = 0.0;  // of the example
  }
  std::sort(defaults_.begin(), defaults_.end(),
            [](const Range& a, const Range& b) { return a.problem < b.problem; });
}

Selection Table::select(const Problem& problem, int m) const noexcept {
  if (m < 1) return {.reason = kNoTokens};
  const auto find = [](const std::vector<Range>& ranges, const Problem& wanted) {
    const auto range =
        std::lower_bound(ranges.begin(), ranges.end(), wanted,
                         [](const Range& a, const Problem& b) { return a.problem < b; });
    return range == ranges.end() || range->problem != wanted ? nullptr : &*range;
  };
  if (const Range* range = find(ranges_, problem)) return select_from(*range, problem, m);
  if (defaults_.empty()) return {.reason = kUnknownProblem};
  if (!is_valid(problem)) return {.reason = kInvalidProblem};
  if (const Range* range = find(defaults_, default_key(problem))) {
    return select_from(*range, problem, m);
  }
  return {.reason = kUnknownProblem};
}

Selection Table::select_from(const Range& range, const Problem& problem, int m) const noexcept {
  const auto first = m_hi_.begin() + static_cast<std::ptrdiff_t>(range.begin);
  // The last interval serves whatever is beyond it.
  const auto last = m_hi_.begin() + static_cast<std::ptrdiff_t>(range.end) - 1;
  const auto at = std::lower_bound(first, last, m) - m_hi_.begin();
  const TunedKernel& kernel = kernels_[static_cast<std::size_t>(at)];
  return {.kernel = &kernel,
          .match = m == kernel.m ? kernel.match_at_m : kernel.match_nearby,
          .n = problem.n,
          .k = problem.k,
          .time_us = static_cast<float>(kernel.time_us_median),
          .fp16_us = static_cast<float>(kernel.baseline_us),
          .floor_us = static_cast<float>(kernel.floor_us)};
}

bool Table::owns(const TunedKernel* kernel) const noexcept {
  const std::less<> before;
  return !kernels_.empty() && !before(kernel, kernels_.data()) && !before(&kernels_.back(), kernel);
}

WorkspaceNeed Table::workspace_need(int sm_count) const {
  WorkspaceNeed need;
  const auto add = [&need](std::size_t partial_bytes, std::size_t counter_count) {
    need.partial_bytes = std::max(need.partial_bytes, partial_bytes);
    need.counter_count = std::max(need.counter_count, counter_count);
  };
  for (const TunedKernel& kernel : kernels_) {
    const Footprint& footprint = kernel.footprint;
    if (kernel.is_default) {
      // Split where there are fewer tiles than SMs, into fewer CTAs than two for each SM.
      const auto tile = static_cast<std::size_t>(footprint.row_tile) *
                        static_cast<std::size_t>(footprint.token_tile) * sizeof(float);
      const auto sms = static_cast<std::size_t>(sm_count);
      add(2 * sms * tile, sms);
      continue;
    }
    const int m = std::min(kernel.m_hi == kUnboundedM ? kernel.m : kernel.m_hi,
                           max_tokens(footprint, kernel.problem, kernel.schedule.split_k));
    const LaunchPlan plan = make_launch_plan(footprint, kernel.problem, m, kernel.schedule);
    add(plan.partial_bytes, plan.counter_count);
  }
  return need;
}

std::size_t Table::scratch_bytes() const {
  std::size_t most = 0;
  for (const TunedKernel& kernel : kernels_) {
    if (kernel.composite) most = std::max(most, kernel.composite->scratch_bytes);
  }
  return most;
}

// In 64 bits: a grid has 2^31 - 1 CTAs at most.
int max_tokens(const Footprint& footprint, const Problem& problem, int split_k) {
  const std::int64_t row_tiles = ceil_div(weight_rows(problem), footprint.row_tile);
  const std::int64_t token_tiles = std::numeric_limits<std::int32_t>::max() / (row_tiles * split_k);
  return static_cast<int>(std::min<std::int64_t>(token_tiles * footprint.token_tile, kUnboundedM));
}

LaunchPlan fit_launch_plan(const Footprint& footprint, const Problem& problem, int m,
                           const Schedule& schedule, const WorkspaceNeed& available, int sm_count) {
  const LaunchPlan plan = make_launch_plan(footprint, problem, m, schedule, sm_count);
  if (plan.partial_bytes <= available.partial_bytes &&
      plan.counter_count <= available.counter_count) {
    return plan;
  }
  Schedule fitting = schedule;
  fitting.split_k = 1;
  if (plan.counter_count <= available.counter_count) {
    const std::size_t share = plan.partial_bytes / static_cast<std::size_t>(plan.schedule.split_k);
    fitting.split_k = std::max(1, static_cast<int>(available.partial_bytes / share));
  }
  return make_launch_plan(footprint, problem, m, fitting, sm_count);
}

}  // namespace w4tune
