// Where FP16 (or BF16) by cuBLASLt is faster than what a winner serves, by interval of M.
#pragma once

#include <string>
#include <vector>

#include "core/winner.h"

namespace w4tune {

// Whether the baseline was measured and is faster by more than what could not be told apart.
bool fp16_is_faster(double served_us, double baseline_us);

struct Fp16Interval {
  Problem problem;
  int m_lo = 0;
  int m_hi = 0;         // kUnboundedM: no end
  double most = 0.0;  // what is served takes up to this share longer, e.g. 0.12
};

// Neighbouring intervals of one problem are one. `winners` are sorted by problem and m, as they
// serve.
std::vector<Fp16Interval> fp16_intervals(const std::vector<Winner>& winners);

// "FP16 is faster for M in 100..1024 of gemm_n2048_k16384_g128_f16 (by up to 12 %)", one line each;
// "no interval where FP16 is faster"; and how many winners were never compared.
std::vector<std::string> fp16_summary(const std::vector<Winner>& winners);

// "3-8", "9-", "1": the M that a winner serves.
std::string interval_text(int m_lo, int m_hi);

}  // namespace w4tune
