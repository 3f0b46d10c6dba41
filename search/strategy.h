// The search strategy over one or several spaces that compete: the best of their rankings first,
// then the neighbours of what won.
//
// Knows no GPU and no GEMM: an Evaluator says what a point costs. Deterministic given its inputs.
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <span>
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
  bool stopped = false;                 // the budget's stop() ended it
};

// The ranked points of all contenders, cheapest expected first, except that a contender comes early
// where its share of the list so far would else fall below `least_share`.
std::vector<Choice> merge_rankings(std::span<const Contender> contenders, double least_share);

// Evaluates `seeds` (winners of nearby workloads), then the merged rankings, then the unseen
// Hamming neighbours of the best point found, each within its own space, again from each new best,
// until the budget is spent or no neighbour is left. Neighbours come in the order of their expected
// cost; those expected to cost twice what their centre is are left for the rankings. Points outside
// their space are skipped, repeated ones evaluated once.
SearchResult ranked_then_neighbours(std::span<const Contender> contenders,
                                    std::span<const Choice> seeds, const Budget& budget,
                                    Evaluator& evaluator);

}  // namespace w4tune
