// RaceWatch: which thread touched which 2 bytes when, and whether something ordered the accesses.
//
// A Clock counts a thread's own time in steps of its synchronisations, and knows for every thread
// of the launch the time up to which it has seen that thread's work. An access conflicts with an
// earlier one of another thread, one of the two a write, unless the clock has seen its time. What a
// copy engine brings for one mbarrier counts as a thread's work, too.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

namespace w4::twin {

using ClockTimes = std::vector<std::uint32_t>;  // by thread; 0 for those behind the end

struct Clock {
  std::uint32_t thread = 0;
  std::uint32_t now = 1;
  std::shared_ptr<const ClockTimes> seen;  // shared by all who left a barrier together

  // What others released at one place is seen from here on, and what this thread has seen and done
  // goes there.
  void acquire_and_release(ClockTimes& place);
  void acquire(const ClockTimes& place);
  void release(ClockTimes& place);

  // Whether what `other` did at `time` has been seen.
  [[nodiscard]] bool has_seen(std::uint32_t other, std::uint32_t time) const;
};

// A barrier: everyone has seen what any of them has seen or done, and what was released there.
void synchronize(const std::vector<Clock*>& clocks, const ClockTimes& released = {});

struct Conflict {
  const char* what;     // the two accesses, up to "of"
  std::uint32_t other;  // thread of the earlier one
  std::uint64_t address;
};

// Addresses are those of aligned accesses.
class RaceWatch {
 public:
  std::optional<Conflict> read(const Clock& clock, std::uint64_t address, std::size_t bytes);
  std::optional<Conflict> write(const Clock& clock, std::uint64_t address, std::size_t bytes);

  // From launch to landing nobody may touch the destination of a copy.
  std::optional<Conflict> launch_copy(const Clock& clock, std::uint64_t address, std::size_t bytes);
  // `writer` has written, at its time.
  void land(const Clock& writer, std::uint64_t address, std::size_t bytes);

  [[nodiscard]] bool was_written(std::uint64_t address, std::size_t bytes);

 private:
  struct Access {
    std::uint32_t thread = 0;
    std::uint32_t time = 0;  // 0: never
  };
  struct Cell {
    Access write;
    Access copy;  // in flight
    // Reads since the last write, of which none has seen another: the latest, and the others.
    Access read;
    std::vector<Access> other_reads;
  };
  static constexpr std::uint64_t kCellBytes = 2;
  static constexpr std::uint64_t kPageBytes = 1024;  // no aligned access is in two pages
  using Page = std::array<Cell, kPageBytes / kCellBytes>;

  static bool conflicts(const Clock& clock, const Access& earlier);
  Page& page(std::uint64_t number);
  template <class Visit>
  std::optional<Conflict> visit(std::uint64_t address, std::size_t bytes, Visit visit_cell);

  std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages_;
  std::uint64_t last_number_ = ~std::uint64_t{0};  // of the page used last
  Page* last_page_ = nullptr;
};

}  // namespace w4::twin
