// Operands: random, seeded inputs of one Problem on the GPU, laid out for cold measuring.
//
// Weights and scales stand in as many copies as it takes to flush the L2 between two uses of one; x
// holds the largest M, and smaller M use its first rows; y lies between two fences of canaries.
// Data are chosen so that outputs are near 1.
#pragma once

#include <cstdint>
#include <vector>

#include "core/device_info.h"
#include "core/gemm_args.h"
#include "core/problem.h"
#include "gpu/buffer.h"
#include "tuner/protocol.h"

namespace w4tune {

// Shapes of data a kernel must survive (docs/kernels.md, "Error bounds").
enum class DataKind {
  kPlain,         // x normal, weights uniform
  kPositiveMean,  // x positive: biased tricks show
  kOutliers,      // one x in 100 thirty times larger
  kAllMinus8,     // every weight -8
  kZeroScales,    // every third group has scale 0
};

// Host copies: what the reference and the packing start from.
struct HostOperands {
  std::vector<std::uint8_t> nibbles;  // [weight_rows, k/2], low nibble first, +8
  std::vector<std::uint16_t> scales;  // [weight_rows, groups], the problem's dtype
  std::vector<std::uint16_t> x;       // [m, k]
};

HostOperands random_operands(const Problem& problem, int m, std::uint64_t seed,
                             DataKind kind = DataKind::kPlain);

class Operands {
 public:
  // Requires a current context. `max_m` tokens; copies of the weight total cold_factor x l2_bytes.
  Operands(const Problem& problem, int max_m, std::size_t l2_bytes, const Protocol& protocol,
           DataKind kind = DataKind::kPlain);

  [[nodiscard]] const Problem& problem() const { return problem_; }
  [[nodiscard]] int max_m() const { return max_m_; }
  [[nodiscard]] int copies() const { return copies_; }

  // Arguments of a launch on copy `copy`; partials, counters and schedule are the caller's.
  [[nodiscard]] w4::GemmArgs args(int m, int copy) const;

  [[nodiscard]] const Buffer& nibbles() const { return nibbles_; }
  [[nodiscard]] const Buffer& scales() const { return unpacked_scales_; }
  [[nodiscard]] const Buffer& x() const { return x_; }

  // y [max_m, n] and the fences around it.
  [[nodiscard]] std::uint16_t* y() const;
  void poison_y() const;  // NaN everywhere, canaries in the fences
  [[nodiscard]] const std::uint16_t* fence_before() const;
  [[nodiscard]] const std::uint16_t* fence_after() const;

  static constexpr int kFenceElements = 4096;
  static constexpr std::uint16_t kCanary = 0xffff;  // NaN in FP16 and BF16

 private:
  Problem problem_;
  int max_m_;
  int copies_;
  Buffer nibbles_;
  Buffer unpacked_scales_;
  Buffer weights_;  // copies_ times [packed weight, packed scales]
  std::size_t copy_bytes_;
  Buffer x_;
  mutable Buffer y_;
};

}  // namespace w4tune
