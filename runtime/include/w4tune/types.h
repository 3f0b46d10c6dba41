// The vocabulary a user of the runtime sees: which layer (Problem), how well a lookup fits (Match).
//
// Plain values without CUDA, SQLite or JSON; safe to use from any thread.
#pragma once

#include <compare>
#include <cstdint>

namespace w4tune {

// What a kernel computes. Persisted as text; `n` is always the width of the output.
enum class Op : std::uint8_t {
  kGemm,   // y = x * dequant(w)^T
  kGeglu,  // y = gelu_tanh(x * w_gate^T) * (x * w_up^T); the packed weight has 2n rows
};

// Type of the activations x, the output y and the scales.
enum class Dtype : std::uint8_t { kF16, kBF16 };

// Everything that identifies a layer except the number of tokens M.
// x [M, K] and y [M, N] are row-major; w [N, K] is INT4; scales are [N, K / group_size].
struct Problem {
  Op op = Op::kGemm;
  int n = 0;
  int k = 0;
  int group_size = 128;  // weights along K that share a scale; equal to k: one scale per output
  Dtype dtype = Dtype::kF16;

  auto operator<=>(const Problem&) const = default;
};

// How the nibbles of an unpacked weight encode -8..7; the low nibble of a byte is the even k.
enum class NibbleEncoding : std::uint8_t {
  kOffset8,  // u = w + 8
  kSigned,   // two's complement
};

// How well what was found fits what was asked for, best first.
enum class Match : std::uint8_t {
  kExact,          // measured on this GPU at this very M
  kInterpolatedM,  // measured on this GPU; its interval of M covers the asked M
  kSameArch,       // measured on another GPU of the same architecture
  kPredicted,      // ranked by the cost model, never measured on this GPU
  kDefault,        // a built-in default kernel
  kRefused,        // nothing serves it: there is no kernel in the Selection
};

}  // namespace w4tune
