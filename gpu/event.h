// Event: a point in time on the GPU, taken when the work before it in its stream is done.
#pragma once

#include <cuda.h>

namespace w4tune {

class Event {
 public:
  Event();
  Event(Event&& other) noexcept;
  Event& operator=(Event&& other) noexcept;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event();

  void record(CUstream stream);

  // Within a capture: makes a node that records the event at every launch of the graph.
  void record_in_graph(CUstream stream);

  void synchronize() const;

  [[nodiscard]] CUevent handle() const { return event_; }

 private:
  CUevent event_ = nullptr;
};

// Microseconds between two recorded events that have both happened.
double elapsed_us(const Event& start, const Event& end);

}  // namespace w4tune
