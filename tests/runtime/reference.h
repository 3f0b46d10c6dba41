// y = x * dequant(w)^T in double on the CPU, with the bound an FP16 or BF16 result must keep
// (docs/kernels.md, "Error bounds").
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/half.h"
#include "core/problem.h"
#include "tuner/operands.h"

namespace w4tune::samples {

struct Reference {
  std::vector<double> y;      // [m, n]
  std::vector<double> bound;  // [m, n]
};

// What a dequantisation mode leaves in the operand besides the weight, to be subtracted later.
inline double offset_in_operand(int dequant) {
  return dequant == 2 ? 8.0 : dequant == 3 ? 24.0 : 0.0;
}

// `dequant` is the kernel's mode; D0, of 0, has the widest bound.
inline Reference reference(const Problem& problem, const HostOperands& host, int m,
                           int dequant = 0) {
  const auto n = static_cast<std::size_t>(problem.n);
  const auto k = static_cast<std::size_t>(problem.k);
  const auto group = static_cast<std::size_t>(problem.group_size);
  const double u = unit_roundoff(problem.dtype);
  std::vector<double> x(static_cast<std::size_t>(m) * k);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = to_float(problem.dtype, host.x[i]);
  Reference result;
  result.y.resize(static_cast<std::size_t>(m) * n);
  result.bound.resize(result.y.size());
  std::vector<double> w(k);
  std::vector<double> operand(k);
  for (std::size_t row = 0; row < n; ++row) {
    for (std::size_t d = 0; d < k; ++d) {
      const int nibble = (host.nibbles[row * k / 2 + d / 2] >> (4 * (d % 2))) & 15;
      const double scale = to_float(problem.dtype, host.scales[row * (k / group) + d / group]);
      w[d] = (nibble - 8) * scale;
      operand[d] = std::abs((nibble - 8 + offset_in_operand(dequant)) * scale);
    }
    for (std::size_t token = 0; token < static_cast<std::size_t>(m); ++token) {
      double sum = 0.0;
      double sum_abs = 0.0;
      double sum_sq = 0.0;
      for (std::size_t d = 0; d < k; ++d) {
        const double term = x[token * k + d] * w[d];
        sum += term;
        sum_abs += std::abs(x[token * k + d]) * operand[d];
        sum_sq += term * term;
      }
      result.y[token * n + row] = sum;
      result.bound[token * n + row] = u * std::abs(sum) +
                                      (dequant == 0 ? 4.0 * u * std::sqrt(sum_sq) : 0.0) +
                                      0x1p-22 * sum_abs + 0x1p-24;
    }
  }
  return result;
}

// Largest |error| / bound of the first m tokens; rows of `y` are `ldy` elements apart. NaN counts
// as infinite.
inline double worst_ratio(const Problem& problem, const Reference& expected,
                          const std::vector<std::uint16_t>& y, int m, std::size_t ldy) {
  const auto n = static_cast<std::size_t>(problem.n);
  double worst = 0.0;
  for (std::size_t token = 0; token < static_cast<std::size_t>(m); ++token) {
    for (std::size_t row = 0; row < n; ++row) {
      const double value = to_float(problem.dtype, y[token * ldy + row]);
      const double ratio =
          std::abs(value - expected.y[token * n + row]) / expected.bound[token * n + row];
      worst = std::max(worst, std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio);
    }
  }
  return worst;
}

}  // namespace w4tune::samples
