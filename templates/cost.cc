#include "templates/cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace w4tune {
namespace {

// Where there is no calibration: shares of the data sheet. The H200's were measured (copy 4.27 of
// 4.8 TB/s; mma.sync 625 of 989 TFLOP/s, the rest needs wgmma); those of other devices are
// assumptions until a probe runs there.
constexpr double kDramShare = 0.89;
constexpr double kMmaShareHopper = 0.63;
constexpr double kMmaShare = 0.90;
// Measured on an H200: an mma.sync keeps its scheduler from issuing anything else for 6.2 cycles,
// and with that counted 90 % of the slots are reached. Elsewhere neither is known.
constexpr double kIssueShareHopper = 0.90;
constexpr double kIssueShare = 0.70;
constexpr double kMmaSlotsHopper = 6.2;
constexpr double kL2BytesPerClockHopper = 64.0;  // an SM; at 24 good narrow tiles rank too low
constexpr double kL2BytesPerClock = 24.0;

constexpr double kLaunchUs = 2.0;
constexpr double kReduceUsHopper = 2.0;
constexpr double kReduceUs = 1.5;
constexpr double kClusterUs = 1.5;

// What a probe cannot measure by itself, in terms of what it can. On an H200 a launch spends 0.6 us
// as an empty kernel would and 1.4 more until the first data have come and after the last product;
// a dependent read took 0.58 us there. A cluster's reduction was assumed in proportion as well.
constexpr double kFillLatencies = 2.4;
constexpr double kClusterOverReduce = kClusterUs / kReduceUsHopper;

constexpr double kOverlapNorm = 4.0;

constexpr double kRegistersPerSm = 65536.0;
constexpr double kReservedSmemPerCta = 1024.0;

// Bandwidth while `in_flight` bytes are under way to all SMs together.
double read_gbps(double in_flight, const DeviceInfo& device, const Rates& rates) {
  if (device.calibration) return read_gbps_at(*device.calibration, in_flight / device.sm_count);
  const double x = in_flight / (rates.dram_gbps * 1e3 * rates.dram_latency_us);  // Little
  return rates.dram_gbps * x / std::pow(1.0 + std::pow(x, 4.0), 0.25);
}

}  // namespace

Rates rates_of(const DeviceInfo& device) {
  const bool hopper = device.sm >= 90;
  const double clock_hz = device.clock_mhz * 1e6;
  Rates rates;
  rates.dram_gbps = device.dram_gbps * kDramShare;
  rates.dram_latency_us = hopper ? 0.8 : 0.6;
  rates.l2_gbps =
      device.sm_count * (hopper ? kL2BytesPerClockHopper : kL2BytesPerClock) * clock_hz * 1e-9;
  rates.mma_tflops = device.mma_tflops * (hopper ? kMmaShareHopper : kMmaShare);
  rates.launch_us = kLaunchUs;
  rates.reduce_us = hopper ? kReduceUsHopper : kReduceUs;
  rates.reduce_sm_gbps = rates.l2_gbps / device.sm_count;
  rates.cluster_us = kClusterUs;
  rates.issue_hz = 4.0 * clock_hz * (hopper ? kIssueShareHopper : kIssueShare);
  rates.mma_slots = hopper ? kMmaSlotsHopper : 1.0;
  if (!device.calibration) return rates;
  const Calibration& measured = *device.calibration;
  rates.dram_gbps = measured.read_gbps;
  rates.dram_latency_us = loaded_latency_us(measured, device.sm_count);
  rates.mma_tflops = measured.mma_sync_tflops;
  rates.launch_us = measured.launch_us + kFillLatencies * rates.dram_latency_us;
  rates.reduce_us = measured.reduce_us;
  rates.reduce_sm_gbps = measured.reduce_sm_gbps;
  rates.cluster_us = kClusterOverReduce * measured.reduce_us;
  return rates;
}

std::vector<std::string> describe(const Rates& rates, const DeviceInfo& device) {
  const double clock_hz = device.clock_mhz * 1e6;
  const auto share = [](double rate, double sheet) {
    return sheet > 0.0
               ? fmt::format("{:.0f} % of the data sheet's {:g}", 100.0 * rate / sheet, sheet)
               : std::string("the data sheet is not known");
  };
  std::vector<std::string> lines = {
      fmt::format("DRAM {:.0f} GB/s, {}; {:.1f} us a dependent read", rates.dram_gbps,
                  share(rates.dram_gbps, device.dram_gbps), rates.dram_latency_us),
      fmt::format("L2 {:.0f} GB/s, {:.0f} bytes a clock for each of {} SMs at {} MHz; {} MB, whose "
                  "misses are not counted",
                  rates.l2_gbps, rates.l2_gbps * 1e9 / (device.sm_count * clock_hz),
                  device.sm_count, device.clock_mhz, device.l2_bytes >> 20),
      fmt::format("tensor cores {:.0f} TFLOP/s by mma.sync, {}", rates.mma_tflops,
                  share(rates.mma_tflops, device.mma_tflops)),
      fmt::format("issue {:.1f} G warp instructions a second and SM, {:.0f} % of 4 a clock; an "
                  "mma.sync takes {:g}",
                  rates.issue_hz * 1e-9, 100.0 * rates.issue_hz / (4.0 * clock_hz),
                  rates.mma_slots),
      fmt::format("launch {:.1f} us, split reduction {:.1f} us", rates.launch_us, rates.reduce_us),
      fmt::format("shared memory {} KB a block, {} KB an SM", device.smem_block_bytes >> 10,
                  device.smem_sm_bytes >> 10),
  };
  if (device.calibration) {
    lines.push_back(
        fmt::format("measured on {}: DRAM, tensor cores, {:.1f} us of the launch, split reduction",
                    device.calibration->measured_at, device.calibration->launch_us));
  }
  return lines;
}

Cost predict(const Work& work, const DeviceInfo& device, const Rates& rates) {
  const double sms = device.sm_count;
  const double ctas = work.plan.grid;
  const double threads = work.plan.threads;
  const double by_smem = std::floor(static_cast<double>(device.smem_sm_bytes) /
                                    (work.plan.smem_bytes + kReservedSmemPerCta));
  const double by_threads = std::floor(device.threads_per_sm / threads);
  const double by_registers = std::floor(kRegistersPerSm / (work.registers * threads));
  const double resident = std::max(1.0, std::min({by_smem, by_threads, by_registers}));

  // The busiest SM against the average: 1 when the CTAs divide evenly. CTAs that share an SM share
  // its units, so what counts is how many each SM computes in all, not how many run at a time.
  const double busiest = std::ceil(ctas / sms) * sms / ctas;
  // Reads are served by the whole memory system: idle SMs cost little while the others ask for
  // enough.
  const double asking = std::min(ctas, sms * resident);
  const double waves = std::ceil(ctas / (sms * resident));

  Cost cost;
  cost.launch_us = rates.launch_us + (waves - 1.0) * rates.dram_latency_us;
  cost.dram_us = work.dram_bytes / (read_gbps(asking * work.in_flight_bytes, device, rates) * 1e3);
  cost.l2_us = work.l2_bytes * busiest / (rates.l2_gbps * 1e3);
  cost.mma_us = work.mma_flops * busiest / (rates.mma_tflops * 1e6);
  cost.issue_us = work.warp_instructions * busiest / (sms * rates.issue_hz) * 1e6;
  if (work.plan.cluster > 1) {
    cost.reduce_us = rates.cluster_us;
  } else if (work.plan.schedule.split_k > 1) {
    // Written by all, but read by the last arriver of each tile alone.
    const double read =
        static_cast<double>(work.plan.partial_bytes) * work.plan.schedule.split_k / ctas;
    cost.reduce_us = rates.reduce_us + read / (rates.reduce_sm_gbps * 1e3);
  }
  // A step's data must have come before it begins: with few stages the latency shows.
  cost.latency_us = waves * work.steps * rates.dram_latency_us / std::max(1, work.stages - 1);
  // Overlap is never perfect: a high norm lets the second largest term be felt.
  double sum = 0.0;
  for (const double term :
       {cost.dram_us, cost.l2_us, cost.mma_us, cost.issue_us, cost.latency_us}) {
    sum += std::pow(term, kOverlapNorm);
  }
  cost.total_us = cost.launch_us + cost.reduce_us + std::pow(sum, 1.0 / kOverlapNorm);
  return cost;
}

double floor_us(const Workload& workload, double gbps, double tflops) {
  return std::max(bytes_moved(workload) / (gbps * 1e3), operations(workload) / (tflops * 1e6));
}

}  // namespace w4tune
