// Measuring: samples of the time of one launch, by the Protocol.
#pragma once

#include <functional>
#include <vector>

#include "gpu/clock_probe.h"
#include "gpu/event.h"
#include "gpu/graph.h"
#include "gpu/stream.h"
#include "tuner/protocol.h"

namespace w4tune {

// Puts one launch on weight copy `copy` into the stream; may be captured.
using LaunchOn = std::function<void(CUstream stream, int copy)>;

// A captured stretch of launches, ready to be sampled. Requires a current context.
class MeasuredGraph {
 public:
  // `estimate_us` is one launch's time as far as it is known; it sets the length of the stretch.
  MeasuredGraph(const Stream& stream, const ClockProbe& clock, const Protocol& protocol, int copies,
                double estimate_us, const LaunchOn& launch_on);

  // One replay: microseconds of a launch, and the SM clock meanwhile (0 if it could not be read).
  struct Sample {
    double time_us = 0.0;
    double clock_mhz = 0.0;
  };
  Sample sample();

 private:
  const Stream& stream_;
  const ClockProbe& clock_;
  int launches_;
  Event begin_;
  Event end_;
  std::unique_ptr<Graph> graph_;
};

// Samples of several things taken in turns, so that a drift of the GPU meets all alike.
struct Samples {
  std::vector<double> time_us;
  std::vector<double> clock_mhz;
};
// `before` is called before each sample with the index of whose it is.
std::vector<Samples> sample_interleaved(
    const std::vector<MeasuredGraph*>& graphs, int rounds,
    const std::function<void(std::size_t)>& before = [](std::size_t) {});

}  // namespace w4tune
