// w4tune doctor: everything a run needs, one line each, with the remedy for what is missing.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cache/store.h"
#include "cli/command.h"
#include "cli/options.h"
#include "generated/version.h"
#include "gpu/cublaslt.h"
#include "gpu/device.h"
#include "gpu/nvrtc.h"
#include "tuner/compiler.h"
#include "tuner/gpu_session.h"
#include "tuner/probe.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

struct Options {
  std::string db;
  bool json = false;
};

enum class Health { kOk, kWarning, kMissing };

struct Finding {
  std::string what;
  Health health = Health::kOk;
  std::string text;
};

const char* to_text(Health health) {
  return health == Health::kOk ? "ok" : health == Health::kWarning ? "warning" : "missing";
}

Finding check_nvrtc() {
  try {
    const Nvrtc& nvrtc = Nvrtc::get();
    return {"NVRTC", Health::kOk, fmt::format("{} ({})", nvrtc.version(), nvrtc.path())};
  } catch (const Error& error) {
    return {"NVRTC", Health::kMissing, error.what()};
  }
}

std::vector<Finding> check_gpus() {
  const int count = device_count();
  if (count == 0) return {{"GPU", Health::kMissing, no_device_reason()}};
  std::vector<Finding> findings = {{"driver", Health::kOk, "CUDA " + driver_version()}};
  for (int i = 0; i < count; ++i) {
    const DeviceInfo device = query_device(i);
    const bool usable = device.sm >= 80;
    findings.push_back(
        {fmt::format("GPU {}", i), usable ? Health::kOk : Health::kWarning,
         fmt::format("{}, sm_{}, {} SMs, {:.0f} MB L2{}", device.name, device.sm, device.sm_count,
                     static_cast<double>(device.l2_bytes) / (1 << 20),
                     usable ? "" : ": the kernels need compute capability 8.0")});
  }
  return findings;
}

// What the tensor cores of each GPU do with FP16 denormals, which dequantisations 2 and 3 rest on.
std::vector<Finding> check_denormals() {
  constexpr const char* kWhat = "denormals";
  if (device_count() == 0) {
    return {{kWhat, Health::kOk,
             "no GPU to probe: predictions leave out dequantisations 2 and 3, which need tensor "
             "cores that take FP16 denormals"}};
  }
  std::vector<Finding> findings;
  for (int i = 0; i < device_count(); ++i) {
    const DeviceInfo device = query_device(i);
    if (device.sm < 80) continue;
    try {
      Compiler compiler(arch_name(device.sm), "", 1, nullptr);
      const GpuSession gpu(i, 0, compiler.utilities().cubin);
      const bool taken = probe_mma_denormals(gpu.utilities(), gpu.stream());
      findings.push_back({kWhat, Health::kOk,
                          fmt::format("GPU {}: mma.sync {} FP16 denormals: dequantisations 2 and 3 "
                                      "{} searched",
                                      i, taken ? "takes" : "flushes", taken ? "are" : "are not")});
    } catch (const Error& error) {
      findings.push_back({kWhat, Health::kWarning, error.what()});
    }
  }
  return findings;
}

Finding check_cublaslt() {
  try {
    return {"cuBLASLt", Health::kOk, CublasLt::get().version()};
  } catch (const Error& error) {
    return {"cuBLASLt", Health::kWarning,
            std::string(error.what()) + " Only the FP16 baseline needs it."};
  }
}

Finding check_cache(const std::string& path) {
  if (!std::filesystem::exists(path)) {
    return {"cache", Health::kOk, fmt::format("{} does not exist yet; tuning makes it", path)};
  }
  try {
    const Store store = Store::open(path, Store::Mode::kReadOnly);
    std::string devices;
    for (const DeviceInfo& device : store.devices()) {
      devices += fmt::format("{}{}: {} winners", devices.empty() ? "" : ", ", device.name,
                             store.winners(device).size());
    }
    return {"cache", Health::kOk,
            fmt::format("{} ({})", path, devices.empty() ? "empty" : devices)};
  } catch (const Error& error) {
    return {"cache", Health::kMissing, error.what()};
  }
}

int run(const Options& options) {
  std::vector<Finding> findings = {
      {"w4tune", Health::kOk, fmt::format("{} ({})", kVersion, kCommit)}};
  findings.push_back(check_nvrtc());
  const std::vector<Finding> gpus = check_gpus();
  findings.insert(findings.end(), gpus.begin(), gpus.end());
  const std::vector<Finding> denormals = check_denormals();
  findings.insert(findings.end(), denormals.begin(), denormals.end());
  findings.push_back(check_cublaslt());
  findings.push_back(check_cache(options.db));
  const bool compiles = findings[1].health == Health::kOk;
  const bool measures = device_count() > 0;
  if (options.json) {
    nlohmann::json document = nlohmann::json::array();
    for (const Finding& finding : findings) {
      document.push_back(
          {{"what", finding.what}, {"health", to_text(finding.health)}, {"text", finding.text}});
    }
    fmt::print("{}\n", document.dump(1));
  } else {
    for (const Finding& finding : findings) {
      fmt::print("{:<8}  {:<9} {}\n", to_text(finding.health), finding.what, finding.text);
    }
    fmt::print("{}\n", !compiles  ? "This machine can't tune: NVRTC is missing."
                       : measures ? "This machine can tune its GPU and predict for others."
                                  : "This machine can predict (w4tune --gpu a40) but not measure.");
  }
  if (!compiles) return kExitFailed;
  return measures ? kExitOk : kExitNoDevice;
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("doctor", "Check toolkit, driver, GPU and cache");
  command->footer("Exit codes: 0 ready to measure, 1 the toolkit is missing, 3 no usable GPU.");
  add_db_option(*command, options->db);
  add_cuda_path_option(*command);
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune
