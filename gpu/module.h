// Module and Kernel: device code loaded into the current context, and its launch.
//
// A Module owns what it loaded; functions and graphs made from it must not outlive it.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace w4tune {

class Module {
 public:
  // `image` is a cubin or PTX text, which the driver compiles for its GPU. Throws Error{kDevice}
  // with the driver's log when it does not fit the GPU.
  explicit Module(std::string_view image);
  Module(Module&& other) noexcept;
  Module& operator=(Module&& other) noexcept;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  ~Module();

  [[nodiscard]] CUfunction function(const char* name) const;
  // nullptr where the module has no such function.
  [[nodiscard]] CUfunction find(const char* name) const;

 private:
  CUmodule module_ = nullptr;
};

// One kernel with the module that it came from.
class Kernel {
 public:
  Kernel(std::string_view image, const char* name);

  [[nodiscard]] CUfunction function() const { return function_; }
  [[nodiscard]] int registers() const { return registers_; }      // per thread
  [[nodiscard]] int local_bytes() const { return local_bytes_; }  // per thread: stack and spills
  [[nodiscard]] int static_smem_bytes() const { return static_smem_bytes_; }

  // Needed once before launches with more than 48 KB of dynamic shared memory. Throws
  // Error{kDevice} when the GPU has less.
  void allow_dynamic_smem(std::size_t bytes);

 private:
  Module module_;
  CUfunction function_ = nullptr;
  int registers_ = 0;
  int local_bytes_ = 0;
  int static_smem_bytes_ = 0;
};

// Launches a one-dimensional grid, in clusters of `cluster` CTAs where that is above 1 (sm_90), and
// where `dependent` is set as a programmatic dependent launch (sm_90): it may begin when all CTAs
// of the kernel before have said so, or ended. `params` points to the kernel's arguments, which are
// copied before it returns. Allocates nothing; may be captured.
void launch(CUfunction function, std::uint32_t grid_x, std::uint32_t threads,
            std::uint32_t smem_bytes, CUstream stream, void** params, std::uint32_t cluster = 1,
            bool dependent = false);

}  // namespace w4tune
