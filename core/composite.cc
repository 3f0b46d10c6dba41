#include "core/composite.h"

#include <fmt/format.h>

#include <algorithm>

namespace w4tune {
namespace {

constexpr std::size_t kAlignment = 256;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

int round_up(int value, int unit) { return (value + unit - 1) / unit * unit; }

// The fewest slices of at most `most` rows, all of one size; in whole tiles of a matrix product
// where that fits.
int even_slice(int rows, int most) {
  const int count = (rows + most - 1) / most;
  const int share = (rows + count - 1) / count;
  for (const int unit : {256, 64}) {
    const int rounded = round_up(share, unit);
    if (rounded <= most) return std::min(rounded, rows);
  }
  return std::min(round_up(share, kSliceUnit), rows);
}

// Rows whose scratch has at most `limit` bytes, in whole units; below one unit 0.
int most_rows(const Workload& workload, std::size_t limit) {
  const Problem& problem = workload.problem;
  int low = 0;
  int high = weight_rows(problem) / kSliceUnit;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (slice_scratch(problem, middle * kSliceUnit, workload.m).total() <= limit) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low * kSliceUnit;
}

}  // namespace

std::string to_string(const Composite& composite) {
  return fmt::format("dequant_cublas slice_rows={}", composite.slice_rows);
}

std::string composite_text(std::string_view composite, double scratch_bytes, double kernel_us,
                           std::string_view kernel) {
  return fmt::format("{}, {:.1f} MB of scratch; without it {:.2f} us by {}", composite,
                     scratch_bytes / (1024.0 * 1024.0), kernel_us, kernel);
}

SliceScratch slice_scratch(const Problem& problem, int slice_rows, int tokens) {
  const auto rows = static_cast<std::size_t>(slice_rows);
  SliceScratch scratch;
  scratch.weight_bytes = aligned(rows * static_cast<std::size_t>(problem.k) * 2);
  if (problem.op == Op::kGeglu) {
    scratch.product_bytes = aligned(rows * static_cast<std::size_t>(tokens) * 2);
  }
  scratch.matmul_bytes = kMatmulWorkspaceBytes;
  return scratch;
}

SlicePlan plan_slices(const Workload& workload, std::size_t limit_bytes, std::size_t l2_bytes) {
  const Problem& problem = workload.problem;
  if (workload.m < kLeastCompositeTokens) {
    return {.slice_rows = {},
            .left_out = fmt::format("fewer than {} tokens", kLeastCompositeTokens)};
  }
  const int rows = weight_rows(problem);
  const int most = most_rows(workload, limit_bytes);
  if (most == 0) {
    return {.slice_rows = {},
            .left_out = fmt::format(
                "the workspace of {} bytes that --max-workspace allows is less than the {} of the "
                "smallest slice",
                limit_bytes, slice_scratch(problem, kSliceUnit, workload.m).total())};
  }
  const std::size_t row_bytes = static_cast<std::size_t>(problem.k) * 2;
  const std::size_t in_l2 = l2_bytes / 2 / row_bytes / kSliceUnit * kSliceUnit;
  const int cached = std::clamp(static_cast<int>(in_l2), kSliceUnit, most);
  SlicePlan plan{.slice_rows = {even_slice(rows, cached), even_slice(rows, most)}, .left_out = {}};
  std::sort(plan.slice_rows.begin(), plan.slice_rows.end());
  plan.slice_rows.erase(std::unique(plan.slice_rows.begin(), plan.slice_rows.end()),
                        plan.slice_rows.end());
  return plan;
}

}  // namespace w4tune
