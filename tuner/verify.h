// Verifier: judges a result against a double-precision reference on the exactly dequantised
// weights.
//
// The reference is computed on the GPU once for a Problem, at its largest M, from the unpacked
// weight. The bound of an element (docs/kernels.md, "Error bounds"): rounding of the output, plus
//   D0: 4 u sqrt(sum (x s q)^2), each weight rounded once after its scale;
//   D1: 2^-22 sum |x s q|, the FP32 accumulation;
//   D2den: 2^-22 sum |x s| (|q| + 16), and D4: 2^-22 sum |x s| (|q| + 24), the same of what they
//   sum,
// with u the unit roundoff of the dtype; for geglu the errors of gate and up, carried through the
// product, and that of the approximated GELU. NaN, infinity and a touched fence are always wrong.
#pragma once

#include <memory>
#include <string>

#include "core/trial.h"
#include "gpu/buffer.h"
#include "gpu/module.h"
#include "gpu/stream.h"
#include "tuner/operands.h"

namespace w4tune {

// The kernels of templates/device/utility.cu in one module. Requires a current context.
class UtilityKernels {
 public:
  explicit UtilityKernels(const std::string& image) : module_(image) {}
  [[nodiscard]] CUfunction function(const char* name) const { return module_.function(name); }

 private:
  Module module_;
};

class Verifier {
 public:
  Verifier(const UtilityKernels& utilities, const Operands& operands, const Stream& stream);

  // Judges the first m rows of operands.y(), and its fences. `dequant` is the kernel's mode: 0
  // to 3.
  [[nodiscard]] ErrorMetrics judge(int m, int dequant) const;

 private:
  const UtilityKernels& utilities_;
  const Operands& operands_;
  const Stream& stream_;
  Buffer sums_;  // [max_m, weight_rows]
  mutable Buffer verdict_;
};

// Whether a result within these errors is right.
inline bool is_correct(const ErrorMetrics& error) { return error.worst_ratio <= 1.0; }

}  // namespace w4tune
