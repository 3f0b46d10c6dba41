#include "tests/twin/gemm_on_twin.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/weight_layout.h"

namespace w4tune {
namespace {

constexpr std::uint16_t kPoison = 0xffff;  // NaN in FP16 and BF16
constexpr std::size_t kGap = 8;            // elements between the rows of x, and of y
constexpr std::uint64_t kSeed = 17;
constexpr int kSms = 2;  // persistent CTAs have more than one tile to do

// The first m rows of `from` [.., width], with gaps between them and none behind the last.
std::vector<std::uint16_t> spread(const std::vector<std::uint16_t>& from, std::size_t m,
                                  std::size_t width) {
  std::vector<std::uint16_t> rows((m - 1) * (width + kGap) + width, kPoison);
  for (std::size_t row = 0; row < m; ++row) {
    std::copy_n(from.data() + row * width, width, rows.data() + row * (width + kGap));
  }
  return rows;
}

// NaN where nobody wrote; exactly as many as the plan says.
std::vector<float> poisoned_partials(const LaunchPlan& plan) {
  return std::vector<float>(plan.partial_bytes / sizeof(float),
                            std::numeric_limits<float>::quiet_NaN());
}

// As gpu/tensor_map.cc has it encoded.
w4::TensorMap map_matrix(const void* data, int rows, int columns, std::int64_t row_stride,
                         int box_rows, int box_columns) {
  constexpr std::uint64_t kBlock = 64;  // columns
  constexpr std::uint64_t kElementBytes = 2;
  return w4::encode_tensor_map(
      {data,
       {kBlock, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns) / kBlock},
       {static_cast<std::uint64_t>(row_stride) * kElementBytes, kBlock * kElementBytes},
       {kBlock, static_cast<std::uint64_t>(box_rows),
        static_cast<std::uint64_t>(box_columns) / kBlock}});
}

bool wrote_into_gaps(const std::vector<std::uint16_t>& y, std::size_t n) {
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (i % (n + kGap) >= n && y[i] != kPoison) return true;
  }
  return false;
}

}  // namespace

std::string TwinKernel::name() const {
  return fmt::format("{} {} {} group={}", to_string(config), to_string(op), to_string(dtype),
                     group_size);
}

Problem TwinKernel::problem(int n, int k) const {
  return {op, n, k, group_size == 0 ? k : group_size, dtype};
}

// The same for every problem that the kernel serves.
Footprint TwinKernel::footprint() const { return family->footprint(config, problem(16, 4096)); }

GemmOnTwin::GemmOnTwin(const TwinKernel& kernel, int n, int k, int max_m, DataKind kind)
    : kernel_(kernel),
      problem_(kernel.problem(n, k)),
      host_(random_operands(problem_, max_m, kSeed, kind)),
      weight_(weight_bytes(problem_) / sizeof(std::uint32_t)),
      scales_(scale_bytes(problem_) / sizeof(std::uint16_t)),
      expected_(samples::reference(problem_, host_, max_m, kernel.config.at("dequant"))) {
  pack_weight(problem_, host_.nibbles.data(), NibbleEncoding::kOffset8, host_.scales.data(),
              weight_.data(), scales_.data());
}

TwinOutcome GemmOnTwin::run(int m, const TwinLaunch& launch) const {
  const LaunchPlan plan = make_launch_plan(kernel_.footprint(), problem_, m, launch.schedule, kSms);
  const auto tokens = static_cast<std::size_t>(m);
  const auto n = static_cast<std::size_t>(problem_.n);
  const auto k = static_cast<std::size_t>(problem_.k);
  const std::vector<std::uint16_t> x = spread(host_.x, tokens, k);
  std::vector<float> partials = poisoned_partials(plan);
  std::vector<std::uint32_t> counters(plan.counter_count);
  TwinOutcome outcome;
  outcome.y.assign((tokens - 1) * (n + kGap) + n, kPoison);

  w4::GemmArgs args{};
  args.x = x.data();
  args.w = weight_.data();
  args.scales = scales_.data();
  args.y = outcome.y.data();
  args.partials = partials.data();
  args.counters = counters.data();
  args.ldx = static_cast<long long>(k + kGap);
  args.ldy = static_cast<long long>(n + kGap);
  args.m = m;
  args.n = problem_.n;
  args.k = problem_.k;
  args.split_k = plan.schedule.split_k;
  args.raster = plan.schedule.raster;
  args.dependent = launch.dependent ? 1 : 0;
  const Footprint footprint = kernel_.footprint();
  w4::TensorMap tokens_map{};
  if (footprint.token_map) {
    const TokenBox box = token_box(footprint, m);
    tokens_map = map_matrix(args.x, m, args.k, args.ldx, box.tokens, box.depth);
  }
  w4::TensorMap weights_map{};
  if (footprint.persistent) {
    constexpr int kWords = 4;  // of 16 bits for 16 rows and one of depth
    weights_map =
        map_matrix(args.w, weight_rows(problem_) / 16, args.k * kWords,
                   std::int64_t{args.k} * kWords, footprint.row_tile / 16, kBoxDepth * kWords);
  }
  const w4::twin::Launch on_twin{.grid = static_cast<int>(plan.grid),
                                 .threads = static_cast<int>(plan.threads),
                                 .shared_bytes = plan.smem_bytes,
                                 .order = launch.order,
                                 .seed = launch.seed,
                                 .removal = launch.removal};
  outcome.report = w4::twin::run(on_twin, [&] { kernel_.body(args, tokens_map, weights_map); });

  outcome.worst_ratio = samples::worst_ratio(problem_, expected_, outcome.y, m, n + kGap);
  const bool counters_are_zero =
      std::all_of(counters.begin(), counters.end(), [](std::uint32_t c) { return c == 0; });
  if (!outcome.report.fault.empty()) {
    outcome.wrong = outcome.report.fault;
  } else if (wrote_into_gaps(outcome.y, n)) {
    outcome.wrong = "wrote between the rows of y";
  } else if (!counters_are_zero) {
    outcome.wrong = "left a counter that is not zero";
  } else if (!(outcome.worst_ratio <= 1.0)) {
    outcome.wrong = fmt::format("an error of {:.3g} times its bound", outcome.worst_ratio);
  }
  return outcome;
}

}  // namespace w4tune
