// GpuState: what a Dispatcher holds on the GPU: its context, kernels, workspace and scratch.
//
// Any thread may launch; whatever context is current to it stays so.
#pragma once

#include <cuda.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <vector>

#include "core/device_info.h"
#include "core/gemm_args.h"
#include "gpu/module.h"
#include "gpu/sliced_product.h"
#include "runtime/device_rows.h"
#include "runtime/table.h"
#include "runtime/workspace.h"
#include "w4tune/dispatcher.h"
#include "w4tune/packing.h"

namespace w4tune {

// The context of `open`, see w4tune/dispatcher.h; retained while it lives if it is the primary one
// of a device that had none current.
class ServingContext {
 public:
  // Device -1: that of the current context, else device 0. Throws Error{kNoDevice} for a device
  // that is not there, and as driver() does.
  explicit ServingContext(int device);
  ServingContext(const ServingContext&) = delete;
  ServingContext& operator=(const ServingContext&) = delete;
  ~ServingContext();

  [[nodiscard]] CUcontext handle() const { return context_; }
  [[nodiscard]] int device() const { return device_; }

 private:
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  bool is_retained_ = false;
};

// Makes a context current to this thread for a scope; costs next to nothing where it is already.
class ContextScope {
 public:
  explicit ContextScope(CUcontext context);
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;
  ~ContextScope();

 private:
  CUcontext previous_ = nullptr;
  bool is_switched_ = false;
};

class GpuState {
 public:
  explicit GpuState(int device);
  GpuState(const GpuState&) = delete;
  GpuState& operator=(const GpuState&) = delete;
  ~GpuState();

  [[nodiscard]] const DeviceInfo& info() const { return info_; }

  // Loads each distinct cubin once and fills in the functions of the table, which was made from
  // these rows; called once. Utility kernels come from the last rows that have them.
  void load(const std::vector<const DeviceRows*>& layers, Table& table);

  // Enqueues the kernel, as a dependent launch where `dependent` is set and it may, or the plain
  // launches of its composite; partials, counters and schedule of `args` are filled in here.
  // `problem` has the n and k of `args`.
  void launch(const TunedKernel& kernel, const Problem& problem, w4::GemmArgs args, CUstream stream,
              bool dependent);

  void pack_weights(const Problem& problem, const UnpackedWeight& weight, void* packed_w,
                    void* packed_scales, CUstream stream) const;
  void dequantize(const Problem& problem, const void* packed_w, const void* packed_scales, void* w,
                  CUstream stream) const;
  void activate(Dtype dtype, const void* h, void* y, int m, int n, CUstream stream) const;
  void rotate(const Rotation& rotation, CUstream stream) const;

 private:
  // Kernels of the utility module, each for both dtypes.
  enum class Utility : std::uint8_t { kPack, kDequantize, kActivate, kRotate, kCount };

  void launch_slices(const TunedKernel& kernel, const w4::GemmArgs& args, CUstream stream);
  // What cuBLASLt knows of a composite at this shape; remembered.
  std::shared_ptr<const SlicedProduct> sliced_product(const TunedKernel& kernel,
                                                      const w4::GemmArgs& args);

  // Throws Error{kNotFound} where the files have none.
  [[nodiscard]] CUfunction utility(Utility utility, Dtype dtype) const;

  ServingContext context_;
  DeviceInfo info_;
  std::vector<Kernel> kernels_;
  std::optional<Module> utilities_;
  std::array<std::array<CUfunction, 2>, static_cast<std::size_t>(Utility::kCount)>
      utility_functions_{};  // by utility and dtype; nullptr: none
  std::optional<Workspace> workspace_;
  std::optional<Workspace> scratch_;  // of composites, as partials
  // By kernel, m, ldx and ldy.
  using ProductKey = std::tuple<const TunedKernel*, int, long long, long long>;
  std::mutex products_mutex_;
  std::map<ProductKey, std::shared_ptr<const SlicedProduct>> products_;
};

}  // namespace w4tune
