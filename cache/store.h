// Store: the cache as the tuner and the CLI see it, in the words of core/.
//
// One thread at a time. Other processes may read and write the same file meanwhile: each call is
// one transaction, and what a call has stored survives the death of the process. A miss is an empty
// result; a file that cannot be used throws Error{kDatabase}, a missing one Error{kNotFound}.
// Opening a file that exists, and reading, changes nothing in it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/schema.h"
#include "cache/sqlite.h"
#include "core/compilation.h"
#include "core/device_info.h"
#include "core/kernel_config.h"
#include "core/problem.h"
#include "core/trial.h"
#include "core/winner.h"

namespace w4tune {

// What made the rows of one tuning run.
struct RunInfo {
  DeviceInfo device;
  std::string driver;
  std::string nvrtc;
  std::string version;  // of w4tune
  std::string commit;
  std::string source_hash;    // of the device sources
  std::string protocol_hash;  // of how it is measured
  std::string protocol;
  std::uint64_t seed = 0;
  double copy_gbps = 0.0;   // probed; 0 without a probe
  double mma_tflops = 0.0;  // probed; 0 without a probe
  std::string started_at;
};

// Trials that belong together: of one workload, on one device, made and measured in one way. Of
// `run`, what `Store::trials` needs.
struct TrialSet {
  RunInfo run;
  Workload workload;
};

// A winner with what made it. One that does not serve has no interval: m_lo and m_hi are 0.
struct WinnerRow {
  Winner winner;
  RunInfo run;
};

// Something the winners are compared with, measured beside them.
struct Baseline {
  std::string name;    // e.g. "cublaslt_f16"
  std::string detail;  // which algorithm it was
  std::vector<double> time_us;
  std::vector<double> clock_mhz;
};

// Whether bytes begin like a cache file, which is an SQLite database.
bool is_cache_file(std::string_view bytes);

class Store {
 public:
  enum class Mode { kReadOnly, kReadWrite };

  // kReadWrite creates the file and its folder where they are missing, and migrates an older file.
  static Store open(const std::string& path, Mode mode,
                    std::chrono::milliseconds busy_timeout = kBusyTimeout);

  // A copy in memory of a file of any schema up to this one, brought up to date and checked for
  // damage; the file itself is not changed.
  static Store open_copy(const std::string& path);

  // Announces a run and returns its number in this Store, the `run` of the calls below. The row is
  // written with the first thing the run stores: a run that stores nothing leaves no trace.
  std::int64_t begin_run(const RunInfo& info);
  void update_probe(std::int64_t run, double copy_gbps, double mma_tflops);

  // Successes and failures alike, whoever compiled them.
  [[nodiscard]] std::optional<Compilation> find_compilation(std::string_view key) const;
  // Keeps what is stored under this key already.
  void put_compilation(const KernelConfig& config, const Compilation& compilation);

  // Append-only: keeps what is stored for this candidate already, except that one that worked and
  // fails now has failed, with the new outcome and detail. The compilation goes first.
  void put_trial(std::int64_t run, const Trial& trial);
  // Trials of every run with the same device, source_hash and protocol_hash, in the order stored.
  [[nodiscard]] std::vector<Trial> trials(std::int64_t run, const Workload& workload) const;

  // Every set of trials in the file, by device, then in the order they were begun.
  [[nodiscard]] std::vector<TrialSet> trial_sets() const;

  // Replaces the baseline of the same device, protocol_hash, workload and name.
  void put_baseline(std::int64_t run, const Workload& workload, const Baseline& baseline);
  [[nodiscard]] std::optional<Baseline> find_baseline(std::int64_t run, const Workload& workload,
                                                      std::string_view name) const;

  // Whether a measured winner of the workload comes from a run with the same device, source_hash
  // and protocol_hash.
  [[nodiscard]] bool finished(std::int64_t run, const Workload& workload) const;
  // Replaces winners at the same m and of the same provenance, keeps the others, and divides the Ms
  // of the problem anew: at one m a measured winner hides the predicted one. The m_lo and m_hi of
  // the arguments do not matter.
  void put_winners(std::int64_t run, const Problem& problem, const std::vector<Winner>& winners);
  // What serves on this device (same name, sm and sm_count), sorted by problem and m.
  [[nodiscard]] std::vector<Winner> winners(const DeviceInfo& device) const;

  // Every winner of the device, those that do not serve too, sorted by problem, m and provenance.
  [[nodiscard]] std::vector<WinnerRow> winner_rows(const DeviceInfo& device) const;

  // What an earlier run's probe of this device (same name, sm and sm_count) found: see DeviceInfo.
  [[nodiscard]] std::optional<bool> mma_denormals(const DeviceInfo& device) const;
  // Replaces what an earlier probe of this device measured.
  void put_calibration(const DeviceInfo& device, const Calibration& calibration);
  // What the last probe of this device (same name, sm and sm_count) measured; an exported file has
  // none.
  [[nodiscard]] std::optional<Calibration> calibration(const DeviceInfo& device) const;
  // What made the winners of the device, oldest first.
  [[nodiscard]] std::vector<RunInfo> winner_runs(const DeviceInfo& device) const;
  // What was measured beside them by the same protocol; an exported file has none.
  [[nodiscard]] std::vector<std::pair<Workload, Baseline>> winner_baselines(
      const DeviceInfo& device) const;
  // How the measured winners of the device were measured: the texts of their runs' protocols.
  [[nodiscard]] std::vector<std::string> winner_protocols(const DeviceInfo& device) const;

  // Devices that have winners or trials, by name.
  [[nodiscard]] std::vector<DeviceInfo> devices() const;

  // A kernel that belongs to no problem, such as "pack_weight"; stores its compilation as well.
  void put_device_kernel(const DeviceInfo& device, std::string_view name,
                         const Compilation& compilation);

  [[nodiscard]] bool has_device_kernel(const DeviceInfo& device, std::string_view name) const;

  // Writes what the runtime needs, and no more, as one read-only file that replaces `path` as a
  // whole. Throws Error{kNotFound} without winners, Error{kInvalidArgument} for its own path.
  void export_to(const std::string& path) const;

  [[nodiscard]] const std::string& path() const { return database_.path(); }

 private:
  struct Run {
    RunInfo info;
    std::optional<std::int64_t> row;  // set when the run is in the file
  };
  // The rows a result belongs to.
  struct Owner {
    std::int64_t run_id = 0;
    std::int64_t device_id = 0;
    std::int64_t problem_id = 0;
  };

  friend class Merge;

  explicit Store(Database database);

  [[nodiscard]] const Run& run_at(std::int64_t run) const;
  void ensure_run_row(std::int64_t run);
  std::int64_t ensure_device(const DeviceInfo& device);
  Owner ensure_owner(std::int64_t run, const Problem& problem);
  void insert_compilation(const KernelConfig& config, const Compilation& compilation);
  void assign_stored_intervals(const Owner& owner);
  // The same for every device and problem.
  void renew_all_intervals();

  Database database_;
  std::vector<Run> runs_;
};

}  // namespace w4tune
