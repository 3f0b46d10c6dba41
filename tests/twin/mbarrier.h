// Mbarrier: the barrier of sm_90 that counts arrivals and bytes, phase after phase.
//
// A phase ends when `count` arrivals and all expected bytes have come. Whoever waits for it has
// seen what those who arrived in it had seen and done, and what copies brought in it.
#pragma once

#include <cstdint>

#include "tests/twin/race_watch.h"

namespace w4::twin {

class Mbarrier {
 public:
  // Copies that count here are known to clocks as thread `engine`.
  Mbarrier(const Clock& maker, std::uint32_t count, std::uint32_t engine);

  // What is wrong with the call, or nullptr.
  const char* expect(std::int64_t bytes);
  const char* arrive(Clock& clock);
  const char* land(std::int64_t bytes);

  [[nodiscard]] bool is_known_to(const Clock& clock) const {
    return clock.has_seen(maker_, made_at_);
  }
  [[nodiscard]] std::uint32_t maker() const { return maker_; }
  [[nodiscard]] std::uint32_t phase() const { return phase_; }  // under way, counted from 0
  // Whether the phase of this parity is over: the one before that under way has it.
  [[nodiscard]] bool has_ended(std::uint32_t parity) const { return phase_ % 2 != parity; }
  void acquire(Clock& clock) const { clock.acquire(ended_); }
  // As whom, and when, a copy writes that lands now.
  [[nodiscard]] Clock writer() const { return {engine_, phase_ + 1, nullptr}; }

 private:
  void end_phase();

  std::uint32_t maker_;
  std::uint32_t made_at_;
  std::uint32_t count_;
  std::uint32_t engine_;
  std::uint32_t phase_ = 0;
  std::uint32_t missing_arrivals_;
  std::int64_t missing_bytes_ = 0;
  ClockTimes released_;  // in the phase under way
  ClockTimes ended_;     // in the one before
};

}  // namespace w4::twin
