// w4tune probe: measures a GPU for the cost model and keeps what it found in the cache.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cache/store.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/probe_table.h"
#include "cli/status_line.h"
#include "gpu/device.h"
#include "tuner/compiler.h"
#include "tuner/gpu_session.h"
#include "tuner/probe.h"
#include "tuner/report.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

struct Options {
  int ordinal = 0;
  std::string db;
  bool json = false;
};

DeviceInfo device_at(int ordinal) {
  const int count = device_count();
  if (count == 0) {
    throw Error(ErrorCode::kNoDevice, fmt::format("no GPU to probe: {}", no_device_reason()));
  }
  if (ordinal >= count) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--device {}: this machine has {} GPU{}, numbered from 0. Use a "
                            "smaller number.",
                            ordinal, count, count == 1 ? "" : "s"));
  }
  DeviceInfo device = query_device(ordinal);
  if (device.sm < 80) {
    throw Error(ErrorCode::kNoDevice,
                fmt::format("GPU {} ({}) has compute capability {}.{}, the kernels need 8.0. Use "
                            "another by --device.",
                            ordinal, device.name, device.sm / 10, device.sm % 10));
  }
  return device;
}

int run(const Options& options) {
  DeviceInfo device = device_at(options.ordinal);
  StatusLine line(false);
  const auto on_step = [&](const std::string& what) {
    if (line.is_terminal()) {
      line.show(fmt::format("probing {}: {} ...", device.name, what));
    } else {
      line.print(fmt::format("probing {}: {}", device.name, what));
    }
  };
  on_step("compiling");
  Store store = Store::open(options.db, Store::Mode::kReadWrite);
  Compiler compiler(arch_name(device.sm), "", 1, &store);
  const GpuSession gpu(options.ordinal, 0, compiler.utilities().cubin);
  device.mma_denormals = probe_mma_denormals(gpu.utilities(), gpu.stream());
  device.calibration = probe_device(device, gpu, on_step);
  store.put_calibration(device, *device.calibration);
  line.clear();
  if (options.json) {
    fmt::print("{}\n", nlohmann::json{{"gpu", device.name},
                                      {"sm", device.sm},
                                      {"sm_count", device.sm_count},
                                      {"mma_denormals", *device.mma_denormals},
                                      {"calibration", calibration_json(*device.calibration)},
                                      {"db", options.db}}
                           .dump(1));
  } else {
    fmt::print("{}\nstored in {}: tuning for this GPU uses it\n", probe_table(device), options.db);
  }
  return kExitOk;
}

}  // namespace

void add_probe(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("probe", "Measure this GPU for the cost model");
  command->footer(
      "Bandwidths, launches, matrix rate and what a split costs, in a few seconds. tune does it "
      "by\n"
      "itself where the cache has nothing of the GPU, or of another driver.\n"
      "Examples:\n"
      "  w4tune probe\n"
      "  w4tune probe --device 1 --json");
  command->add_option("--device", options->ordinal, "Number of the GPU")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_db_option(*command, options->db);
  add_cuda_path_option(*command);
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune
