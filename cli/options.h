// Options that several commands share, and what their texts mean.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "core/device_info.h"
#include "tuner/plan.h"

namespace w4tune {

// $XDG_CACHE_HOME/w4tune/w4tune.db, else ~/.cache/w4tune/w4tune.db.
std::string default_db_path();

// --db FILE
void add_db_option(CLI::App& command, std::string& path);
// --json
void add_json_option(CLI::App& command, bool& json);
// --strategy NAME; `name` holds the default.
void add_strategy_option(CLI::App& command, std::string& name);
// --cuda-path DIR: where the toolkit's libraries are looked for first.
void add_cuda_path_option(CLI::App& command);

// --model, --plan, --m, --shape, --op, --group, --dtype
struct PlanOptions {
  std::string model = "pi05";
  std::string plan_file;
  std::vector<int> m;
  std::vector<std::string> shapes;  // "N,K"
  std::vector<std::string> ops;
  std::string group;  // "128" or "channel"
  std::string dtype;

  [[nodiscard]] Plan plan() const;
};
void add_plan_options(CLI::App& command, PlanOptions& options);

// "5m", "90s", "1h", "300" (seconds). Throws Error{kInvalidArgument}.
double parse_duration_s(const std::string& text);
// "1%", "0.5%" or "0.005", below 50%. Throws Error{kInvalidArgument}.
double parse_share(const std::string& text);
// "64M", "1G", "4096". Throws Error{kInvalidArgument}.
std::size_t parse_bytes(const std::string& text);

// Whether `name`, as --gpu has it, means this device; an empty one means all.
bool is_named(const DeviceInfo& device, const std::string& name);
// The GPU that --gpu names: one that is here, or one to predict for.
struct Target {
  DeviceInfo device;
  bool present = false;
  int ordinal = 0;
};
// `name` is "auto" or a name of the device table. Throws Error{kNoDevice} for "auto" without a GPU
// and Error{kInvalidArgument} for a name nobody knows.
Target find_target(const std::string& name);

// "0,2" or "all": the ordinals of GPUs that are here, each once. Throws Error{kNoDevice} without a
// GPU, and Error{kInvalidArgument} for a text that is none, a GPU that is not here, or GPUs of
// different models, which need different winners.
std::vector<int> parse_devices(const std::string& text);

// "2/4": the second of four.
struct Shard {
  int index = 0;
  int count = 0;
};
// Throws Error{kInvalidArgument}.
Shard parse_shard(const std::string& text);

}  // namespace w4tune
