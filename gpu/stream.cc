#include "gpu/stream.h"

#include <utility>

#include "gpu/driver.h"

namespace w4tune {

Stream::Stream() {
  check(driver().stream_create(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
}

Stream::Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(stream_, other.stream_);
  return *this;
}

Stream::~Stream() {
  if (stream_ != nullptr) driver().stream_destroy(stream_);
}

void Stream::synchronize() const {
  check(driver().stream_synchronize(stream_), "cuStreamSynchronize");
}

}  // namespace w4tune
