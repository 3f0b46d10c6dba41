// The run-off: what interleaved samples say about which of the finalists wins. Knows no GPU.
//
// Samples of one round were taken one after the other, so a finalist is compared with another round
// by round: what drifts meets both. Intervals are of the median of these ratios, at 95 %
// (core/stats.h, median_interval).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/stats.h"
#include "tuner/measure.h"

namespace w4tune {

struct Finalist {
  std::string text;        // of the candidate: the last resort among equals
  bool incumbent = false;  // what the cache serves already
  int smem_bytes = 0;
  int registers = 0;
  Samples samples;  // one a round, from the first round on; fewer where it dropped out
};

// A sample is throttled where its clock lies more than this below the median clock of its finalist.
inline constexpr double kThrottledShare = 0.05;
// Of a finalist's samples at most so many are left out for it, the slowest clocks first.
inline constexpr double kMostThrottled = 0.25;

// Which samples count. Unknown clocks (0) always do.
std::vector<bool> steady(const Samples& samples);

// Whether more were throttled than may be left out: what such samples say is in doubt.
bool throttled_too_often(const Samples& samples);

// Times of a finalist over those of another, of the rounds where both were sampled and steady.
// Empty where there is none.
std::vector<double> ratios(const Finalist& finalist, const Finalist& to);

// Indices of the finalists that go on, of the `alive` ones: not shown to be slower than the best by
// more than kTieShare, and of those at most half of the alive ones, rounded up, the fastest first;
// two at least.
std::vector<std::size_t> survivors(const std::vector<Finalist>& finalists,
                                   const std::vector<std::size_t>& alive);

struct Verdict {
  std::size_t winner = 0;
  // Not shown to be slower than the fastest by more than kTieShare; without the winner, fastest
  // first.
  std::vector<std::size_t> tied;
};

// Of the `alive`, those whose interval of the ratio to the fastest reaches 1 are equals of it. The
// incumbent wins where it is in the tie set, so that tuning again changes nothing without a reason;
// else the equal with the least shared memory, then registers, then the first by text.
Verdict decide(const std::vector<Finalist>& finalists, const std::vector<std::size_t>& alive);

}  // namespace w4tune
