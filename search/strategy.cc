#include "search/strategy.h"

#include <fmt/format.h>

#include <array>

#include "search/session.h"
#include "w4tune/error.h"

namespace w4tune {

SearchResult exhaustive(std::span<const Contender> contenders, std::span<const Choice> seeds,
                        const Budget& budget, Evaluator& evaluator) {
  Session session(contenders, budget, evaluator);
  bool more = session.evaluate(seeds);
  for (std::size_t space = 0; more && space < contenders.size(); ++space) {
    session.space(space).for_each([&](const Point& point) {
      const Choice choice{space, point};
      more = session.evaluate({&choice, 1});
      return more;
    });
  }
  return session.take();
}

SearchResult at_random(std::span<const Contender> contenders, std::span<const Choice> seeds,
                       const Budget& budget, Evaluator& evaluator) {
  Session session(contenders, budget, evaluator);
  if (session.evaluate(seeds)) session.evaluate(random_choices(contenders, budget));
  return session.take();
}

std::span<const Strategy> strategies() {
  static constexpr std::array kAll = {
      Strategy{"surrogate", "greatest expected improvement by a Gaussian process", surrogate},
      Strategy{"greedy", "iterated local search among Hamming neighbours", greedy},
      Strategy{"ranked", "a model's ranking, then the neighbours of the best",
               ranked_then_neighbours},
      Strategy{"random", "points at random", at_random},
      Strategy{"exhaustive", "every point in order", exhaustive},
  };
  return kAll;
}

std::string strategy_names() {
  std::string names;
  for (const Strategy& strategy : strategies()) {
    if (!names.empty()) names += ", ";
    names += strategy.name;
  }
  return names;
}

const Strategy& find_strategy(std::string_view name) {
  for (const Strategy& strategy : strategies()) {
    if (strategy.name == name) return strategy;
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("strategy '{}' is not known. Use one of: {}.", name, strategy_names()));
}

}  // namespace w4tune
