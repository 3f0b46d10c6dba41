#include "tuner/measure.h"

#include <algorithm>
#include <cmath>
#include <memory>

namespace w4tune {

MeasuredGraph::MeasuredGraph(const Stream& stream, const ClockProbe& clock,
                             const Protocol& protocol, int copies, double estimate_us,
                             const LaunchOn& launch_on)
    : stream_(stream), clock_(clock) {
  // Whole rounds through the copies: each is cold again when its turn comes in the next replay.
  const double wanted =
      std::max<double>(protocol.min_launches, protocol.min_graph_us / std::max(estimate_us, 0.5));
  const int rounds = std::max(1, static_cast<int>(std::ceil(wanted / copies)));
  launches_ = rounds * copies;
  graph_ = std::make_unique<Graph>(Graph::capture(stream.handle(), [&] {
    clock_.record(stream_.handle(), 0);
    begin_.record_in_graph(stream_.handle());
    for (int i = 0; i < launches_; ++i) launch_on(stream_.handle(), i % copies);
    end_.record_in_graph(stream_.handle());
    clock_.record(stream_.handle(), 1);
  }));
}

MeasuredGraph::Sample MeasuredGraph::sample() {
  graph_->launch(stream_.handle());
  stream_.synchronize();
  return {elapsed_us(begin_, end_) / launches_, clock_.clock_mhz(0, 1)};
}

std::vector<Samples> sample_interleaved(const std::vector<MeasuredGraph*>& graphs, int rounds,
                                        const std::function<void(std::size_t)>& before) {
  std::vector<Samples> samples(graphs.size());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < graphs.size(); ++i) {
      before(i);
      const MeasuredGraph::Sample sample = graphs[i]->sample();
      samples[i].time_us.push_back(sample.time_us);
      samples[i].clock_mhz.push_back(sample.clock_mhz);
    }
  }
  return samples;
}

}  // namespace w4tune
