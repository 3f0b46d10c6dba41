// The run-off: what interleaved samples say about which of the finalists wins. Knows no GPU.
//
// Samples of one round were taken one after the other, so a finalist is compared with another round
// by round: what drifts meets both. Intervals are of the median of these ratios, at 95 %
// (core/stats.h, median_interval).
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "tuner/measure.h"

namespace w4tune {

// Rounds after which the finalists are halved.
inline constexpr int kHalvingRounds[] = {5, 10};

// A sample is throttled where its clock lies more than this below the median clock of what it is a
// sample of; at most so many are left out for it, the slowest clocks first.
inline constexpr double kThrottledShare = 0.05;
inline constexpr double kMostThrottled = 0.25;

// Which samples count. Unknown clocks (0) always do.
std::vector<bool> steady(const Samples& samples);
// Those alone.
Samples only_steady(const Samples& samples);
// Whether more were throttled than may be left out: what such samples say is in doubt.
bool throttled_too_often(const Samples& samples);

// Times of `samples` over those of `others`, of the rounds that both have and where both were
// steady.
std::vector<double> ratios(const Samples& samples, const Samples& others);

// Of the `alive` finalists those that go on: not shown to be slower than the fastest by more than
// kTieShare, and of those at most half of the alive ones, rounded up, the fastest first; two at
// least, where there are two that near.
std::vector<std::size_t> survivors(const std::vector<Samples>& samples,
                                   const std::vector<std::size_t>& alive);

// Samples of `finalists` things that compete and of `others` after them, which stay to the end, in
// turns: `sample(i)` takes one.
std::vector<Samples> sample_in_rounds(
    std::size_t finalists, std::size_t others, int rounds,
    const std::function<MeasuredGraph::Sample(std::size_t)>& sample);

struct Finalist {
  std::string text;        // of the candidate: the last resort among equals
  bool incumbent = false;  // what the cache serves already
  int smem_bytes = 0;
  int registers = 0;
  Samples samples;  // one a round, from the first round on; fewer where it dropped out
};

struct Verdict {
  std::size_t winner = 0;
  // Not shown to be slower than the fastest by more than kTieShare; without the winner, fastest
  // first.
  std::vector<std::size_t> tied;
};

// Of those that were sampled to the end, the ones whose interval of the ratio to the fastest
// reaches 1 are equals of it. The incumbent wins where it is in the tie set, so that tuning again
// changes nothing without a reason; else the equal with the least shared memory, then registers,
// then the first by text. Requires a finalist.
Verdict decide(const std::vector<Finalist>& finalists);

}  // namespace w4tune
