#include "search/strategy.h"

#include <algorithm>
#include <set>

namespace w4tune {
namespace {

class Search {
 public:
  Search(const Space& space, const Budget& budget, Evaluator& evaluator)
      : space_(space), budget_(budget), evaluator_(evaluator) {}

  // Evaluates the points not seen yet until `limit` evaluations were made in all. Returns false
  // when the search must end.
  bool evaluate(std::span<const Point> points, int limit) {
    std::vector<Point> fresh;
    const auto room = static_cast<std::size_t>(std::max(0, limit - count()));
    for (const Point& point : points) {
      if (fresh.size() == room) break;
      if (space_.contains(point) && seen_.insert(point).second) fresh.push_back(point);
    }
    evaluator_.announce(fresh);
    for (const Point& point : fresh) {
      if (budget_.stop()) {
        result_.stopped = true;
        return false;
      }
      result_.evaluations.push_back({point, evaluator_.evaluate(point)});
    }
    return count() < budget_.evaluations;
  }

  [[nodiscard]] int count() const { return static_cast<int>(result_.evaluations.size()); }

  // Points evaluated so far, best first; failed ones are left out.
  [[nodiscard]] std::vector<Evaluation> ordered() const {
    std::vector<Evaluation> good;
    std::copy_if(result_.evaluations.begin(), result_.evaluations.end(), std::back_inserter(good),
                 [](const Evaluation& e) { return e.cost < kFailed; });
    std::stable_sort(good.begin(), good.end(),
                     [](const Evaluation& a, const Evaluation& b) { return a.cost < b.cost; });
    return good;
  }

  [[nodiscard]] std::vector<Point> unseen_neighbours(const Point& point) const {
    std::vector<Point> fresh = space_.neighbours(point);
    fresh.erase(std::remove_if(fresh.begin(), fresh.end(),
                               [&](const Point& p) { return seen_.count(p) > 0; }),
                fresh.end());
    return fresh;
  }

  SearchResult take() { return std::move(result_); }

 private:
  const Space& space_;
  const Budget& budget_;
  Evaluator& evaluator_;
  std::set<Point> seen_;
  SearchResult result_;
};

// Neighbours are taken a few at a time, so that a better one found early moves the centre.
constexpr int kNeighbourBatch = 8;

}  // namespace

SearchResult ranked_then_neighbours(const Space& space, std::span<const Point> seeds,
                                    std::span<const Point> ranked, const Budget& budget,
                                    Evaluator& evaluator) {
  Search search(space, budget, evaluator);
  const int ranked_limit = std::max(1, static_cast<int>(budget.ranked_share * budget.evaluations));
  bool more = search.evaluate(seeds, budget.evaluations) &&
              search.evaluate(ranked, std::max(ranked_limit, search.count()));
  while (more) {
    bool found = false;
    for (const Evaluation& centre : search.ordered()) {
      std::vector<Point> next = search.unseen_neighbours(centre.point);
      if (next.empty()) continue;
      next.resize(std::min<std::size_t>(next.size(), kNeighbourBatch));
      more = search.evaluate(next, budget.evaluations);
      found = true;
      break;
    }
    if (!found) {  // no point works, or every neighbour is known: fall back on the ranking
      const int before = search.count();
      more = search.evaluate(ranked, budget.evaluations) && search.count() > before;
    }
  }
  return search.take();
}

}  // namespace w4tune
