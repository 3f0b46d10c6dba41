#include "gpu/event.h"

#include <utility>

#include "gpu/driver.h"

namespace w4tune {

Event::Event() { check(driver().event_create(&event_, CU_EVENT_DEFAULT), "cuEventCreate"); }

Event::Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(event_, other.event_);
  return *this;
}

Event::~Event() {
  if (event_ != nullptr) driver().event_destroy(event_);
}

void Event::record(CUstream stream) {
  check(driver().event_record(event_, stream), "cuEventRecord");
}

void Event::record_in_graph(CUstream stream) {
  check(driver().event_record_with_flags(event_, stream, CU_EVENT_RECORD_EXTERNAL),
        "cuEventRecordWithFlags");
}

void Event::synchronize() const { check(driver().event_synchronize(event_), "cuEventSynchronize"); }

double elapsed_us(const Event& start, const Event& end) {
  float milliseconds = 0.0F;
  check(driver().event_elapsed_time(&milliseconds, start.handle(), end.handle()),
        "cuEventElapsedTime");
  return 1e3 * static_cast<double>(milliseconds);
}

}  // namespace w4tune
