// Dispatcher: serves the kernels of one tuned file on one GPU.
//
// y [m, n] = x [m, k] * dequant(w)^T on the caller's stream. `open` reads the file once and loads
// every kernel; the file may go afterwards. Except for moving and destroying, every member may be
// called from any thread at any time, under CUDA graph capture too. Work that was launched must
// have finished before the Dispatcher is destroyed. A moved-from Dispatcher may only be assigned
// to.
//
// Context: the one current to the thread that opened, if it is of the device asked for, else the
// device's primary context (the one the CUDA runtime uses). Streams and pointers must belong to it;
// whatever is current to the calling thread stays so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "w4tune/export.h"
#include "w4tune/packing.h"
#include "w4tune/types.h"

struct CUstream_st;

namespace w4tune {

using CudaStream = CUstream_st*;  // cudaStream_t, CUstream

struct TunedKernel;  // belongs to a Dispatcher

struct OpenOptions {
  // CUDA ordinal; -1: the device of the current context, without one device 0.
  int device = -1;
  // When set, the rows of this GPU (its name, or an alias such as "a40") are loaded for looking
  // only: no GPU is touched, launch and pack_weights throw.
  std::string device_name = {};
  // A file of kernels that serve any N and K (`w4tune defaults`): they serve, as Match::kDefault,
  // the problems that the file of `open` has no kernel for; its GPU need not have rows then.
  std::string defaults_path = {};
  // Where the file says that dequantising a weight and multiplying by cuBLASLt is faster than a
  // kernel, that serves, if the library can be opened and its scratch has at most this many bytes
  // (the tuner bounds it by --max-workspace); else the kernel does. 0 forbids it.
  std::size_t max_scratch_bytes = std::numeric_limits<std::size_t>::max();
};

// What serves one M. A plain value, valid as long as its Dispatcher.
struct W4TUNE_API Selection {
  const TunedKernel* kernel = nullptr;  // nullptr: refused
  Match match = Match::kRefused;
  const char* reason = "";  // why it is refused; "" otherwise
  int n = 0;                // of the problem asked for
  int k = 0;
  // At the M where the kernel was tuned: its time and that of cuBLASLt FP16 in the same run, in
  // microseconds; 0 where not measured. A predicted kernel's time is the cost model's word.
  float time_us = 0.0F;
  float fp16_us = 0.0F;
  float floor_us = 0.0F;  // lower bound by bandwidth and matrix rate

  explicit operator bool() const noexcept { return kernel != nullptr; }
  // "mma_pipe row_tile=128 ... | split_k=4 raster=1", "dequant_cublas slice_rows=4096"; "" when
  // refused.
  [[nodiscard]] const char* config() const noexcept;
  // Above 0: served by dequantising slices of the weight into a scratch of so many bytes, and
  // cuBLASLt; time_us is the time of that. 0: by a kernel.
  [[nodiscard]] std::size_t scratch_bytes() const noexcept;
};

// Device pointers, 16-byte aligned, of the problem's dtype where not packed.
struct LaunchOperands {
  const void* x = nullptr;       // [m, k] row-major
  const void* w = nullptr;       // packed weight
  const void* scales = nullptr;  // packed scales
  void* y = nullptr;             // [m, n] row-major; overlaps no operand
  int m = 0;
  std::int64_t ldx = 0;  // elements between rows, a multiple of 8, at least k; 0: k
  std::int64_t ldy = 0;  // elements between rows, a multiple of 8, at least n; 0: n
  // Programmatic dependent launch (sm_90, kernels that can; ignored elsewhere): the kernel may
  // begin, and read w and scales, before the kernel before it in the stream has ended; it waits for
  // that one before it touches x, y or the workspace. Set it where w and scales are not written by
  // the work just before, as in a chain of layers.
  bool dependent_launch = false;
};

// A block rotation of the columns of x, after a permutation of them (DuQuant's transform of
// activations):
//   y[m, b * block + j] = sum over i of x[m, permutation[b * block + i]] * blocks[b, i, j]
// Sums are FP32. Device pointers.
struct Rotation {
  const void* x = nullptr;           // [m, width] row-major, FP16 or BF16
  const int* permutation = nullptr;  // [width], each column once; nullptr: none
  const void* blocks = nullptr;      // FP16 [ceil(width / block), block, block], zero beyond width
  void* y = nullptr;                 // [m, width] row-major, dense; overlaps nothing
  int m = 0;
  int width = 0;
  int block = 0;              // 1 to kMaxRotationBlock
  std::int64_t ldx = 0;       // elements between rows, at least width; 0: width
  Dtype dtype = Dtype::kF16;  // of x and y
};
inline constexpr int kMaxRotationBlock = 256;

// What serves one interval of M, m_lo <= M <= m_hi.
struct ServedInterval {
  Problem problem;
  int m = 0;  // where it was tuned
  int m_lo = 0;
  int m_hi = 0;  // kUnboundedTokens for the last interval of a problem
  std::string config;
  Match match = Match::kRefused;  // at m: kExact, kSameArch or kPredicted
  double time_us_median = 0.0;    // measured, or what the cost model says for kPredicted
  double floor_us = 0.0;          // lower bound by bandwidth and matrix rate
  double baseline_us = 0.0;       // cuBLASLt FP16 in the same run; 0 where not measured
  std::size_t scratch_bytes = 0;  // as in Selection
};

inline constexpr int kUnboundedTokens = 1 << 30;

// "exact", "interpolated_m", ...; static storage.
W4TUNE_API const char* match_name(Match match) noexcept;

class W4TUNE_API Dispatcher {
 public:
  // Rows of exactly this GPU (name, architecture, number of SMs) serve; without them those of the
  // GPU of the same architecture with the closest number of SMs. Throws Error{kNotFound} when the
  // file is missing or has neither, {kDatabase} when it can't be used, {kEnvironment} or
  // {kNoDevice} without a driver or GPU, {kDevice} when the GPU refuses a kernel. `path` may be ""
  // where OpenOptions names defaults.
  static Dispatcher open(const std::string& path, const OpenOptions& options = {});

  Dispatcher(Dispatcher&& other) noexcept;
  Dispatcher& operator=(Dispatcher&& other) noexcept;
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;
  ~Dispatcher();

  // The kernel whose interval covers m; beyond the largest tuned M the last interval serves.
  // Refused for a problem the file lacks and for m < 1. Neither allocates nor locks.
  [[nodiscard]] Selection select(const Problem& problem, int m) const noexcept;

  // Enqueues y = x * dequant(w)^T. Throws Error{kInvalidArgument} naming the operand that does not
  // fit, {kDevice} when the driver refuses the launch.
  //
  // Kernels that split K share a workspace per stream, made at the stream's first such launch
  // (64 streams at most, each about as large as the largest tuned need). A launch that needs more,
  // which happens only beyond the largest tuned M, lowers its split: the same way every time. A
  // captured graph keeps the workspace of the stream it was captured on: two graphs captured on one
  // stream, or such a graph and launches on that stream, must not run at the same time. Let the
  // work of a stream (or, for the per-thread default stream, of a thread) finish before destroying
  // it. What is served by dequantising has a scratch for each stream by the same rules, and ignores
  // dependent_launch; it locks for a moment, and asks cuBLASLt at the first launch of each m.
  void launch(const Selection& selection, const LaunchOperands& operands, CudaStream stream) const;

  // Packs on the GPU what w4tune/packing.h packs on the CPU, bit for bit. Device pointers; packed_w
  // and packed_scales 16-byte aligned. Throws as launch, and {kNotFound} when the file has no
  // packing kernel.
  void pack_weights(const Problem& problem, const UnpackedWeight& weight, void* packed_w,
                    void* packed_scales, CudaStream stream) const;

  // The weight back from its packed form: w [rows, k] row-major in the problem's dtype, rows in the
  // order of UnpackedWeight (geglu: gate, then up), each q * scale rounded once. Device pointers,
  // 16-byte aligned; throws as pack_weights.
  void dequantize(const Problem& problem, const void* packed_w, const void* packed_scales, void* w,
                  CudaStream stream) const;

  // y [m, n] = gelu_tanh(h[:, :n]) * h[:, n:] of dense h [m, 2n]: what ends a geglu whose product
  // was made by another library from dequantize()'s weight. n a multiple of 8.
  void activate(Dtype dtype, const void* h, void* y, int m, int n, CudaStream stream) const;

  void rotate(const Rotation& rotation, CudaStream stream) const;

  // What serves, sorted by problem and M; defaults are not among it.
  [[nodiscard]] std::vector<ServedInterval> intervals() const;
  // The GPU whose rows serve; "" where defaults alone do.
  [[nodiscard]] const std::string& device_name() const noexcept;
  // Memory bandwidth of the GPU that is served, in GB/s: its data sheet's, or its memory clock
  // times its width; 0 without a GPU.
  [[nodiscard]] double dram_gbps() const noexcept;

 private:
  class Impl;
  explicit Dispatcher(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace w4tune
