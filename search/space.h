// Space: the discrete points a tuner may try, with the reasons why the others may not be tried.
//
// Knows no GPU and no GEMM. Values are ints; a Point holds one value per parameter, in order.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "search/random.h"

namespace w4tune {

struct Parameter {
  std::string name;
  std::vector<int> values;  // in ascending order
  bool ordered = true;      // false: values are names, none nearer to one than to another
};

using Point = std::vector<int>;

// A rule every point must keep. It names what it reads, so that a whole subtree is cut as soon as
// those parameters are chosen: nothing is enumerated only to be thrown away.
struct Constraint {
  std::string reason;              // why a point that breaks it can't work or can't win
  std::vector<std::string> reads;  // parameters, in the order `holds` gets their values
  std::function<bool(std::span<const int>)> holds;
};

// Points that keep all constraints, and how many raw points each reason rejected. A point is
// counted once, for the first constraint that rejects it.
struct Enumeration {
  std::vector<Point> points;
  std::map<std::string, std::uint64_t> rejected;
  std::uint64_t raw_count = 0;
};

class Space {
 public:
  // A constraint that reads a parameter the space does not have is a programmer's error.
  Space(std::vector<Parameter> parameters, std::vector<Constraint> constraints);

  [[nodiscard]] std::span<const Parameter> parameters() const { return parameters_; }
  [[nodiscard]] std::size_t index(std::string_view name) const;
  [[nodiscard]] int value(const Point& point, std::string_view name) const {
    return point[index(name)];
  }

  // A space of exactly these points, which may be few among many: no other is ever walked.
  static Space of_points(std::vector<Parameter> parameters, std::vector<Point> points);

  // In lexicographic order of the values' positions.
  [[nodiscard]] Enumeration enumerate() const;

  // Every valid point, until `take` returns false: the way to begin with a space too large to list.
  void for_each(const std::function<bool(const Point&)>& take) const;

  // Every valid point where there are at most `most`, in the order of `enumerate`; else about
  // `drawn` different ones at random, without walking through the rest.
  [[nodiscard]] std::vector<Point> points(std::size_t most, std::size_t drawn,
                                          Random& random) const;

  // A valid point at random, each possible though not equally likely: sparse corners are drawn more
  // often. None where the space is empty, or valid points so rare that a long walk met none.
  [[nodiscard]] std::optional<Point> draw(Random& random) const;

  // Reason of the first constraint the point breaks, "" if it keeps all, and
  // "<name>: value not in the space" for a foreign value.
  [[nodiscard]] std::string why_not(const Point& point) const;
  [[nodiscard]] bool contains(const Point& point) const { return why_not(point).empty(); }

  // Valid points that differ in exactly one parameter (Hamming distance 1), nearest values first.
  [[nodiscard]] std::vector<Point> neighbours(const Point& point) const;

 private:
  struct Check {
    std::size_t constraint;  // an index, so that a Space may be copied
    std::vector<std::size_t> reads;
  };

  struct Walk;

  [[nodiscard]] bool holds(const Check& check, const Point& point) const;
  void descend(std::size_t depth, Walk& walk) const;
  void choose_order();

  std::vector<Parameter> parameters_;
  std::vector<Constraint> constraints_;
  std::vector<std::size_t> order_;             // parameters as they are chosen, one a depth
  std::vector<std::vector<Check>> checks_;     // by the depth where all a constraint reads is known
  std::vector<std::uint64_t> subtree_counts_;  // raw points below each depth
};

}  // namespace w4tune
