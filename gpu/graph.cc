#include "gpu/graph.h"

#include <utility>

#include "gpu/driver.h"

namespace w4tune {

Graph Graph::capture(CUstream stream, const std::function<void()>& work) {
  CUgraph graph = nullptr;
  check(driver().stream_begin_capture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
        "cuStreamBeginCapture");
  try {
    work();
  } catch (...) {
    driver().stream_end_capture(stream, &graph);
    if (graph != nullptr) driver().graph_destroy(graph);
    throw;
  }
  check(driver().stream_end_capture(stream, &graph), "cuStreamEndCapture");

  CUgraphExec exec = nullptr;
  const CUresult result = driver().graph_instantiate(&exec, graph, 0);
  driver().graph_destroy(graph);
  check(result, "cuGraphInstantiate");
  return Graph(exec);
}

Graph::Graph(Graph&& other) noexcept : exec_(std::exchange(other.exec_, nullptr)) {}

Graph& Graph::operator=(Graph&& other) noexcept {
  std::swap(exec_, other.exec_);
  return *this;
}

Graph::~Graph() {
  if (exec_ != nullptr) driver().graph_exec_destroy(exec_);
}

RelaxedCapture::RelaxedCapture() {
  check(driver().thread_exchange_stream_capture_mode(&mode_), "cuThreadExchangeStreamCaptureMode");
}

RelaxedCapture::~RelaxedCapture() { driver().thread_exchange_stream_capture_mode(&mode_); }

void Graph::launch(CUstream stream) const {
  check(driver().graph_launch(exec_, stream), "cuGraphLaunch");
}

}  // namespace w4tune
