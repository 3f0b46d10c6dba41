#include "search/replay.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <thread>

#include "core/check.h"

namespace w4tune {
namespace {

class ReplayEvaluator final : public Evaluator {
 public:
  explicit ReplayEvaluator(const RecordedSpace& recorded) : recorded_(recorded) {}
  void announce(std::span<const Choice> /*choices*/) override {}
  double evaluate(const Choice& choice) override { return recorded_.costs.at(choice); }

 private:
  const RecordedSpace& recorded_;
};

// The ranked points and models of a recorded space as contenders.
class Contenders {
 public:
  explicit Contenders(const RecordedSpace& recorded) {
    for (std::size_t space = 0; space < recorded.spaces.size(); ++space) {
      ranked_.emplace_back();
      if (space >= recorded.expected.size() || !recorded.expected[space]) continue;
      for (Point& point : recorded.spaces[space].enumerate().points) {
        const double cost = recorded.expected[space](point);
        ranked_.back().push_back({std::move(point), cost});
      }
      std::stable_sort(ranked_.back().begin(), ranked_.back().end(),
                       [](const RankedPoint& a, const RankedPoint& b) {
                         return a.expected_cost < b.expected_cost;
                       });
    }
    for (std::size_t space = 0; space < recorded.spaces.size(); ++space) {
      contenders_.push_back(
          {&recorded.spaces[space], ranked_[space],
           space < recorded.expected.size() ? recorded.expected[space] : nullptr});
    }
  }

  [[nodiscard]] std::span<const Contender> get() const { return contenders_; }

 private:
  std::vector<std::vector<RankedPoint>> ranked_;
  std::vector<Contender> contenders_;
};

// Share of the best after each evaluation.
std::vector<double> shares_of(const SearchResult& result, double best) {
  std::vector<double> shares;
  double found = kFailed;
  for (const Evaluation& evaluation : result.evaluations) {
    found = std::min(found, evaluation.cost);
    shares.push_back(best / found);  // 0 while nothing worked
  }
  return shares;
}

// Of `draws` different points at random, the mean of best / found: the i-th best point is the
// best drawn with a probability that follows from the one before.
double random_mean(const std::vector<double>& sorted, int draws) {
  const auto points = static_cast<double>(sorted.size());
  double mean = 0.0;
  double all_worse = 1.0;  // that none of the better points was drawn
  for (std::size_t i = 0; i < sorted.size() && all_worse > 1e-15; ++i) {
    const double drawn = std::min(1.0, draws / (points - static_cast<double>(i)));
    mean += all_worse * drawn * sorted.front() / sorted[i];
    all_worse *= 1.0 - drawn;
  }
  return mean;
}

ReplayRow summarise(const std::vector<std::vector<double>>& searches, int evaluations) {
  ReplayRow row;
  row.evaluations = evaluations;
  row.worst = 1.0;
  double squares = 0.0;
  for (const std::vector<double>& shares : searches) {
    const std::size_t last = std::min(static_cast<std::size_t>(evaluations), shares.size());
    const double share = last == 0 ? 0.0 : shares[last - 1];
    row.mean += share;
    squares += share * share;
    row.worst = std::min(row.worst, share);
  }
  const auto count = static_cast<double>(searches.size());
  row.mean /= count;
  row.deviation = std::sqrt(std::max(0.0, squares / count - row.mean * row.mean));
  return row;
}

}  // namespace

double RecordedSpace::best() const {
  double best = kFailed;
  for (const auto& [choice, cost] : costs) best = std::min(best, cost);
  return best;
}

std::size_t RecordedSpace::failed() const {
  return static_cast<std::size_t>(std::count_if(
      costs.begin(), costs.end(), [](const auto& item) { return item.second == kFailed; }));
}

std::vector<ReplayRow> replay(const RecordedSpace& recorded, const Strategy& strategy,
                              const ReplayOptions& options) {
  W4_CHECK(!options.evaluations.empty() && options.seeds > 0, "something to replay");
  const double best = recorded.best();
  W4_CHECK(best < kFailed, "a recorded space needs a point that works");
  const Contenders contenders(recorded);
  std::vector<std::vector<double>> searches(static_cast<std::size_t>(options.seeds));
  std::atomic<std::size_t> next{0};
  std::atomic<bool> stopped{false};
  std::mutex progress_mutex;
  int done = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < searches.size() && !stopped; i = next++) {
      Budget budget;
      budget.evaluations =
          *std::max_element(options.evaluations.begin(), options.evaluations.end());
      budget.seed = i + 1;
      budget.least_share = options.least_share;
      budget.stop = options.stop;
      ReplayEvaluator evaluator(recorded);
      const SearchResult result = strategy.search(contenders.get(), {}, budget, evaluator);
      if (result.stopped) stopped = true;
      searches[i] = shares_of(result, best);
      const std::lock_guard lock(progress_mutex);
      options.progress(++done);
    }
  };
  std::vector<std::thread> workers;
  for (int i = 1; i < options.threads; ++i) workers.emplace_back(work);
  work();
  for (std::thread& worker : workers) worker.join();
  if (stopped) return {};

  std::vector<double> sorted;
  for (const auto& [choice, cost] : recorded.costs) sorted.push_back(cost);
  std::sort(sorted.begin(), sorted.end());
  std::vector<ReplayRow> rows;
  for (const int evaluations : options.evaluations) {
    rows.push_back(summarise(searches, evaluations));
    rows.back().random = random_mean(sorted, evaluations);
  }
  return rows;
}

}  // namespace w4tune
