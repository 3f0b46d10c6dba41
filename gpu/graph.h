// Graph: work captured from a stream once and launched many times.
//
// Modules, buffers and events that the captured work uses must outlive it.
#pragma once

#include <cuda.h>

#include <functional>

namespace w4tune {

class Graph {
 public:
  // Captures what `work` puts into `stream`; other threads may go on using the GPU meanwhile. The
  // capture also ends when `work` throws; the exception passes through. The driver refuses calls
  // that synchronise or allocate within a capture.
  static Graph capture(CUstream stream, const std::function<void()>& work);

  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&& other) noexcept;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph();

  void launch(CUstream stream) const;

 private:
  explicit Graph(CUgraphExec exec) : exec_(exec) {}

  CUgraphExec exec_ = nullptr;
};

// Lets this thread allocate and load while it, or another thread, captures a graph.
class RelaxedCapture {
 public:
  RelaxedCapture();
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;
  ~RelaxedCapture();

 private:
  CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

}  // namespace w4tune
