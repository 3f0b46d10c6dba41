// CublasLt: FP16 and BF16 matrix products by cuBLASLt, the baseline of every measurement and the
// probe of a GPU's matrix rate. The library is opened at run time.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <memory>
#include <string>

#include "w4tune/types.h"

namespace w4tune {

// The library itself. Lives until the program ends; any thread may use it.
class CublasLt {
 public:
  // Whether get() would work; never throws.
  static bool available() noexcept;

  // Throws Error{kEnvironment} where the library is missing; then the next call tries again.
  static const CublasLt& get();

  // "13.0.2"; needs no GPU.
  [[nodiscard]] std::string version() const;

  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;
  ~CublasLt();

 private:
  friend class CublasLtGemm;
  struct Library;

  CublasLt();

  std::unique_ptr<Library> library_;
};

// y[m, n] = x[m, k] * w[n, k]^T, all row-major and dense, in `dtype` with FP32 accumulation, by one
// of the algorithms the heuristic names. Owns a workspace in the current context; movable. One run
// at a time: runs share the workspace, so they belong to one stream.
class CublasLtGemm {
 public:
  static constexpr std::size_t kDefaultWorkspaceBytes = std::size_t{32} << 20;
  static constexpr int kMostAlgorithms = 8;

  // Throws Error{kDevice} where cuBLASLt knows no algorithm for this product.
  CublasLtGemm(int m, int n, int k, Dtype dtype,
               std::size_t workspace_bytes = kDefaultWorkspaceBytes);
  CublasLtGemm(CublasLtGemm&& other) noexcept;
  CublasLtGemm& operator=(CublasLtGemm&& other) noexcept;
  ~CublasLtGemm();

  // Algorithms at hand, 1 to kMostAlgorithms, the heuristic's best guess first.
  [[nodiscard]] int size() const;

  // "algo=66 tile=20 stages=36 split_k=1 cluster=3 workspace=0": cuBLASLt's own numbers.
  [[nodiscard]] std::string describe(int algorithm) const;

  // Puts the product into `stream`; may be captured. x, w and y are device addresses, aligned to
  // 256 bytes. Throws Error{kDevice} when cuBLASLt refuses.
  void run(int algorithm, const void* x, const void* w, void* y, CUstream stream) const;

 private:
  struct State;

  std::unique_ptr<State> state_;
};

}  // namespace w4tune
