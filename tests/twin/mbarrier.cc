#include "tests/twin/mbarrier.h"

#include <utility>

namespace w4::twin {
namespace {

constexpr std::int64_t kMaxBytes = (1 << 20) - 1;  // what the hardware counts

}  // namespace

Mbarrier::Mbarrier(const Clock& maker, std::uint32_t count, std::uint32_t engine)
    : maker_(maker.thread),
      made_at_(maker.now),
      count_(count),
      engine_(engine),
      missing_arrivals_(count) {}

const char* Mbarrier::expect(std::int64_t bytes) {
  missing_bytes_ += bytes;
  return missing_bytes_ > kMaxBytes ? "expects more bytes than an mbarrier counts" : nullptr;
}

const char* Mbarrier::arrive(Clock& clock) {
  if (missing_arrivals_ == 0) return "arrives at an mbarrier where all have arrived";
  clock.release(released_);
  --missing_arrivals_;
  end_phase();
  return nullptr;
}

const char* Mbarrier::land(std::int64_t bytes) {
  if (bytes > missing_bytes_) return "copies more bytes than their mbarrier expects";
  if (released_.size() <= engine_) released_.resize(engine_ + 1);
  released_[engine_] = phase_ + 1;
  missing_bytes_ -= bytes;
  end_phase();
  return nullptr;
}

// If it is over.
void Mbarrier::end_phase() {
  if (missing_arrivals_ > 0 || missing_bytes_ > 0) return;
  ++phase_;
  missing_arrivals_ = count_;
  ended_ = std::exchange(released_, {});
}

}  // namespace w4::twin
