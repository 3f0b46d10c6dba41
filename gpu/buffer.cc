#include "gpu/buffer.h"

#include <utility>

#include "core/check.h"
#include "gpu/driver.h"

namespace w4tune {
namespace {

// A copy from pageable memory may return before the data has arrived, a fill before it has begun,
// and non-blocking streams do not wait for the default stream, which both use.
void finish_default_stream() { check(driver().stream_synchronize(nullptr), "cuStreamSynchronize"); }

}  // namespace

Buffer::Buffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes != 0) check(driver().mem_alloc(&address_, bytes), "cuMemAlloc");
}

Buffer::Buffer(Buffer&& other) noexcept
    : address_(std::exchange(other.address_, 0)), bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Buffer::~Buffer() {
  if (address_ != 0) driver().mem_free(address_);
}

void Buffer::upload(const void* source, std::size_t bytes, std::size_t offset) {
  check_range(bytes, offset);
  if (bytes == 0) return;
  check(driver().memcpy_htod(address_ + offset, source, bytes), "cuMemcpyHtoD");
  finish_default_stream();
}

void Buffer::download(void* target, std::size_t bytes, std::size_t offset) const {
  check_range(bytes, offset);
  if (bytes == 0) return;
  check(driver().memcpy_dtoh(target, address_ + offset, bytes), "cuMemcpyDtoH");
}

// NOLINTNEXTLINE(readability-make-member-function-const): it changes the memory that it owns
void Buffer::fill(std::uint8_t value) {
  if (bytes_ == 0) return;
  check(driver().memset_d8(address_, value, bytes_), "cuMemsetD8");
  finish_default_stream();
}

void Buffer::check_range(std::size_t bytes, std::size_t offset) const {
  W4_CHECK(offset <= bytes_ && bytes <= bytes_ - offset, "access beyond the end of a Buffer");
}

}  // namespace w4tune
