#include "cache/rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <tuple>

#include "core/hash.h"
#include "generated/cache_sql.h"
#include "w4tune/error.h"

namespace w4tune::rows {
namespace {

static_assert(std::endian::native == std::endian::little, "samples are stored as they lie");

constexpr std::string_view kScheduleMark = " | split_k=";
constexpr std::string_view kRasterMark = " raster=";

[[noreturn]] void damaged(std::string_view what) {
  throw Error(ErrorCode::kDatabase,
              fmt::format("the cache is damaged: {}. Restore a copy, or move it away and tune "
                          "again.",
                          what));
}

int parse_count(std::string_view text, std::string_view line) {
  int value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc{} || result.ptr != text.data() + text.size()) {
    damaged(fmt::format("'{}' is not a candidate", line));
  }
  return value;
}

Candidate parse_candidate(std::string_view line) {
  const auto schedule = line.find(kScheduleMark);
  const auto raster = line.find(kRasterMark, schedule);
  if (raster == std::string_view::npos) damaged(fmt::format("'{}' is not a candidate", line));
  const auto split = schedule + kScheduleMark.size();
  return {.config = parse_kernel_config(line.substr(0, schedule)),
          .schedule = {.split_k = parse_count(line.substr(split, raster - split), line),
                       .raster = parse_count(line.substr(raster + kRasterMark.size()), line)}};
}

Candidate read_candidate(const Statement& row) {
  return {.config = parse_kernel_config(row.bytes("config")),
          .schedule = {.split_k = row.integer("split_k"), .raster = row.integer("raster")}};
}

ErrorMetrics read_error(const Statement& row) {
  return {.worst_ratio = row.real("error_worst_ratio"),
          .relative_norm = row.real("error_relative_norm"),
          .max_abs = row.real("error_max_abs")};
}

std::optional<bool> read_flag(const Statement& row, std::string_view name) {
  if (row.is_null(name)) return std::nullopt;
  return row.integer(name) != 0;
}

DeviceInfo read_device(const Statement& row) {
  return {.name = row.text("name"),
          .sm = row.integer("sm"),
          .sm_count = row.integer("sm_count"),
          .l2_bytes = static_cast<std::size_t>(row.int64("l2_bytes")),
          .smem_block_bytes = static_cast<std::size_t>(row.int64("smem_block_bytes")),
          .smem_sm_bytes = static_cast<std::size_t>(row.int64("smem_sm_bytes")),
          .threads_per_sm = row.integer("threads_per_sm"),
          .clock_mhz = row.integer("clock_mhz"),
          .dram_gbps = row.real("dram_gbps"),
          .mma_tflops = row.real("mma_tflops"),
          .mma_denormals = read_flag(row, "mma_denormals")};
}

std::optional<Composite> read_composite(const Statement& row) {
  const int slice_rows = row.integer("composite_slice_rows");
  if (slice_rows == 0) return std::nullopt;
  return Composite{.slice_rows = slice_rows,
                   .scratch_bytes = static_cast<std::size_t>(row.int64("composite_scratch_bytes")),
                   .time_us_median = row.real("composite_us_median"),
                   .time_us = decode_samples(row.bytes("composite_us_samples")),
                   .error_worst_ratio = row.real("composite_error_worst_ratio")};
}

}  // namespace

std::string encode_samples(const std::vector<double>& samples) {
  std::string bytes(samples.size() * sizeof(double), '\0');
  if (!samples.empty()) std::memcpy(bytes.data(), samples.data(), bytes.size());
  return bytes;
}

std::vector<double> decode_samples(std::string_view bytes) {
  if (bytes.size() % sizeof(double) != 0) damaged("samples are cut off");
  std::vector<double> samples(bytes.size() / sizeof(double));
  if (!samples.empty()) std::memcpy(samples.data(), bytes.data(), bytes.size());
  return samples;
}

std::string encode_candidates(const std::vector<Candidate>& candidates) {
  std::string text;
  for (const Candidate& candidate : candidates) text += to_string(candidate) + '\n';
  return text;
}

std::vector<Candidate> decode_candidates(std::string_view text) {
  std::vector<Candidate> candidates;
  while (!text.empty()) {
    const auto end = text.find('\n');
    candidates.push_back(parse_candidate(text.substr(0, end)));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return candidates;
}

void bind_device_key(Statement& statement, const DeviceInfo& device) {
  statement.bind(":name", device.name).bind(":sm", device.sm).bind(":sm_count", device.sm_count);
}

void bind_problem(Statement& statement, const Problem& problem) {
  statement.bind(":op", to_string(problem.op))
      .bind(":n", problem.n)
      .bind(":k", problem.k)
      .bind(":group_size", problem.group_size)
      .bind(":dtype", to_string(problem.dtype));
}

Problem read_problem(const Statement& row) {
  return {.op = parse_op(row.bytes("op")),
          .n = row.integer("n"),
          .k = row.integer("k"),
          .group_size = row.integer("group_size"),
          .dtype = parse_dtype(row.bytes("dtype"))};
}

std::optional<std::int64_t> find_device(const Database& database, const DeviceInfo& device) {
  Statement find(database, sql::text("find_device.sql"));
  bind_device_key(find, device);
  if (!find.step()) return std::nullopt;
  return find.int64("id");
}

std::optional<std::int64_t> find_problem(const Database& database, const Problem& problem) {
  Statement find(database, sql::text("find_problem.sql"));
  bind_problem(find, problem);
  if (!find.step()) return std::nullopt;
  return find.int64("id");
}

std::vector<DeviceRow> select_devices(const Database& database) {
  std::vector<DeviceRow> devices;
  Statement select(database, sql::text("select_devices.sql"));
  while (select.step()) devices.push_back({.id = select.int64("id"), .info = read_device(select)});
  return devices;
}

Calibration read_calibration(const Statement& row) {
  Calibration calibration{.method = row.integer("method"),
                          .measured_at = row.text("measured_at"),
                          .driver = row.text("driver"),
                          .clock_mhz = row.real("clock_mhz"),
                          .copy_gbps = row.real("copy_gbps"),
                          .read_gbps = row.real("read_gbps"),
                          .read_curve = {},
                          .launch_us = row.real("launch_us"),
                          .dependent_launch_us = row.real("dependent_launch_us"),
                          .mma_tflops = row.real("mma_tflops"),
                          .mma_source = row.text("mma_source"),
                          .mma_sync_tflops = row.real("mma_sync_tflops"),
                          .reduce_us = row.real("reduce_us"),
                          .reduce_sm_gbps = row.real("reduce_sm_gbps")};
  const std::vector<double> bytes = decode_samples(row.bytes("read_bytes_per_sm"));
  const std::vector<double> gbps = decode_samples(row.bytes("read_curve_gbps"));
  for (std::size_t i = 0; i < std::min(bytes.size(), gbps.size()); ++i) {
    calibration.read_curve.push_back({bytes[i], gbps[i]});
  }
  if (bytes.size() != gbps.size() || !is_sound(calibration)) damaged("a probe's figures are wrong");
  return calibration;
}

Trial read_trial(const Statement& row, const Workload& workload) {
  return {.workload = workload,
          .candidate = read_candidate(row),
          .outcome = parse_outcome(row.bytes("outcome")),
          .detail = row.text("detail"),
          .error = read_error(row),
          .time_us = decode_samples(row.bytes("time_us_samples")),
          .clock_mhz = decode_samples(row.bytes("clock_mhz_samples")),
          .compilation_key = row.text("compilation_key")};
}

Winner read_winner(const Statement& row) {
  return {.problem = read_problem(row),
          .m = row.integer("m"),
          .m_lo = row.integer("m_lo"),
          .m_hi = row.integer("m_hi"),
          .provenance = parse_provenance(row.bytes("provenance")),
          .candidate = read_candidate(row),
          .footprint = {.row_tile = row.integer("row_tile"),
                        .token_tile = row.integer("token_tile"),
                        .depth_tile = row.integer("depth_tile"),
                        .threads = row.integer("threads"),
                        .smem_bytes = row.integer("smem_bytes"),
                        .cluster_split = row.integer("cluster_split") != 0,
                        .token_map = row.integer("token_map") != 0,
                        .dependent = row.integer("dependent") != 0,
                        .persistent = row.integer("persistent") != 0},
          .compilation_key = row.text("compilation_key"),
          .registers = row.integer("registers"),
          .spill_bytes = row.integer("spill_bytes"),
          .time_us_median = row.real("time_us_median"),
          .time_us = decode_samples(row.bytes("time_us_samples")),
          .clock_mhz = decode_samples(row.bytes("clock_mhz_samples")),
          .error = read_error(row),
          .floor_us = row.real("floor_us"),
          .baseline_us = row.real("baseline_us"),
          .tie_set = decode_candidates(row.bytes("tie_set")),
          .composite = read_composite(row)};
}

std::vector<Winner> select_winners(const Database& database, std::int64_t device_id) {
  std::vector<Winner> winners;
  Statement select(database, sql::text("select_winners.sql"));
  select.bind(":device_id", device_id);
  while (select.step()) winners.push_back(read_winner(select));
  std::sort(winners.begin(), winners.end(), [](const Winner& a, const Winner& b) {
    return std::tie(a.problem, a.m) < std::tie(b.problem, b.m);
  });
  return winners;
}

void check_cubin(const Database& database, std::string_view image, std::string_view sha256) {
  if (sha256_hex(image) == sha256) return;
  throw Error(ErrorCode::kDatabase,
              fmt::format("the cache '{}' is damaged: a cubin differs from its SHA-256. Restore a "
                          "copy, or move it away and tune again.",
                          database.path()));
}

}  // namespace w4tune::rows
