// Replay: how good a strategy is, judged on a space whose every point was measured before.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "search/strategy.h"

namespace w4tune {

// Spaces that compete (mostly one alone) and what each of their points costs.
struct RecordedSpace {
  std::string name;
  std::vector<Space> spaces;       // of the recorded points, and no others
  std::map<Choice, double> costs;  // kFailed where a point did not work
  // What a model expects, by space; empty, or an empty function, where there is none.
  std::vector<std::function<double(const Point&)>> expected;

  [[nodiscard]] double best() const;  // kFailed where nothing worked
  [[nodiscard]] std::size_t failed() const;
};

// Shares of the best possible, best / found, over the seeds.
struct ReplayRow {
  int evaluations = 0;  // distinct ones, failed ones included
  double mean = 0.0;
  double deviation = 0.0;  // standard, of a single search
  double worst = 0.0;
  double random = 0.0;  // the mean of a random search, over all that there are
};

struct ReplayOptions {
  std::vector<int> evaluations = {25, 50, 100, 200, 400};
  int seeds = 60;   // searches, with the seeds 1, 2, ...
  int threads = 1;  // that search at the same time; the result does not depend on it
  double least_share = Budget{}.least_share;
  std::function<bool()> stop = [] { return false; };    // ends it; asked from any thread
  std::function<void(int done)> progress = [](int) {};  // searches; called by one thread at a time
};

// One row for each number of evaluations, in that order; none when `stop` ended it. A search that
// has seen the whole space keeps what it has found. Requires a point that works.
std::vector<ReplayRow> replay(const RecordedSpace& recorded, const Strategy& strategy,
                              const ReplayOptions& options);

}  // namespace w4tune
