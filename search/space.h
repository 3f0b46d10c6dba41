// Space: the discrete points a tuner may try, with the reasons why the others may not be tried.
//
// Knows no GPU and no GEMM. Values are ints; a Point holds one value per parameter, in order.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace w4tune {

struct Parameter {
  std::string name;
  std::vector<int> values;  // in ascending order
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

  [[nodiscard]] Enumeration enumerate() const;

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

  [[nodiscard]] bool holds(const Check& check, const Point& point) const;
  void descend(std::size_t depth, Point& point, Enumeration& into) const;

  std::vector<Parameter> parameters_;
  std::vector<Constraint> constraints_;
  std::vector<std::vector<Check>> checks_;     // by the last parameter each constraint reads
  std::vector<std::uint64_t> subtree_counts_;  // raw points below each depth
};

}  // namespace w4tune
