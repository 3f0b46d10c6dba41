#include "cli/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "gpu/device.h"
#include "gpu/shared_library.h"
#include "search/strategy.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

[[noreturn]] void invalid(const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message);
}

// A number and the letter behind it.
std::pair<double, std::string> parse_quantity(const std::string& text, const char* option,
                                              const char* example) {
  std::size_t used = 0;
  double value = -1.0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || value < 0.0) {
    invalid(fmt::format("{} '{}' is not a quantity. Write it like {}.", option, text, example));
  }
  return {value, text.substr(used)};
}

// -1 for what is no small whole number.
int parse_number(const std::string& text) {
  constexpr std::size_t kMostDigits = 6;
  const bool is_number = !text.empty() && text.size() <= kMostDigits &&
                         std::all_of(text.begin(), text.end(), [](char c) {
                           return std::isdigit(static_cast<unsigned char>(c)) != 0;
                         });
  return is_number ? std::stoi(text) : -1;
}

std::pair<int, int> parse_shape(const std::string& text) {
  int n = 0;
  int k = 0;
  char comma = 0;
  std::istringstream stream(text);
  if (!(stream >> n >> comma >> k) || (comma != ',' && comma != 'x') || !stream.eof()) {
    invalid(fmt::format("--shape '{}' is not N,K. Write it like --shape 16384,2048.", text));
  }
  return {n, k};
}

int parse_group(const std::string& text) {
  if (text.empty()) return 0;
  if (text == "channel") return -1;
  for (const char c : text) {
    if (std::isdigit(static_cast<unsigned char>(c)) == 0 || text.size() > 7) {
      invalid(fmt::format("--group '{}' is not known. Use 32, 64, 128 or channel.", text));
    }
  }
  return std::stoi(text);
}

}  // namespace

std::string default_db_path() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache != '\0') return std::string(cache) + "/w4tune/w4tune.db";
  const char* home = std::getenv("HOME");
  if (home != nullptr && *home != '\0') return std::string(home) + "/.cache/w4tune/w4tune.db";
  return "w4tune.db";
}

void add_db_option(CLI::App& command, std::string& path) {
  path = default_db_path();
  command.add_option("--db", path, "Cache file")->type_name("FILE")->capture_default_str();
}

void add_json_option(CLI::App& command, bool& json) {
  command.add_flag("--json", json, "Print one JSON document on standard output");
}

void add_strategy_option(CLI::App& command, std::string& name) {
  command.add_option("--strategy", name, "How to search: " + strategy_names())
      ->type_name("NAME")
      ->capture_default_str();
}

void add_cuda_path_option(CLI::App& command) {
  command
      .add_option_function<std::string>(
          "--cuda-path", [](const std::string& folder) { search_toolkit_in(folder); },
          "Folder of libnvrtc and libcublasLt, looked in first")
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory);
}

void add_plan_options(CLI::App& command, PlanOptions& options) {
  const char* group = "Plan";
  command.add_option("--model", options.model, "Whose MLPs to tune")
      ->capture_default_str()
      ->group(group);
  command.add_option("--plan", options.plan_file, "Workloads from a JSON file instead")
      ->type_name("FILE")
      ->group(group);
  command.add_option("--m", options.m, "Tokens per call, e.g. --m 10,50,968")
      ->type_name("M,...")
      ->delimiter(',')
      ->group(group);
  command.add_option("--shape", options.shapes, "Weight shapes, e.g. --shape 16384,2048")
      ->type_name("N,K")
      ->group(group);
  command.add_option("--op", options.ops, "gemm or geglu")
      ->type_name("OP")
      ->delimiter(',')
      ->group(group);
  command
      .add_option("--group", options.group, "Weights that share a scale: 32, 64, 128 or channel")
      ->type_name("SIZE")
      ->group(group);
  command.add_option("--dtype", options.dtype, "Activations and scales: f16 or bf16")
      ->type_name("TYPE")
      ->group(group);
}

Plan PlanOptions::plan() const {
  const bool overridden =
      !m.empty() || !shapes.empty() || !ops.empty() || !group.empty() || !dtype.empty();
  if (!plan_file.empty()) {
    if (overridden) {
      invalid(
          "--plan says all about the workloads. Leave out --m, --shape, --op, --group and "
          "--dtype, or the plan.");
    }
    return read_plan(plan_file);
  }
  PlanOverrides overrides;
  overrides.m = m;
  for (const std::string& shape : shapes) overrides.shapes.push_back(parse_shape(shape));
  for (const std::string& op : ops) overrides.ops.push_back(parse_op(op));
  overrides.group_size = parse_group(group);
  overrides.dtype = dtype;
  return model_plan(model, overrides);
}

double parse_duration_s(const std::string& text) {
  const auto [value, unit] = parse_quantity(text, "duration", "90s, 5m or 1h");
  if (unit.empty() || unit == "s") return value;
  if (unit == "m" || unit == "min") return 60.0 * value;
  if (unit == "h") return 3600.0 * value;
  invalid(fmt::format("duration '{}' has an unknown unit. Write it like 90s, 5m or 1h.", text));
}

double parse_share(const std::string& text) {
  constexpr double kMost = 0.5;
  const auto [value, unit] = parse_quantity(text, "share", "1% or 0.01");
  if (!unit.empty() && unit != "%") {
    invalid(fmt::format("share '{}' has an unknown unit. Write it like 1% or 0.01.", text));
  }
  const double share = unit == "%" ? 0.01 * value : value;
  if (!(share >= 0.0 && share < kMost)) {
    invalid(fmt::format("share '{}' is not from 0 to 50 %. Write it like 1% or 0.01.", text));
  }
  return share;
}

std::size_t parse_bytes(const std::string& text) {
  const auto [value, unit] = parse_quantity(text, "size", "64M or 1G");
  double factor = 1.0;
  if (unit == "K") {
    factor = 1024.0;
  } else if (unit == "M") {
    factor = 1024.0 * 1024.0;
  } else if (unit == "G") {
    factor = 1024.0 * 1024.0 * 1024.0;
  } else if (!unit.empty()) {
    invalid(fmt::format("size '{}' has an unknown unit. Write it like 64M or 1G.", text));
  }
  if (value * factor > 64.0 * 1024 * 1024 * 1024) {
    invalid(fmt::format("size '{}' is more than 64G.", text));
  }
  return static_cast<std::size_t>(value * factor);
}

bool is_named(const DeviceInfo& device, const std::string& name) {
  if (name.empty() || device.name == name) return true;
  const KnownDevice* known = find_known_device(name);
  return known != nullptr && known == find_known_device(device.name);
}

std::vector<int> parse_devices(const std::string& text) {
  const int here = device_count();
  if (here == 0) {
    throw Error(ErrorCode::kNoDevice,
                fmt::format("--devices: no GPU here: {}", no_device_reason()));
  }
  std::vector<int> ordinals;
  if (text == "all") {
    for (int ordinal = 0; ordinal < here; ++ordinal) ordinals.push_back(ordinal);
  } else {
    for (const std::string& part : CLI::detail::split(text, ',')) {
      const int ordinal = parse_number(part);
      if (ordinal < 0 || ordinal >= here) {
        invalid(
            fmt::format("--devices '{}': '{}' is no GPU from 0 to {}. Write it like --devices "
                        "0,1 or --devices all.",
                        text, part, here - 1));
      }
      if (std::find(ordinals.begin(), ordinals.end(), ordinal) == ordinals.end()) {
        ordinals.push_back(ordinal);
      }
    }
  }
  const DeviceInfo first = query_device(ordinals.front());
  for (const int ordinal : ordinals) {
    const DeviceInfo other = query_device(ordinal);
    if (other.name == first.name && other.sm == first.sm && other.sm_count == first.sm_count) {
      continue;
    }
    invalid(
        fmt::format("--devices '{}': GPU {} is a {} and GPU {} is a {}, which need different "
                    "winners. Give each model a run of its own.",
                    text, ordinals.front(), first.name, ordinal, other.name));
  }
  return ordinals;
}

Shard parse_shard(const std::string& text) {
  const auto slash = text.find('/');
  const Shard shard{
      .index = parse_number(text.substr(0, slash)),
      .count = slash == std::string::npos ? -1 : parse_number(text.substr(slash + 1))};
  if (shard.index < 1 || shard.index > shard.count) {
    invalid(
        fmt::format("--shard '{}' is not I/N with I from 1 to N. Write it like --shard 1/4, the "
                    "first of four.",
                    text));
  }
  return shard;
}

Target find_target(const std::string& name) {
  const int count = device_count();
  if (name == "auto") {
    if (count == 0) {
      throw Error(ErrorCode::kNoDevice,
                  fmt::format("no GPU to tune: {} To predict for a GPU that is elsewhere, name it: "
                              "--gpu a40.",
                              no_device_reason()));
    }
    return {query_device(0), true, 0};
  }
  const KnownDevice* known = find_known_device(name);
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    DeviceInfo here = query_device(ordinal);
    const KnownDevice* same = find_known_device(here.name);
    if (here.name == name || (known != nullptr && same == known)) {
      return {std::move(here), true, ordinal};
    }
  }
  if (known == nullptr) {
    invalid(fmt::format("GPU '{}' is not known and not here. Known: auto, {}.", name,
                        known_device_aliases()));
  }
  return {known->info, false, 0};
}

}  // namespace w4tune
