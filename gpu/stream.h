// Stream: an ordered queue of GPU work of the current context; does not wait for the default
// stream.
#pragma once

#include <cuda.h>

namespace w4tune {

class Stream {
 public:
  Stream();
  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&& other) noexcept;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream();

  [[nodiscard]] CUstream handle() const { return stream_; }

  // Waits for all work in the stream; throws Error{kDevice} when some of it failed.
  void synchronize() const;

 private:
  CUstream stream_ = nullptr;
};

}  // namespace w4tune
