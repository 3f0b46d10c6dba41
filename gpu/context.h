// Context: the primary context of one GPU, retained and current to the thread that made it.
//
// Destroying it releases the context and gives the destroying thread back the one that was current
// before. Buffers, streams, events, modules and graphs must go first.
#pragma once

#include <cuda.h>

namespace w4tune {

class Context {
 public:
  explicit Context(int ordinal);
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context();

  // For the other threads that use the GPU.
  void make_current() const;

  [[nodiscard]] CUcontext handle() const { return context_; }

 private:
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  CUcontext previous_ = nullptr;
};

}  // namespace w4tune
