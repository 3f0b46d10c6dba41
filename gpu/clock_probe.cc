#include "gpu/clock_probe.h"

#include <cstddef>
#include <cstdint>

#include "core/check.h"

namespace w4tune {
namespace {

// What the kernel writes; all zero before the first reading.
struct Reading {
  std::uint64_t cycles;
  std::uint64_t time_ns;
  std::uint64_t sm_plus_1;
};

// The global timer advances in steps of up to a microsecond or so, hence the wait for its next step
// before the clock is read. The wait is bounded: a timer that stands still must not hang the GPU.
constexpr const char* kProbePtx = R"(.version 7.0
.target sm_80
.address_size 64
.visible .entry w4_clock_probe(.param .u64 reading)
{
  .reg .pred %same, %more, %again;
  .reg .b32 %tries, %sm;
  .reg .b64 %slot, %first, %now, %cycles, %sm_plus_1;
  ld.param.u64 %slot, [reading];
  cvta.to.global.u64 %slot, %slot;
  mov.u32 %tries, 0;
  mov.u64 %first, %globaltimer;
wait:
  mov.u64 %now, %globaltimer;
  add.u32 %tries, %tries, 1;
  setp.eq.u64 %same, %now, %first;
  setp.lt.u32 %more, %tries, 256;
  and.pred %again, %same, %more;
  @%again bra wait;
  mov.u64 %cycles, %clock64;
  mov.u32 %sm, %smid;
  cvt.u64.u32 %sm_plus_1, %sm;
  add.u64 %sm_plus_1, %sm_plus_1, 1;
  st.global.u64 [%slot], %cycles;
  st.global.u64 [%slot+8], %now;
  st.global.u64 [%slot+16], %sm_plus_1;
  ret;
}
)";

}  // namespace

ClockProbe::ClockProbe(int slots)
    : slots_(slots),
      readings_(static_cast<std::size_t>(slots) * sizeof(Reading)),
      kernel_(kProbePtx, "w4_clock_probe") {
  readings_.fill(0);
}

void ClockProbe::record(CUstream stream, int slot) const {
  W4_CHECK(slot >= 0 && slot < slots_, "no such slot of the ClockProbe");
  Reading* reading = readings_.as<Reading>() + slot;
  void* params[] = {&reading};
  launch(kernel_.function(), 1, 1, 0, stream, params);
}

double ClockProbe::clock_mhz(int slot_begin, int slot_end) const {
  W4_CHECK(slot_begin >= 0 && slot_begin < slots_ && slot_end >= 0 && slot_end < slots_,
           "no such slot of the ClockProbe");
  Reading begin{};
  Reading end{};
  readings_.download(&begin, sizeof(begin), static_cast<std::size_t>(slot_begin) * sizeof(begin));
  readings_.download(&end, sizeof(end), static_cast<std::size_t>(slot_end) * sizeof(end));
  const bool comparable = begin.sm_plus_1 != 0 && begin.sm_plus_1 == end.sm_plus_1 &&
                          end.time_ns > begin.time_ns && end.cycles > begin.cycles;
  if (!comparable) return 0.0;
  return 1e3 * static_cast<double>(end.cycles - begin.cycles) /
         static_cast<double>(end.time_ns - begin.time_ns);
}

}  // namespace w4tune
