#include "tests/twin/race_watch.h"

#include <algorithm>

namespace w4::twin {
namespace {

void merge(ClockTimes& into, const ClockTimes& from) {
  if (into.empty()) into.resize(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

}  // namespace

void Clock::acquire_and_release(ClockTimes& place) {
  merge(place, *seen);
  place[thread] = now;
  seen = std::make_shared<const ClockTimes>(place);
  ++now;
}

void synchronize(const std::vector<Clock*>& clocks) {
  auto seen = std::make_shared<ClockTimes>(*clocks.front()->seen);
  const ClockTimes* merged = clocks.front()->seen.get();
  for (const Clock* clock : clocks) {
    if (clock->seen.get() != merged) merge(*seen, *clock->seen);
    merged = clock->seen.get();
  }
  for (const Clock* clock : clocks) (*seen)[clock->thread] = clock->now;
  for (Clock* clock : clocks) {
    clock->seen = seen;
    ++clock->now;
  }
}

bool RaceWatch::conflicts(const Clock& clock, const Access& earlier) {
  return earlier.time != 0 && earlier.thread != clock.thread &&
         (*clock.seen)[earlier.thread] < earlier.time;
}

RaceWatch::Cell& RaceWatch::cell(std::uint64_t number) {
  if (number / kPageCells != last_number_) {
    std::unique_ptr<Page>& page = pages_[number / kPageCells];
    if (page == nullptr) page = std::make_unique<Page>();
    last_number_ = number / kPageCells;
    last_page_ = page.get();
  }
  return (*last_page_)[number % kPageCells];
}

// Visits the cells of an access; the first that complains ends it.
template <class Visit>
std::optional<Conflict> RaceWatch::visit(std::uint64_t address, std::size_t bytes,
                                         Visit visit_cell) {
  for (std::uint64_t at = address; at < address + bytes; at += kCellBytes) {
    if (std::optional<Conflict> conflict = visit_cell(at, cell(at / kCellBytes))) return conflict;
  }
  return std::nullopt;
}

std::optional<Conflict> RaceWatch::read(const Clock& clock, std::uint64_t address,
                                        std::size_t bytes) {
  return visit(address, bytes, [&](std::uint64_t at, Cell& cell) -> std::optional<Conflict> {
    if (cell.copy.time != 0) {
      return Conflict{"reads what a copy has not brought yet, a copy", cell.copy.thread, at};
    }
    if (conflicts(clock, cell.write)) {
      return Conflict{"reads without waiting for a write", cell.write.thread, at};
    }
    // Whoever waits for this read waits for the reads that it has seen.
    std::erase_if(cell.reads, [&](const Access& read) { return !conflicts(clock, read); });
    cell.reads.push_back({clock.thread, clock.now});
    return std::nullopt;
  });
}

std::optional<Conflict> RaceWatch::write(const Clock& clock, std::uint64_t address,
                                         std::size_t bytes) {
  return visit(address, bytes, [&](std::uint64_t at, Cell& cell) -> std::optional<Conflict> {
    if (cell.copy.time != 0) {
      return Conflict{"writes where a copy is in flight, a copy", cell.copy.thread, at};
    }
    if (conflicts(clock, cell.write)) {
      return Conflict{"writes without waiting for a write", cell.write.thread, at};
    }
    for (const Access& read : cell.reads) {
      if (conflicts(clock, read)) {
        return Conflict{"writes without waiting for a read", read.thread, at};
      }
    }
    cell.reads.clear();
    cell.write = {clock.thread, clock.now};
    return std::nullopt;
  });
}

std::optional<Conflict> RaceWatch::launch_copy(const Clock& clock, std::uint64_t address,
                                               std::size_t bytes) {
  if (std::optional<Conflict> conflict = write(clock, address, bytes)) return conflict;
  return visit(address, bytes, [&](std::uint64_t, Cell& cell) -> std::optional<Conflict> {
    cell.copy = {clock.thread, clock.now};
    return std::nullopt;
  });
}

void RaceWatch::land(const Clock& clock, std::uint64_t address, std::size_t bytes) {
  visit(address, bytes, [&](std::uint64_t, Cell& cell) -> std::optional<Conflict> {
    cell.copy = {};
    cell.write = {clock.thread, clock.now};
    return std::nullopt;
  });
}

bool RaceWatch::was_written(std::uint64_t address, std::size_t bytes) const {
  for (std::uint64_t at = address; at < address + bytes; at += kCellBytes) {
    const auto page = pages_.find(at / kCellBytes / kPageCells);
    if (page == pages_.end()) continue;
    if ((*page->second)[at / kCellBytes % kPageCells].write.time != 0) return true;
  }
  return false;
}

}  // namespace w4::twin
