// ClockProbe: reads the SM clock that a stretch of GPU work ran at.
//
// record() puts a one-thread kernel of a few microseconds into a stream or a capture; put one
// before the work and one after it, outside of what is timed. Belongs to the context it was made
// in.
#pragma once

#include <cuda.h>

#include "gpu/buffer.h"
#include "gpu/module.h"

namespace w4tune {

class ClockProbe {
 public:
  // `slots` readings are kept, numbered from 0. Throws Error{kDevice} where the driver cannot
  // compile the probe.
  explicit ClockProbe(int slots);

  // May be captured; each launch of the graph then overwrites the slot.
  void record(CUstream stream, int slot) const;

  // Mean clock in MHz between two readings whose stream has been synchronised. 0 when they cannot
  // be compared: taken on different SMs, never taken, or in the wrong order.
  [[nodiscard]] double clock_mhz(int slot_begin, int slot_end) const;

 private:
  int slots_;
  Buffer readings_;
  Kernel kernel_;
};

}  // namespace w4tune
