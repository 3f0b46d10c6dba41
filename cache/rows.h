// How the values of core/ lie in rows: shared by Store and the image loader.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/sqlite.h"
#include "core/device_info.h"
#include "core/problem.h"
#include "core/trial.h"
#include "core/winner.h"

namespace w4tune::rows {

// Samples as a BLOB of little-endian doubles, and back; a size that is no multiple of 8 throws
// Error{kDatabase}.
std::string encode_samples(const std::vector<double>& samples);
std::vector<double> decode_samples(std::string_view bytes);

// One candidate a line, in its to_string() form, and back.
std::string encode_candidates(const std::vector<Candidate>& candidates);
std::vector<Candidate> decode_candidates(std::string_view text);

void bind_device_key(Statement& statement, const DeviceInfo& device);
void bind_problem(Statement& statement, const Problem& problem);

// From the columns op, n, k, group_size and dtype.
Problem read_problem(const Statement& row);

// Ids of rows that exist.
std::optional<std::int64_t> find_device(const Database& database, const DeviceInfo& device);
std::optional<std::int64_t> find_problem(const Database& database, const Problem& problem);

struct DeviceRow {
  std::int64_t id = 0;
  DeviceInfo info;
};
// Devices that have winners or trials.
std::vector<DeviceRow> select_devices(const Database& database);

Calibration read_calibration(const Statement& row);

Trial read_trial(const Statement& statement, const Workload& workload);
// From the columns of the winner, and of its compilation.
Winner read_winner(const Statement& row);
// Winners that serve on a device, sorted by problem and m.
std::vector<Winner> select_winners(const Database& database, std::int64_t device_id);

// Throws Error{kDatabase} where the SHA-256 of an image is another one. Safe from any thread.
void check_cubin(const Database& database, std::string_view image, std::string_view sha256);

}  // namespace w4tune::rows
