// Protocol: how a time is taken. Its text is stored with every row; times of different protocols
// are never mixed.
//
// Cold weights: launches walk through copies of the weight that total cold_factor times the L2, so
// none is found there. A sample is one replay of a CUDA graph of at least min_launches launches,
// timed by events inside the graph, divided by the number of launches. Operands are random. What
// its first launches show to be hopeless (tuner/measuring_server.cc) has one sample, of them.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

#include "core/hash.h"
#include "core/winner.h"

namespace w4tune {

struct Protocol {
  double cold_factor = 3.0;
  int min_launches = 24;
  double min_graph_us = 300.0;  // short kernels are repeated until a replay lasts this long
  int search_samples = 5;       // for each candidate of the search
  int final_samples = 25;       // for each finalist that stays (tuner/run_off.h) and the baseline
  int finalists = 8;
  std::uint64_t seed = 1;  // of the operands
  // Candidates are launched to begin before the launch before has ended (sm_90), as in a chain of
  // layers: other kernels are then the fastest.
  bool dependent = false;

  [[nodiscard]] std::string text() const {
    return fmt::format(
        "cold weights {}x L2, graph of >= {} launches and >= {} us, medians of {} and {} samples, "
        "{} finalists halved twice, in turns with the baseline, random operands (seed {}){}{}",
        cold_factor, min_launches, min_graph_us, search_samples, final_samples, finalists, seed,
        dependent ? ", " : "", dependent ? kDependentText : "");
  }
  [[nodiscard]] std::string hash() const { return sha256_hex(text()).substr(0, 16); }
};

}  // namespace w4tune
