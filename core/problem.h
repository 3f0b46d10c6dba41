// Problem and Workload: their text form, their limits and their sizes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "w4tune/types.h"

namespace w4tune {

// A Problem at one number of tokens.
struct Workload {
  Problem problem;
  int m = 0;

  auto operator<=>(const Workload&) const = default;
};

std::string_view to_string(Op op);
std::string_view to_string(Dtype dtype);
std::string_view to_string(Match match);

// "gemm_n16384_k2048_g128_f16"
std::string to_string(const Problem& problem);
// "gemm_n16384_k2048_g128_f16 m=968"
std::string to_string(const Workload& workload);

// Inverses of to_string; throw Error{kInvalidArgument} naming the text that does not fit.
Op parse_op(std::string_view text);
Dtype parse_dtype(std::string_view text);
Problem parse_problem(std::string_view text);

// Throws Error{kInvalidArgument} with the first limit the problem breaks: n a multiple of 16,
// k a multiple of 64 and of the group, group_size 32, 64, 128 or k.
void validate(const Problem& problem);

// Rows of the packed weight: n, or 2n for geglu (gate and up).
int weight_rows(const Problem& problem);
// Groups along K.
int num_groups(const Problem& problem);
// Bytes of the packed weight and of its packed scales (core/weight_layout.h).
std::size_t weight_bytes(const Problem& problem);
std::size_t scale_bytes(const Problem& problem);

// Bytes that must move once: weights, scales, x and y.
double bytes_moved(const Workload& workload);
// Multiply-adds counted as two operations.
double operations(const Workload& workload);

}  // namespace w4tune
