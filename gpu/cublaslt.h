// CublasLt: FP16 and BF16 matrix products by cuBLASLt. The library is opened at run time; one that
// the process has loaded already is taken.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
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

  // Makes what products on the current context's GPU share; the first product does it otherwise.
  // Not while a graph is captured.
  void prepare() const;

  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;
  ~CublasLt();

 private:
  friend class CublasLtGemm;
  struct Library;

  CublasLt();

  std::unique_ptr<Library> library_;
};

// y[m, n] = x[m, k] * w[n, k]^T, all row-major and w dense.
struct CublasLtProduct {
  static constexpr std::size_t kDefaultWorkspaceBytes = std::size_t{32} << 20;

  int m = 0;
  int n = 0;
  int k = 0;
  Dtype dtype = Dtype::kF16;
  std::int64_t ldx = 0;           // elements between rows; 0: k
  std::int64_t ldy = 0;           // elements between rows; 0: n
  std::uint32_t alignment = 256;  // bytes, of x, w and y; 16 to 256
  std::size_t workspace_bytes = kDefaultWorkspaceBytes;
};

// One product in `dtype` with FP32 accumulation, by one of the algorithms the heuristic names.
// Belongs to the GPU of the context that was current; movable; any thread may run it.
class CublasLtGemm {
 public:
  static constexpr int kMostAlgorithms = 8;

  // Throws Error{kDevice} where cuBLASLt knows no algorithm for this product.
  explicit CublasLtGemm(const CublasLtProduct& product);
  CublasLtGemm(CublasLtGemm&& other) noexcept;
  CublasLtGemm& operator=(CublasLtGemm&& other) noexcept;
  ~CublasLtGemm();

  // Algorithms at hand, 1 to kMostAlgorithms, the heuristic's best guess first.
  [[nodiscard]] int size() const;

  // "algo=66 tile=20 stages=36 split_k=1 cluster=3 workspace=0": cuBLASLt's own numbers.
  [[nodiscard]] std::string describe(int algorithm) const;

  // Puts the product into `stream`; may be captured. x, w and y are device addresses of the
  // product's alignment; `workspace` has its workspace_bytes, 256-byte aligned, and belongs to the
  // stream. Throws Error{kDevice} when cuBLASLt refuses.
  void run(int algorithm, const void* x, const void* w, void* y, void* workspace,
           CUstream stream) const;

 private:
  struct State;

  std::unique_ptr<State> state_;
};

}  // namespace w4tune
