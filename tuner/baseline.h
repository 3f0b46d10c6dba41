// The FP16 (or BF16) product a user would run instead: cuBLASLt at the best of its own algorithms,
// on dequantised weights, through the same protocol. For geglu: gate and up as one product.
#pragma once

#include <memory>
#include <vector>

#include "cache/store.h"
#include "gpu/cublaslt.h"
#include "tuner/gpu_session.h"
#include "tuner/measure.h"
#include "tuner/operands.h"

namespace w4tune {

// Name of the baseline of a problem: "cublaslt_f16" or "cublaslt_bf16".
std::string baseline_name(const Problem& problem);

// What the baseline computes in, for people: "FP16" or "BF16".
std::string baseline_type(const Problem& problem);

// What the baseline computes where that is not what the kernel computes, "" otherwise: for geglu
// the plain product of twice the rows, which leaves the activation and its memory traffic out.
std::string baseline_note(const Problem& problem);

// Dequantised weights of one problem in enough copies to be cold.
class BaselineOperands {
 public:
  BaselineOperands(const Operands& operands, std::size_t l2_bytes, const Protocol& protocol);

  [[nodiscard]] int copies() const { return copies_; }
  [[nodiscard]] const void* weight(int copy) const;
  [[nodiscard]] void* y() const { return y_.as<void>(); }
  [[nodiscard]] void* workspace() const { return workspace_.as<void>(); }

 private:
  std::size_t copy_bytes_ = 0;
  int copies_ = 0;
  Buffer weights_;
  Buffer y_;
  Buffer workspace_;
};

// cuBLASLt on one workload: its best algorithm, found by a first round of samples.
class BaselineRun {
 public:
  BaselineRun(const GpuSession& gpu, const Protocol& protocol, const Operands& operands,
              const BaselineOperands& weights, int m);

  [[nodiscard]] MeasuredGraph& graph() { return *graph_; }
  [[nodiscard]] std::string detail() const;  // the chosen algorithm

 private:
  CublasLtGemm gemm_;
  int algorithm_ = 0;
  std::unique_ptr<MeasuredGraph> graph_;
};

}  // namespace w4tune
