// The merged rankings, then the neighbours of what won.
#include <algorithm>
#include <optional>
#include <utility>

#include "search/session.h"
#include "search/strategy.h"

namespace w4tune {
namespace {

// Neighbours are taken a few at a time, so that a better one found early moves the centre.
constexpr int kNeighbourBatch = 8;
// Expected to cost this much more than its centre, a neighbour is not worth an evaluation.
constexpr double kHopeless = 2.0;

class RankedSearch {
 public:
  explicit RankedSearch(const Session& session) : session_(session) {}

  // What to try next: of the space that the next batch would leave below its share, else around the
  // best point of all. Empty when every neighbour and ranked point is known.
  [[nodiscard]] std::vector<Choice> next_batch(std::span<const Choice> ranked) const {
    const std::vector<Evaluation> good = ordered();
    const int soon = std::min(session_.budget().evaluations, session_.count() + kNeighbourBatch);
    for (std::size_t space = 0; space < session_.contenders().size(); ++space) {
      const std::size_t due = session_.due(space, soon);
      if (due == 0) continue;
      std::vector<Choice> batch = batch_of(good, ranked, space, due);
      if (!batch.empty()) return batch;
    }
    return batch_of(good, ranked, std::nullopt, kNeighbourBatch);
  }

 private:
  // Evaluations that worked, best first.
  [[nodiscard]] std::vector<Evaluation> ordered() const {
    std::vector<Evaluation> good;
    std::copy_if(session_.evaluations().begin(), session_.evaluations().end(),
                 std::back_inserter(good), [](const Evaluation& e) { return e.cost < kFailed; });
    std::stable_sort(good.begin(), good.end(),
                     [](const Evaluation& a, const Evaluation& b) { return a.cost < b.cost; });
    return good;
  }

  // `most` unseen neighbours of the best centre that has any; without one, the ranking goes on. Of
  // one space, or of all.
  [[nodiscard]] std::vector<Choice> batch_of(const std::vector<Evaluation>& good,
                                             std::span<const Choice> ranked,
                                             std::optional<std::size_t> space,
                                             std::size_t most) const {
    std::vector<Choice> batch;
    for (const Evaluation& centre : good) {
      if (space && centre.choice.space != *space) continue;
      for (Point& point : neighbours(centre.choice)) {
        add_unseen(batch, {centre.choice.space, std::move(point)}, most);
      }
      if (!batch.empty()) return batch;
    }
    for (const Choice& choice : ranked) {
      if (space && choice.space != *space) continue;
      if (session_.space(choice.space).contains(choice.point)) add_unseen(batch, choice, most);
    }
    return batch;
  }

  // Of one centre, the least expected cost first.
  [[nodiscard]] std::vector<Point> neighbours(const Choice& centre) const {
    const Contender& own = session_.contenders()[centre.space];
    std::vector<Point> all = own.space->neighbours(centre.point);
    if (!own.expected) return all;
    const double most = kHopeless * own.expected(centre.point);
    std::vector<std::pair<double, Point>> expected;
    for (Point& point : all) {
      const double cost = own.expected(point);
      if (cost <= most) expected.emplace_back(cost, std::move(point));
    }
    std::stable_sort(expected.begin(), expected.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Point> ordered;
    for (auto& [cost, point] : expected) ordered.push_back(std::move(point));
    return ordered;
  }

  void add_unseen(std::vector<Choice>& batch, Choice choice, std::size_t most) const {
    if (batch.size() < most && !session_.cost(choice)) batch.push_back(std::move(choice));
  }

  const Session& session_;
};

}  // namespace

std::vector<Choice> merge_rankings(std::span<const Contender> contenders, double least_share) {
  const double share = possible_share(least_share, contenders.size());
  std::size_t total = 0;
  for (const Contender& contender : contenders) total += contender.ranked.size();
  std::vector<std::size_t> taken(contenders.size(), 0);
  const auto has_more = [&](std::size_t i) { return taken[i] < contenders[i].ranked.size(); };
  const auto head_cost = [&](std::size_t i) {
    return contenders[i].ranked[taken[i]].expected_cost;
  };
  std::vector<Choice> merged;
  merged.reserve(total);
  while (merged.size() < total) {
    const double due = share * static_cast<double>(merged.size() + 1);
    std::optional<std::size_t> next;
    bool next_is_due = false;
    for (std::size_t i = 0; i < contenders.size(); ++i) {
      if (!has_more(i)) continue;
      const bool is_due = static_cast<double>(taken[i] + 1) <= due;
      const bool better = !next || (is_due && !next_is_due) ||
                          (is_due == next_is_due && head_cost(i) < head_cost(*next));
      if (!better) continue;
      next = i;
      next_is_due = is_due;
    }
    merged.push_back({*next, contenders[*next].ranked[taken[*next]].point});
    ++taken[*next];
  }
  return merged;
}

SearchResult ranked_then_neighbours(std::span<const Contender> contenders,
                                    std::span<const Choice> seeds, const Budget& budget,
                                    Evaluator& evaluator) {
  Session session(contenders, budget, evaluator);
  std::vector<Choice> ranked = merge_rankings(contenders, budget.least_share);
  if (ranked.empty()) ranked = random_choices(contenders, budget);
  const int ranked_limit = std::max(1, static_cast<int>(budget.ranked_share * budget.evaluations));
  bool more =
      session.evaluate(seeds) && session.evaluate(ranked, std::max(ranked_limit, session.count()));
  const RankedSearch search(session);
  while (more) {
    const std::vector<Choice> batch = search.next_batch(ranked);
    if (batch.empty()) break;
    more = session.evaluate(batch);
  }
  return session.take();
}

}  // namespace w4tune
