#include "cli/probe_table.h"

#include <fmt/format.h>

#include <string_view>
#include <vector>

#include "cli/table.h"

namespace w4tune {
namespace {

std::string share_of(double value, double whole) {
  return whole > 0.0 ? fmt::format("{:.0f} %", 100.0 * value / whole) : "";
}

}  // namespace

std::string probe_table(const DeviceInfo& device) {
  const Calibration& measured = device.calibration.value();
  std::vector<std::vector<std::string>> rows = {{"what", ">measured", "unit", ">of data sheet"}};
  const auto rate = [&](const std::string& what, double value, std::string_view unit,
                        double data_sheet) {
    rows.push_back(
        {what, fmt::format("{:.0f}", value), std::string(unit), share_of(value, data_sheet)});
  };
  const auto time = [&](const std::string& what, double us) {
    rows.push_back({what, fmt::format("{:.2f}", us), "us", ""});
  };
  rate("copy, read + written", measured.copy_gbps, "GB/s", device.dram_gbps);
  rate("read, cold", measured.read_gbps, "GB/s", device.dram_gbps);
  for (const ReadPoint& point : measured.read_curve) {
    rate(fmt::format("  {:>2.0f} KB under way to each SM", point.bytes_per_sm / 1024.0), point.gbps,
         "GB/s", device.dram_gbps);
  }
  time("launch of an empty kernel", measured.launch_us);
  if (measured.dependent_launch_us > 0.0) {
    time("  as a dependent launch", measured.dependent_launch_us);
  }
  rate(fmt::format("matrix product ({})", measured.mma_source), measured.mma_tflops, "TFLOP/s",
       device.mma_tflops);
  rate("mma.sync alone", measured.mma_sync_tflops, "TFLOP/s", device.mma_tflops);
  time("split: who is last", measured.reduce_us);
  rate("split: partials added", measured.reduce_sm_gbps, "GB/s an SM", 0.0);
  const std::string clock = measured.clock_mhz > 0.0 ? fmt::format("{:.0f} MHz", measured.clock_mhz)
                                                     : std::string("unknown clock");
  return fmt::format("{} (sm_{}, {} SMs), driver {}, {} under load, {}\n\n{}", device.name,
                     device.sm, device.sm_count, measured.driver, clock, measured.measured_at,
                     format_table(rows));
}

}  // namespace w4tune
