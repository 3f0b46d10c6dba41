#include "tests/twin/race_watch.h"

#include <algorithm>
#include <utility>

namespace w4::twin {
namespace {

void merge(ClockTimes& into, const ClockTimes& from) {
  if (into.size() < from.size()) into.resize(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

}  // namespace

void Clock::acquire_and_release(ClockTimes& place) {
  release(place);
  seen = std::make_shared<const ClockTimes>(place);
}

void Clock::acquire(const ClockTimes& place) {
  auto times = std::make_shared<ClockTimes>(*seen);
  merge(*times, place);
  seen = std::move(times);
}

void Clock::release(ClockTimes& place) {
  merge(place, *seen);
  place[thread] = now;
  ++now;
}

bool Clock::has_seen(std::uint32_t other, std::uint32_t time) const {
  return other == thread || (other < seen->size() && (*seen)[other] >= time);
}

void synchronize(const std::vector<Clock*>& clocks, const ClockTimes& released) {
  auto seen = std::make_shared<ClockTimes>(*clocks.front()->seen);
  merge(*seen, released);
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
  return earlier.time != 0 && !clock.has_seen(earlier.thread, earlier.time);
}

RaceWatch::Page& RaceWatch::page(std::uint64_t number) {
  if (number != last_number_) {
    std::unique_ptr<Page>& page = pages_[number];
    if (page == nullptr) page = std::make_unique<Page>();
    last_number_ = number;
    last_page_ = page.get();
  }
  return *last_page_;
}

// Visits the cells of an access; the first that complains ends it.
template <class Visit>
std::optional<Conflict> RaceWatch::visit(std::uint64_t address, std::size_t bytes,
                                         Visit visit_cell) {
  Cell* cell = &page(address / kPageBytes)[address % kPageBytes / kCellBytes];
  for (std::uint64_t at = address; at < address + bytes; at += kCellBytes, ++cell) {
    if (std::optional<Conflict> conflict = visit_cell(at, *cell)) return conflict;
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
    std::erase_if(cell.other_reads, [&](const Access& read) { return !conflicts(clock, read); });
    if (conflicts(clock, cell.read)) cell.other_reads.push_back(cell.read);
    cell.read = {clock.thread, clock.now};
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
    const auto is_unseen = [&](const Access& read) { return conflicts(clock, read); };
    if (is_unseen(cell.read)) {
      return Conflict{"writes without waiting for a read", cell.read.thread, at};
    }
    const auto other = std::find_if(cell.other_reads.begin(), cell.other_reads.end(), is_unseen);
    if (other != cell.other_reads.end()) {
      return Conflict{"writes without waiting for a read", other->thread, at};
    }
    cell.other_reads.clear();
    cell.read = {};
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

void RaceWatch::land(const Clock& writer, std::uint64_t address, std::size_t bytes) {
  visit(address, bytes, [&](std::uint64_t, Cell& cell) -> std::optional<Conflict> {
    cell.copy = {};
    cell.write = {writer.thread, writer.now};
    return std::nullopt;
  });
}

bool RaceWatch::was_written(std::uint64_t address, std::size_t bytes) {
  return visit(address, bytes,
               [](std::uint64_t at, Cell& cell) -> std::optional<Conflict> {
                 if (cell.write.time == 0) return std::nullopt;
                 return Conflict{"reads what was written, a write", cell.write.thread, at};
               })
      .has_value();
}

}  // namespace w4::twin
