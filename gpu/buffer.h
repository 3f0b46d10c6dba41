// Buffer: device memory of the current context; owns it, 256-byte aligned, not initialised.
//
// upload and fill have happened when they return; download does not wait for work on non-blocking
// streams: synchronise the stream first. Access beyond the end is a programmer's error.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>

namespace w4tune {

class Buffer {
 public:
  Buffer() = default;  // empty: address 0, no bytes
  explicit Buffer(std::size_t bytes);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  [[nodiscard]] CUdeviceptr address() const { return address_; }
  [[nodiscard]] std::size_t size_bytes() const { return bytes_; }

  // The address as a pointer for kernel arguments; not to be dereferenced on the host.
  template <typename T>
  [[nodiscard]] T* as() const {
    return reinterpret_cast<T*>(address_);
  }

  void upload(const void* source, std::size_t bytes, std::size_t offset = 0);
  void download(void* target, std::size_t bytes, std::size_t offset = 0) const;
  void fill(std::uint8_t value);

 private:
  void check_range(std::size_t bytes, std::size_t offset) const;

  CUdeviceptr address_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace w4tune
