#include "cache/store.h"

#include <algorithm>
#include <utility>

#include "cache/rows.h"
#include "core/check.h"
#include "core/hash.h"
#include "generated/cache_sql.h"

namespace w4tune {
namespace {

Baseline read_baseline(const Statement& row, std::string_view name) {
  return {.name = std::string(name),
          .detail = row.text("detail"),
          .time_us = rows::decode_samples(row.bytes("time_us_samples")),
          .clock_mhz = rows::decode_samples(row.bytes("clock_mhz_samples"))};
}

RunInfo read_run(const Statement& row, const DeviceInfo& device) {
  return {.device = device,
          .driver = row.text("driver"),
          .nvrtc = row.text("nvrtc"),
          .version = row.text("version"),
          .commit = row.text("commit_id"),
          .source_hash = row.text("source_hash"),
          .protocol_hash = row.text("protocol_hash"),
          .protocol = row.text("protocol"),
          .seed = static_cast<std::uint64_t>(row.int64("seed")),
          .copy_gbps = row.real("copy_gbps"),
          .mma_tflops = row.real("mma_tflops"),
          .started_at = row.text("started_at")};
}

}  // namespace

bool is_cache_file(std::string_view bytes) { return bytes.rfind("SQLite format 3", 0) == 0; }

Store::Store(Database database) : database_(std::move(database)) {}

Store Store::open(const std::string& path, Mode mode, std::chrono::milliseconds busy_timeout) {
  return Store(mode == Mode::kReadOnly ? open_for_reading(path, busy_timeout)
                                       : open_for_writing(path, busy_timeout));
}

Store Store::open_copy(const std::string& path) { return Store(w4tune::open_copy(path)); }

// Runs

std::int64_t Store::begin_run(const RunInfo& info) {
  runs_.push_back({.info = info, .row = std::nullopt});
  return static_cast<std::int64_t>(runs_.size());
}

const Store::Run& Store::run_at(std::int64_t run) const {
  W4_CHECK(run >= 1 && run <= static_cast<std::int64_t>(runs_.size()), "no such run was begun");
  return runs_[static_cast<std::size_t>(run - 1)];
}

void Store::update_probe(std::int64_t run, double copy_gbps, double mma_tflops) {
  const auto row = run_at(run).row;
  RunInfo& info = runs_[static_cast<std::size_t>(run - 1)].info;
  info.copy_gbps = copy_gbps;
  info.mma_tflops = mma_tflops;
  if (!row) return;  // goes into the file with the run
  Statement(database_, sql::text("update_probe.sql"))
      .bind(":run_id", *row)
      .bind(":copy_gbps", copy_gbps)
      .bind(":mma_tflops", mma_tflops)
      .run();
}

void Store::ensure_run_row(std::int64_t run) {
  if (run_at(run).row) return;
  // A file that was copied from an export keeps no WAL; where it is in use, any journal will do.
  static_cast<void>(database_.try_execute(sql::text("use_wal.sql")));
  const RunInfo& info = run_at(run).info;
  Transaction transaction(database_, Transaction::Kind::kWrite);
  std::int64_t row = 0;
  {
    Statement insert(database_, sql::text("insert_run.sql"));
    insert.bind(":device_id", ensure_device(info.device))
        .bind(":started_at", info.started_at)
        .bind(":driver", info.driver)
        .bind(":nvrtc", info.nvrtc)
        .bind(":version", info.version)
        .bind(":commit_id", info.commit)
        .bind(":source_hash", info.source_hash)
        .bind(":protocol_hash", info.protocol_hash)
        .bind(":protocol", info.protocol)
        .bind(":seed", info.seed)
        .bind(":copy_gbps", info.copy_gbps)
        .bind(":mma_tflops", info.mma_tflops);
    insert.step();
    row = insert.int64("id");
    insert.run();
  }
  transaction.commit();
  runs_[static_cast<std::size_t>(run - 1)].row = row;
}

std::int64_t Store::ensure_device(const DeviceInfo& device) {
  Statement upsert(database_, sql::text("upsert_device.sql"));
  rows::bind_device_key(upsert, device);
  upsert.bind(":l2_bytes", device.l2_bytes)
      .bind(":smem_block_bytes", device.smem_block_bytes)
      .bind(":smem_sm_bytes", device.smem_sm_bytes)
      .bind(":threads_per_sm", device.threads_per_sm)
      .bind(":clock_mhz", device.clock_mhz)
      .bind(":dram_gbps", device.dram_gbps)
      .bind(":mma_tflops", device.mma_tflops)
      .bind_flag(":mma_denormals", device.mma_denormals)
      .run();
  return rows::find_device(database_, device).value();
}

// Within a transaction, after ensure_run_row().
Store::Owner Store::ensure_owner(std::int64_t run, const Problem& problem) {
  Statement insert(database_, sql::text("insert_problem.sql"));
  rows::bind_problem(insert, problem);
  insert.run();
  return {.run_id = run_at(run).row.value(),
          .device_id = rows::find_device(database_, run_at(run).info.device).value(),
          .problem_id = rows::find_problem(database_, problem).value()};
}

// Compilations

std::optional<Compilation> Store::find_compilation(std::string_view key) const {
  Statement find(database_, sql::text("find_compilation.sql"));
  find.bind(":key", key);
  if (!find.step()) return std::nullopt;
  Compilation compilation{.key = std::string(key),
                          .arch = find.text("arch"),
                          .cubin = {},
                          .log = find.text("log"),
                          .registers = find.integer("registers"),
                          .spill_bytes = find.integer("spill_bytes"),
                          .static_smem_bytes = find.integer("static_smem_bytes")};
  if (find.is_null("sha256")) return compilation;  // a failure
  compilation.cubin = find.bytes("image");
  rows::check_cubin(database_, compilation.cubin, find.bytes("sha256"));
  return compilation;
}

void Store::insert_compilation(const KernelConfig& config, const Compilation& compilation) {
  const std::string sha256 = compilation.ok() ? sha256_hex(compilation.cubin) : std::string();
  if (compilation.ok()) {
    Statement(database_, sql::text("insert_cubin.sql"))
        .bind(":sha256", sha256)
        .bind_blob(":image", compilation.cubin)
        .run();
  }
  Statement(database_, sql::text("insert_compilation.sql"))
      .bind(":key", compilation.key)
      .bind(":config", to_string(config))
      .bind(":arch", compilation.arch)
      .bind(":outcome", std::string_view(compilation.ok() ? "ok" : "failed"))
      .bind(":log", compilation.log)
      .bind_or_null(":cubin_sha256", sha256)
      .bind(":registers", compilation.registers)
      .bind(":spill_bytes", compilation.spill_bytes)
      .bind(":static_smem_bytes", compilation.static_smem_bytes)
      .run();
}

void Store::put_compilation(const KernelConfig& config, const Compilation& compilation) {
  Transaction transaction(database_, Transaction::Kind::kWrite);
  insert_compilation(config, compilation);
  transaction.commit();
}

void Store::put_device_kernel(const DeviceInfo& device, std::string_view name,
                              const Compilation& compilation) {
  Transaction transaction(database_, Transaction::Kind::kWrite);
  insert_compilation({.family = std::string(name), .parameters = {}}, compilation);
  Statement(database_, sql::text("upsert_device_kernel.sql"))
      .bind(":device_id", ensure_device(device))
      .bind(":name", name)
      .bind(":compilation_key", compilation.key)
      .run();
  transaction.commit();
}

// Trials and baselines

void Store::put_trial(std::int64_t run, const Trial& trial) {
  ensure_run_row(run);
  Transaction transaction(database_, Transaction::Kind::kWrite);
  const Owner owner = ensure_owner(run, trial.workload.problem);
  const RunInfo& info = run_at(run).info;
  Statement(database_, sql::text("insert_trial.sql"))
      .bind(":run_id", owner.run_id)
      .bind(":device_id", owner.device_id)
      .bind(":problem_id", owner.problem_id)
      .bind(":m", trial.workload.m)
      .bind(":family", trial.candidate.config.family)
      .bind(":config", to_string(trial.candidate.config))
      .bind(":split_k", trial.candidate.schedule.split_k)
      .bind(":raster", trial.candidate.schedule.raster)
      .bind(":source_hash", info.source_hash)
      .bind(":protocol_hash", info.protocol_hash)
      .bind(":outcome", to_string(trial.outcome))
      .bind(":detail", trial.detail)
      .bind(":error_worst_ratio", trial.error.worst_ratio)
      .bind(":error_relative_norm", trial.error.relative_norm)
      .bind(":error_max_abs", trial.error.max_abs)
      .bind_blob(":time_us_samples", rows::encode_samples(trial.time_us))
      .bind_blob(":clock_mhz_samples", rows::encode_samples(trial.clock_mhz))
      .bind_or_null(":compilation_key", trial.compilation_key)
      .run();
  transaction.commit();
}

std::vector<Trial> Store::trials(std::int64_t run, const Workload& workload) const {
  const RunInfo& info = run_at(run).info;
  const auto device_id = rows::find_device(database_, info.device);
  const auto problem_id = rows::find_problem(database_, workload.problem);
  std::vector<Trial> trials;
  if (!device_id || !problem_id) return trials;
  Statement select(database_, sql::text("select_trials.sql"));
  select.bind(":device_id", *device_id)
      .bind(":problem_id", *problem_id)
      .bind(":m", workload.m)
      .bind(":source_hash", info.source_hash)
      .bind(":protocol_hash", info.protocol_hash);
  while (select.step()) trials.push_back(rows::read_trial(select, workload));
  return trials;
}

std::vector<TrialSet> Store::trial_sets() const {
  std::vector<TrialSet> sets;
  for (const rows::DeviceRow& device : rows::select_devices(database_)) {
    Statement select(database_, sql::text("select_trial_sets.sql"));
    select.bind(":device_id", device.id);
    while (select.step()) {
      TrialSet set;
      set.run.device = device.info;
      set.run.source_hash = select.text("source_hash");
      set.run.protocol_hash = select.text("protocol_hash");
      set.workload = {rows::read_problem(select), select.integer("m")};
      sets.push_back(std::move(set));
    }
  }
  return sets;
}

void Store::put_baseline(std::int64_t run, const Workload& workload, const Baseline& baseline) {
  ensure_run_row(run);
  Transaction transaction(database_, Transaction::Kind::kWrite);
  const Owner owner = ensure_owner(run, workload.problem);
  Statement(database_, sql::text("upsert_baseline.sql"))
      .bind(":run_id", owner.run_id)
      .bind(":device_id", owner.device_id)
      .bind(":problem_id", owner.problem_id)
      .bind(":m", workload.m)
      .bind(":name", baseline.name)
      .bind(":protocol_hash", run_at(run).info.protocol_hash)
      .bind(":detail", baseline.detail)
      .bind_blob(":time_us_samples", rows::encode_samples(baseline.time_us))
      .bind_blob(":clock_mhz_samples", rows::encode_samples(baseline.clock_mhz))
      .run();
  transaction.commit();
}

std::optional<Baseline> Store::find_baseline(std::int64_t run, const Workload& workload,
                                             std::string_view name) const {
  const RunInfo& info = run_at(run).info;
  const auto device_id = rows::find_device(database_, info.device);
  const auto problem_id = rows::find_problem(database_, workload.problem);
  if (!device_id || !problem_id) return std::nullopt;
  Statement find(database_, sql::text("find_baseline.sql"));
  find.bind(":device_id", *device_id)
      .bind(":problem_id", *problem_id)
      .bind(":m", workload.m)
      .bind(":name", name)
      .bind(":protocol_hash", info.protocol_hash);
  if (!find.step()) return std::nullopt;
  return read_baseline(find, name);
}

// Winners

bool Store::finished(std::int64_t run, const Workload& workload) const {
  const RunInfo& info = run_at(run).info;
  const auto device_id = rows::find_device(database_, info.device);
  const auto problem_id = rows::find_problem(database_, workload.problem);
  if (!device_id || !problem_id) return false;
  return Statement(database_, sql::text("winner_exists.sql"))
      .bind(":device_id", *device_id)
      .bind(":problem_id", *problem_id)
      .bind(":m", workload.m)
      .bind(":source_hash", info.source_hash)
      .bind(":protocol_hash", info.protocol_hash)
      .step();
}

void Store::put_winners(std::int64_t run, const Problem& problem,
                        const std::vector<Winner>& winners) {
  if (winners.empty()) return;
  ensure_run_row(run);
  Transaction transaction(database_, Transaction::Kind::kWrite);
  const Owner owner = ensure_owner(run, problem);
  for (const Winner& winner : winners) {
    W4_CHECK(winner.problem == problem, "a winner of another problem");
    const Composite composite = winner.composite.value_or(Composite{});
    Statement(database_, sql::text("upsert_winner.sql"))
        .bind(":device_id", owner.device_id)
        .bind(":problem_id", owner.problem_id)
        .bind(":m", winner.m)
        .bind(":provenance", to_string(winner.provenance))
        .bind(":config", to_string(winner.candidate.config))
        .bind(":split_k", winner.candidate.schedule.split_k)
        .bind(":raster", winner.candidate.schedule.raster)
        .bind(":row_tile", winner.footprint.row_tile)
        .bind(":token_tile", winner.footprint.token_tile)
        .bind(":depth_tile", winner.footprint.depth_tile)
        .bind(":threads", winner.footprint.threads)
        .bind(":smem_bytes", winner.footprint.smem_bytes)
        .bind(":cluster_split", winner.footprint.cluster_split ? 1 : 0)
        .bind(":token_map", winner.footprint.token_map ? 1 : 0)
        .bind(":dependent", winner.footprint.dependent ? 1 : 0)
        .bind(":persistent", winner.footprint.persistent ? 1 : 0)
        .bind(":compilation_key", winner.compilation_key)
        .bind(":time_us_median", winner.time_us_median)
        .bind(":floor_us", winner.floor_us)
        .bind(":baseline_us", winner.baseline_us)
        .bind_blob(":time_us_samples", rows::encode_samples(winner.time_us))
        .bind_blob(":clock_mhz_samples", rows::encode_samples(winner.clock_mhz))
        .bind(":error_worst_ratio", winner.error.worst_ratio)
        .bind(":error_relative_norm", winner.error.relative_norm)
        .bind(":error_max_abs", winner.error.max_abs)
        .bind(":tie_set", rows::encode_candidates(winner.tie_set))
        .bind(":composite_slice_rows", composite.slice_rows)
        .bind(":composite_scratch_bytes", composite.scratch_bytes)
        .bind(":composite_us_median", composite.time_us_median)
        .bind_blob(":composite_us_samples", rows::encode_samples(composite.time_us))
        .bind(":composite_error_worst_ratio", composite.error_worst_ratio)
        .bind(":run_id", owner.run_id)
        .run();
  }
  assign_stored_intervals(owner);
  transaction.commit();
}

void Store::assign_stored_intervals(const Owner& owner) {
  std::vector<Winner> serving;  // only m and provenance matter here
  Statement select(database_, sql::text("select_tuned_m.sql"));
  select.bind(":device_id", owner.device_id).bind(":problem_id", owner.problem_id);
  while (select.step()) {
    const int m = select.integer("m");
    if (!serving.empty() && serving.back().m == m) continue;
    serving.emplace_back();
    serving.back().m = m;
    serving.back().provenance = parse_provenance(select.bytes("provenance"));
  }
  assign_intervals(serving);
  Statement(database_, sql::text("clear_intervals.sql"))
      .bind(":device_id", owner.device_id)
      .bind(":problem_id", owner.problem_id)
      .run();
  for (const Winner& winner : serving) {
    Statement(database_, sql::text("update_interval.sql"))
        .bind(":m_lo", winner.m_lo)
        .bind(":m_hi", winner.m_hi)
        .bind(":device_id", owner.device_id)
        .bind(":problem_id", owner.problem_id)
        .bind(":m", winner.m)
        .bind(":provenance", to_string(winner.provenance))
        .run();
  }
}

void Store::renew_all_intervals() {
  std::vector<Owner> owners;
  {
    Statement select(database_, sql::text("select_winner_owners.sql"));
    while (select.step()) {
      owners.push_back({.run_id = 0,
                        .device_id = select.int64("device_id"),
                        .problem_id = select.int64("problem_id")});
    }
  }
  for (const Owner& owner : owners) assign_stored_intervals(owner);
}

std::vector<Winner> Store::winners(const DeviceInfo& device) const {
  const auto device_id = rows::find_device(database_, device);
  return device_id ? rows::select_winners(database_, *device_id) : std::vector<Winner>{};
}

std::vector<RunInfo> Store::winner_runs(const DeviceInfo& device) const {
  std::vector<RunInfo> runs;
  const auto device_id = rows::find_device(database_, device);
  if (!device_id) return runs;
  Statement select(database_, sql::text("select_winner_runs.sql"));
  select.bind(":device_id", *device_id);
  while (select.step()) runs.push_back(read_run(select, device));
  return runs;
}

std::vector<WinnerRow> Store::winner_rows(const DeviceInfo& device) const {
  std::vector<WinnerRow> found;
  const auto device_id = rows::find_device(database_, device);
  if (!device_id) return found;
  Statement select(database_, sql::text("select_winner_rows.sql"));
  select.bind(":device_id", *device_id);
  while (select.step()) found.push_back({rows::read_winner(select), read_run(select, device)});
  std::stable_sort(found.begin(), found.end(), [](const WinnerRow& a, const WinnerRow& b) {
    return a.winner.problem < b.winner.problem;
  });
  return found;
}

bool Store::has_device_kernel(const DeviceInfo& device, std::string_view name) const {
  const auto device_id = rows::find_device(database_, device);
  if (!device_id) return false;
  Statement select(database_, sql::text("select_device_kernels.sql"));
  select.bind(":device_id", *device_id);
  bool found = false;
  while (select.step()) found = found || select.bytes("name") == name;
  return found;
}

std::vector<std::pair<Workload, Baseline>> Store::winner_baselines(const DeviceInfo& device) const {
  std::vector<std::pair<Workload, Baseline>> baselines;
  const auto device_id = rows::find_device(database_, device);
  if (!device_id) return baselines;
  Statement select(database_, sql::text("select_winner_baselines.sql"));
  select.bind(":device_id", *device_id);
  while (select.step()) {
    baselines.emplace_back(Workload{rows::read_problem(select), select.integer("m")},
                           read_baseline(select, select.text("name")));
  }
  return baselines;
}

std::vector<std::string> Store::winner_protocols(const DeviceInfo& device) const {
  std::vector<std::string> protocols;
  const auto device_id = rows::find_device(database_, device);
  if (!device_id) return protocols;
  Statement select(database_, sql::text("select_winner_protocols.sql"));
  select.bind(":device_id", *device_id);
  while (select.step()) protocols.push_back(select.text("protocol"));
  return protocols;
}

std::optional<bool> Store::mma_denormals(const DeviceInfo& device) const {
  for (const DeviceInfo& known : devices()) {
    const bool same =
        known.name == device.name && known.sm == device.sm && known.sm_count == device.sm_count;
    if (same) return known.mma_denormals;
  }
  return std::nullopt;
}

void Store::put_calibration(const DeviceInfo& device, const Calibration& calibration) {
  W4_CHECK(is_sound(calibration), "a probe's figures are above zero");
  std::vector<double> bytes;
  std::vector<double> gbps;
  for (const ReadPoint& point : calibration.read_curve) {
    bytes.push_back(point.bytes_per_sm);
    gbps.push_back(point.gbps);
  }
  // As before a run's first row.
  static_cast<void>(database_.try_execute(sql::text("use_wal.sql")));
  Transaction transaction(database_, Transaction::Kind::kWrite);
  Statement(database_, sql::text("upsert_calibration.sql"))
      .bind(":device_id", ensure_device(device))
      .bind(":method", calibration.method)
      .bind(":measured_at", calibration.measured_at)
      .bind(":driver", calibration.driver)
      .bind(":clock_mhz", calibration.clock_mhz)
      .bind(":copy_gbps", calibration.copy_gbps)
      .bind(":read_gbps", calibration.read_gbps)
      .bind_blob(":read_bytes_per_sm", rows::encode_samples(bytes))
      .bind_blob(":read_curve_gbps", rows::encode_samples(gbps))
      .bind(":launch_us", calibration.launch_us)
      .bind(":dependent_launch_us", calibration.dependent_launch_us)
      .bind(":mma_tflops", calibration.mma_tflops)
      .bind(":mma_source", calibration.mma_source)
      .bind(":mma_sync_tflops", calibration.mma_sync_tflops)
      .bind(":reduce_us", calibration.reduce_us)
      .bind(":reduce_sm_gbps", calibration.reduce_sm_gbps)
      .run();
  transaction.commit();
}

std::optional<Calibration> Store::calibration(const DeviceInfo& device) const {
  const auto device_id = rows::find_device(database_, device);
  if (!device_id) return std::nullopt;
  Statement find(database_, sql::text("find_calibration.sql"));
  find.bind(":device_id", *device_id);
  if (!find.step()) return std::nullopt;
  return rows::read_calibration(find);
}

std::vector<DeviceInfo> Store::devices() const {
  std::vector<DeviceInfo> devices;
  for (auto& row : rows::select_devices(database_)) devices.push_back(std::move(row.info));
  return devices;
}

}  // namespace w4tune
