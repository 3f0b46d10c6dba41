// The search strategies over one or several spaces that compete, behind one interface.
//
// Know no GPU and no GEMM: an Evaluator says what a point costs. The same inputs and the same seed
// give the same evaluations, as long as no time limit ends the search.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "search/space.h"

namespace w4tune {

inline constexpr double kFailed = std::numeric_limits<double>::infinity();

// A point of one of the spaces that compete.
struct Choice {
  std::size_t space = 0;  // index into the contenders
  Point point;

  auto operator<=>(const Choice&) const = default;
};

class Evaluator {
 public:
  virtual ~Evaluator() = default;

  // Choices that will probably be evaluated soon, likeliest first, so that they can be prepared.
  virtual void announce(std::span<const Choice> choices) = 0;

  // Cost of a choice, lower is better; kFailed if it does not work. Called once per choice.
  virtual double evaluate(const Choice& choice) = 0;
};

// A point with what a model expects it to cost; expectations are comparable across spaces.
struct RankedPoint {
  Point point;
  double expected_cost = 0.0;
};

// A space that competes; what it points to outlives the search.
struct Contender {
  const Space* space = nullptr;
  std::span<const RankedPoint> ranked;  // ascending by expected cost
  // What a model expects any point of the space to cost, as in `ranked`. Empty: neighbours are
  // tried nearest values first.
  std::function<double(const Point&)> expected = {};
};

struct Budget {
  int evaluations = 64;
  double seconds = 0.0;    // wall clock; 0: no limit
  std::uint64_t seed = 1;  // of whatever a strategy leaves to chance
  // Share of the evaluations that goes to the rankings before neighbours are tried.
  double ranked_share = 0.45;
  // Of the evaluations, what each space gets at least, however little is expected of it, while it
  // has points left: the model that ranks may be wrong about a whole space.
  double least_share = 0.10;
  // Asked before every evaluation; true ends the search (time is up, the user pressed Ctrl-C).
  std::function<bool()> stop = [] { return false; };
};

struct Evaluation {
  Choice choice;
  double cost = kFailed;
};

struct SearchResult {
  std::vector<Evaluation> evaluations;  // in the order they were made
  bool stopped = false;                 // the budget's stop() or its seconds ended it
};

// Every strategy evaluates `seeds` first (winners of nearby workloads, another GPU's best), then
// goes its own way until the budget is spent or nothing is left. Points outside their space are
// skipped, repeated ones evaluated once.
using SearchFunction = SearchResult (*)(std::span<const Contender> contenders,
                                        std::span<const Choice> seeds, const Budget& budget,
                                        Evaluator& evaluator);

struct Strategy {
  std::string_view name;
  std::string_view about;  // what it does, for a list of them
  SearchFunction search;
};

// All strategies; the first is the one to take for a space that nothing is known of.
std::span<const Strategy> strategies();
// Throws Error{kInvalidArgument} with the names there are.
const Strategy& find_strategy(std::string_view name);
// "surrogate, greedy, ..."
std::string strategy_names();

// Every point in order, one space after another.
SearchResult exhaustive(std::span<const Contender> contenders, std::span<const Choice> seeds,
                        const Budget& budget, Evaluator& evaluator);

// Points drawn at random from all spaces together: what any other strategy has to beat.
SearchResult at_random(std::span<const Contender> contenders, std::span<const Choice> seeds,
                       const Budget& budget, Evaluator& evaluator);

// Greedy iterated local search: to any better Hamming neighbour while there is one, then from a
// point two steps beside the best again. Each space gets its least share.
SearchResult greedy(std::span<const Contender> contenders, std::span<const Choice> seeds,
                    const Budget& budget, Evaluator& evaluator);

// The point whose expected improvement over the best is greatest, by a Gaussian process for each
// space: of the cost, or where a model is given, of what it is wrong by. Each space gets its least
// share. Announces the next likely points each time.
SearchResult surrogate(std::span<const Contender> contenders, std::span<const Choice> seeds,
                       const Budget& budget, Evaluator& evaluator);

// The ranked points of all contenders, cheapest expected first, except that a contender comes early
// where its share of the list so far would else fall below `least_share`.
std::vector<Choice> merge_rankings(std::span<const Contender> contenders, double least_share);

// The merged rankings (random points where no space has one), then the unseen Hamming neighbours of
// the best point found, each within its own space, again from each new best. Neighbours come in the
// order of their expected cost; those expected to cost twice what their centre is are left for the
// rankings.
SearchResult ranked_then_neighbours(std::span<const Contender> contenders,
                                    std::span<const Choice> seeds, const Budget& budget,
                                    Evaluator& evaluator);

}  // namespace w4tune
