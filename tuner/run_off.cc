#include "tuner/run_off.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <tuple>

#include "core/check.h"
#include "core/stats.h"
#include "core/winner.h"

namespace w4tune {
namespace {

// Indices of `alive`, fastest first.
std::vector<std::size_t> by_time(const std::vector<Samples>& samples,
                                 std::vector<std::size_t> alive) {
  W4_CHECK(!alive.empty(), "a run-off needs a finalist");
  std::vector<double> times(samples.size());
  for (const std::size_t i : alive) times[i] = median(only_steady(samples[i]).time_us);
  std::stable_sort(alive.begin(), alive.end(),
                   [&](std::size_t a, std::size_t b) { return times[a] < times[b]; });
  return alive;
}

// Of the ratio to the fastest.
Range interval(const Samples& samples, const Samples& fastest) {
  const std::vector<double> of_rounds = ratios(samples, fastest);
  if (of_rounds.empty()) return {0.0, HUGE_VAL};  // nothing is known
  return median_interval(of_rounds);
}

// What lies below so many of the median clock is throttled; those that are, slowest first.
std::vector<std::size_t> throttled(const Samples& samples) {
  std::vector<double> clocks;
  for (const double clock : samples.clock_mhz) {
    if (clock > 0.0) clocks.push_back(clock);
  }
  std::vector<std::size_t> found;
  if (clocks.empty()) return found;
  const double least = median(clocks) * (1.0 - kThrottledShare);
  for (std::size_t i = 0; i < samples.clock_mhz.size(); ++i) {
    if (samples.clock_mhz[i] > 0.0 && samples.clock_mhz[i] < least) found.push_back(i);
  }
  std::stable_sort(found.begin(), found.end(), [&](std::size_t a, std::size_t b) {
    return samples.clock_mhz[a] < samples.clock_mhz[b];
  });
  return found;
}

std::size_t most_throttled(const Samples& samples) {
  return static_cast<std::size_t>(kMostThrottled * static_cast<double>(samples.time_us.size()));
}

}  // namespace

std::vector<bool> steady(const Samples& samples) {
  std::vector<bool> counts(samples.time_us.size(), true);
  std::vector<std::size_t> out = throttled(samples);
  out.resize(std::min(out.size(), most_throttled(samples)));
  for (const std::size_t i : out) counts[i] = false;
  return counts;
}

bool throttled_too_often(const Samples& samples) {
  return throttled(samples).size() > most_throttled(samples);
}

Samples only_steady(const Samples& samples) {
  const std::vector<bool> counts = steady(samples);
  Samples kept;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (!counts[i]) continue;
    kept.time_us.push_back(samples.time_us[i]);
    kept.clock_mhz.push_back(samples.clock_mhz[i]);
  }
  return kept;
}

std::vector<double> ratios(const Samples& samples, const Samples& others) {
  const std::vector<bool> mine = steady(samples);
  const std::vector<bool> theirs = steady(others);
  std::vector<double> of_rounds;
  for (std::size_t i = 0; i < std::min(mine.size(), theirs.size()); ++i) {
    if (mine[i] && theirs[i]) of_rounds.push_back(samples.time_us[i] / others.time_us[i]);
  }
  return of_rounds;
}

std::vector<std::size_t> survivors(const std::vector<Samples>& samples,
                                   const std::vector<std::size_t>& alive) {
  std::vector<std::size_t> order = by_time(samples, alive);
  const std::size_t fastest = order.front();
  order.erase(std::remove_if(order.begin() + 1, order.end(),
                             [&](std::size_t i) {
                               return interval(samples[i], samples[fastest]).low > 1.0 + kTieShare;
                             }),
              order.end());
  order.resize(std::min(order.size(), std::max<std::size_t>(2, (alive.size() + 1) / 2)));
  return order;
}

std::vector<Samples> sample_in_rounds(
    std::size_t finalists, std::size_t others, int rounds,
    const std::function<MeasuredGraph::Sample(std::size_t)>& sample) {
  std::vector<Samples> samples(finalists + others);
  std::vector<std::size_t> alive(finalists);
  std::iota(alive.begin(), alive.end(), std::size_t{0});
  for (int round = 1; round <= rounds; ++round) {
    const auto take = [&](std::size_t i) {
      const MeasuredGraph::Sample one = sample(i);
      samples[i].time_us.push_back(one.time_us);
      samples[i].clock_mhz.push_back(one.clock_mhz);
    };
    for (const std::size_t i : alive) take(i);
    for (std::size_t i = finalists; i < samples.size(); ++i) take(i);
    const bool halved = std::find(std::begin(kHalvingRounds), std::end(kHalvingRounds), round) !=
                        std::end(kHalvingRounds);
    if (halved && round < rounds && !alive.empty()) alive = survivors(samples, alive);
  }
  return samples;
}

Verdict decide(const std::vector<Finalist>& finalists) {
  std::vector<Samples> samples;
  std::size_t rounds = 0;
  for (const Finalist& finalist : finalists) {
    samples.push_back(finalist.samples);
    rounds = std::max(rounds, finalist.samples.time_us.size());
  }
  std::vector<std::size_t> alive;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    if (samples[i].time_us.size() == rounds) alive.push_back(i);
  }
  const std::vector<std::size_t> order = by_time(samples, alive);
  const std::size_t fastest = order.front();
  std::vector<std::size_t> tied = {fastest};
  std::vector<std::size_t> equal = {fastest};
  for (const std::size_t i : order) {
    if (i == fastest) continue;
    const double low = interval(samples[i], samples[fastest]).low;
    if (low <= 1.0 + kTieShare) tied.push_back(i);
    if (low <= 1.0) equal.push_back(i);
  }
  Verdict verdict;
  const auto incumbent =
      std::find_if(tied.begin(), tied.end(), [&](std::size_t i) { return finalists[i].incumbent; });
  if (incumbent != tied.end()) {
    verdict.winner = *incumbent;
  } else {
    verdict.winner =
        *std::min_element(equal.begin(), equal.end(), [&](std::size_t a, std::size_t b) {
          const Finalist& x = finalists[a];
          const Finalist& y = finalists[b];
          return std::tie(x.smem_bytes, x.registers, x.text) <
                 std::tie(y.smem_bytes, y.registers, y.text);
        });
  }
  tied.erase(std::find(tied.begin(), tied.end(), verdict.winner));
  verdict.tied = std::move(tied);
  return verdict;
}

}  // namespace w4tune
