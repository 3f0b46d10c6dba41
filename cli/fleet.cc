#include "cli/fleet.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "templates/family.h"
#include "tuner/baseline.h"
#include "tuner/tune.h"
#include "w4tune/error.h"

// What a program hands to those it starts.
extern char** environ;

namespace w4tune {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

// Of what is left, each member gets this share of its even part at a time: less waits for the
// slowest at the end, more prepares a GPU too often.
constexpr double kStretch = 0.7;
// But no less than this share of a member's even part of the whole plan.
constexpr double kLeastStretch = 0.1;
constexpr int kPollMs = 200;

// Lines of JSON, both ways.
class Channel {
 public:
  explicit Channel(int descriptor) : descriptor_(descriptor) {}

  // False where nobody reads any more.
  [[nodiscard]] bool send(const json& message) const {
    const std::string line = message.dump() + "\n";
    std::string_view rest = line;
    while (!rest.empty()) {
      const ssize_t n = ::send(descriptor_, rest.data(), rest.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      rest.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }

  // Reads what there is, waiting where there is nothing; false at the end of the stream.
  bool fill() {
    char buffer[4096];
    const ssize_t n = ::recv(descriptor_, buffer, sizeof buffer, 0);
    if (n < 0) return errno == EINTR;
    text_.append(buffer, static_cast<std::size_t>(n));
    return n > 0;
  }

  // A whole message that has been read. Whatever else a library prints there is passed over.
  std::optional<json> next() {
    for (auto end = text_.find('\n'); end != std::string::npos; end = text_.find('\n')) {
      json message = json::parse(text_.substr(0, end), nullptr, false);
      text_.erase(0, end + 1);
      if (message.is_object()) return message;
    }
    return std::nullopt;
  }

  [[nodiscard]] int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
  std::string text_;
};

[[noreturn]] void fail(const std::string& what, int error) {
  throw Error(ErrorCode::kEnvironment, fmt::format("{}: {}. Check the limits of this machine.",
                                                   what, std::generic_category().message(error)));
}

// A member's process. It is in a process group of its own, so that the terminal's Ctrl-C reaches
// the leader alone, which passes it on once.
class Process {
 public:
  explicit Process(const FleetMember& member) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      fail("cannot talk to a process for " + member.name, errno);
    }
    socket_ = ends[0];
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, ends[1], STDOUT_FILENO);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setpgroup(&attributes, 0);
    std::vector<std::string> command = member.command;
    std::vector<char*> arguments;
    for (std::string& argument : command) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    const int error =
        ::posix_spawn(&id_, arguments[0], &files, &attributes, arguments.data(), environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    ::close(ends[1]);
    if (error != 0) {
      ::close(socket_);
      fail("cannot start a process for " + member.name, error);
    }
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    ::close(socket_);  // one that runs stops when it next asks
    if (!ended_) {
      interrupt();
      wait();
    }
  }

  [[nodiscard]] int socket() const { return socket_; }
  void interrupt() const { ::kill(id_, SIGINT); }
  // It gets no more stretches.
  void dismiss() const { ::shutdown(socket_, SHUT_WR); }

  // The status, as waitpid has it.
  int wait() {
    int status = 0;
    while (::waitpid(id_, &status, 0) < 0 && errno == EINTR) {
    }
    ended_ = true;
    return status;
  }

 private:
  pid_t id_ = 0;
  int socket_ = -1;
  bool ended_ = false;
};

json ceilings_json(const Ceilings& ceilings) {
  return {{"copy_gbps", ceilings.copy_gbps},
          {"mma_tflops", ceilings.mma_tflops},
          {"mma_source", ceilings.mma_source},
          {"mma_sync_tflops", ceilings.mma_sync_tflops}};
}

Ceilings read_ceilings(const json& message) {
  Ceilings ceilings;
  ceilings.copy_gbps = message.at("copy_gbps").get<double>();
  ceilings.mma_tflops = message.at("mma_tflops").get<double>();
  ceilings.mma_source = message.at("mma_source").get<std::string>();
  ceilings.mma_sync_tflops = message.at("mma_sync_tflops").get<double>();
  return ceilings;
}

class Leader {
 public:
  Leader(const TuneOptions& options, Store& store, const std::vector<FleetMember>& members,
         TuneObserver& observer)
      : options_(options),
        store_(store),
        observer_(observer),
        run_(store.begin_run(describe_run(options, device_sources_from(options.device_dir).hash))) {
    const auto& workloads = options_.plan.workloads;
    for (const Workload& workload : workloads) left_ += tuning_cost(workload);
    least_ = kLeastStretch * left_ / static_cast<double>(members.size());
    for (const FleetMember& member : members) {
      auto process = std::make_unique<Process>(member);
      const int socket = process->socket();
      crew_.push_back({member.name, std::move(process), Channel(socket), "starting", false});
    }
    present_ = crew_.size();
  }

  TuneResult run() {
    while (present_ > 0) {
      pass_on_interrupt();
      std::vector<pollfd> waiting;
      for (const Mate& mate : crew_) {
        // poll() passes over negative ones
        waiting.push_back({mate.gone ? -1 : mate.channel.descriptor(), POLLIN, 0});
      }
      if (::poll(waiting.data(), waiting.size(), kPollMs) < 0 && errno != EINTR) {
        fail("cannot wait for the processes", errno);
      }
      for (std::size_t i = 0; i < crew_.size(); ++i) {
        if (waiting[i].fd >= 0 && waiting[i].revents != 0) hear(crew_[i]);
      }
    }
    finish();
    return std::move(result_);
  }

 private:
  struct Mate {
    std::string name;
    std::unique_ptr<Process> process;
    Channel channel;
    std::string doing;  // for messages
    bool gone;
  };

  void pass_on_interrupt() {
    if (passed_on_ || !options_.interrupted()) return;
    passed_on_ = true;
    for (const Mate& mate : crew_) {
      if (!mate.gone) mate.process->interrupt();
    }
  }

  void hear(Mate& mate) {
    const bool open = mate.channel.fill();
    while (const auto message = mate.channel.next()) understand(mate, *message);
    if (!open) part_with(mate);
  }

  void part_with(Mate& mate) {
    mate.gone = true;
    --present_;
    const int status = mate.process->wait();
    if (!WIFSIGNALED(status) && (WEXITSTATUS(status) == 0 || failure_)) return;
    const std::string end = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                                : fmt::format("exit code {}", WEXITSTATUS(status));
    note_failure({ErrorCode::kDevice,
                  fmt::format("{}: its process ended with {} ({}). What was measured is kept: the "
                              "same command goes on from here.",
                              mate.name, end, mate.doing)});
  }

  void note_failure(Error error) {
    if (!failure_) failure_ = std::move(error);
  }

  void understand(Mate& mate, const json& message) {
    if (message.contains("ready")) {
      hand_out(mate);
    } else if (message.contains("workload")) {
      const Workload& workload =
          options_.plan.workloads.at(message.at("workload").get<std::size_t>());
      mate.doing = to_string(workload);
      observer_.on_workload(result_.rows.size(), options_.plan.workloads.size(), workload,
                            message.at("floor_us").get<double>());
    } else if (message.contains("row")) {
      take_row(mate, message.at("row"));
    } else if (message.contains("ceilings")) {
      if (!known_) {
        result_.ceilings = read_ceilings(message.at("ceilings"));
        observer_.on_ceilings(result_.ceilings);
      }
      known_ = true;
    } else if (message.contains("facts")) {
      const json& facts = message.at("facts");
      if (!facts.at("mma_denormals").is_null()) {
        result_.mma_denormals = facts.at("mma_denormals").get<bool>();
      }
      result_.assumed = facts.at("assumed").get<std::vector<std::string>>();
      result_.interrupted = result_.interrupted || facts.at("interrupted").get<bool>();
    } else if (message.contains("warning")) {
      observer_.on_warning(mate.name + ": " + message.at("warning").get<std::string>());
    } else if (message.contains("error")) {
      note_failure({static_cast<ErrorCode>(message.at("code").get<int>()),
                    mate.name + ": " + message.at("error").get<std::string>()});
    }
  }

  void hand_out(Mate& mate) {
    const auto& workloads = options_.plan.workloads;
    if (next_ == workloads.size() || options_.interrupted()) {
      mate.process->dismiss();
      return;
    }
    const double even = kStretch / static_cast<double>(present_);
    const double share = std::min(1.0, std::max(even, least_ / left_));
    const std::size_t count = leading_part(workloads, next_, workloads.size(), share);
    double cost = 0.0;
    for (std::size_t i = next_; i < next_ + count; ++i) cost += tuning_cost(workloads[i]);
    json order = {{"first", next_}, {"count", count}, {"budget_s", 0.0}};
    if (options_.budget_s > 0.0) {
      const double left_s = std::max(0.0, options_.budget_s - seconds_since_start());
      // Members work at the same time. One that comes too late says so of each workload.
      order["budget_s"] =
          std::clamp(left_s * static_cast<double>(present_) * cost / left_, 1e-3, left_s + 1e-3);
    }
    if (!mate.channel.send(order)) return;  // it has died: hear() will see
    next_ += count;
    left_ -= cost;
  }

  void take_row(const Mate& mate, const json& message) {
    WorkloadResult row;
    const auto index = message.at("index").get<std::size_t>();
    row.workload = options_.plan.workloads.at(index);
    row.by = mate.name;
    row.evaluated = message.at("evaluated").get<int>();
    row.failed = message.at("failed").get<int>();
    row.reused = message.at("reused").get<int>();
    row.resumed = message.at("resumed").get<bool>();
    row.predicted_us = message.at("predicted_us").get<double>();
    row.composite_left_out = message.at("composite_left_out").get<std::string>();
    for (const json& trial : message.at("predictions")) {
      row.predictions.push_back(
          {trial.at(0).get<std::string>(), trial.at(1).get<double>(), trial.at(2).get<double>()});
    }
    const auto provenance = message.at("provenance").get<std::string>();
    for (WinnerRow& stored : store_.winner_rows(options_.device)) {
      const Winner& winner = stored.winner;
      if (Workload{winner.problem, winner.m} != row.workload) continue;
      if (to_string(winner.provenance) == provenance) row.winner = std::move(stored.winner);
    }
    if (message.at("baseline").get<bool>()) {
      row.baseline = store_.find_baseline(run_, row.workload, baseline_name(row.workload.problem));
    }
    result_.rows.push_back(std::move(row));
    renew_intervals(result_.rows, store_, options_.device);
    observer_.on_workload(result_.rows.size() - 1, options_.plan.workloads.size(),
                          result_.rows.back().workload, 0.0);
    observer_.on_result(result_.rows.back(), result_);
  }

  void finish() {
    if (failure_) throw Error(*failure_);
    result_.calibration = store_.calibration(options_.device);  // as the members found or left it
    if (next_ < options_.plan.workloads.size()) result_.interrupted = true;
    const auto place = [&](const WorkloadResult& row) {
      const auto& workloads = options_.plan.workloads;
      return std::find(workloads.begin(), workloads.end(), row.workload);
    };
    std::sort(result_.rows.begin(), result_.rows.end(),
              [&](const auto& a, const auto& b) { return place(a) < place(b); });
  }

  [[nodiscard]] double seconds_since_start() const {
    return std::chrono::duration<double>(Clock::now() - start_).count();
  }

  const TuneOptions& options_;
  Store& store_;
  TuneObserver& observer_;
  std::int64_t run_;  // stores nothing: baselines are looked for by its protocol
  std::vector<Mate> crew_;
  std::size_t present_ = 0;  // members that have not gone
  std::size_t next_ = 0;     // workload to hand out
  double left_ = 0.0;        // cost of what has not been handed out
  double least_ = 0.0;
  bool passed_on_ = false;
  bool known_ = false;  // ceilings
  std::optional<Error> failure_;
  TuneResult result_;
  Clock::time_point start_ = Clock::now();
};

// Tells the leader what happens. Its messages are lost where the leader has died: the member then
// ends when it next asks for work.
class Messenger final : public TuneObserver {
 public:
  Messenger(const Channel& channel, const Plan& plan) : channel_(channel), plan_(plan) {}

  void on_phase(const std::string& /*what*/) override {}
  void on_ceilings(const Ceilings& ceilings) override {
    tell({{"ceilings", ceilings_json(ceilings)}});
  }
  void on_workload(std::size_t /*index*/, std::size_t /*total*/, const Workload& workload,
                   double floor_us) override {
    tell({{"workload", index_of(workload)}, {"floor_us", floor_us}});
  }
  void on_candidate(const Trial& /*trial*/, int /*done*/, int /*planned*/,
                    double /*best_us*/) override {}
  void on_result(const WorkloadResult& row, const TuneResult& /*so_far*/) override {
    json predictions = json::array();
    for (const Prediction& trial : row.predictions) {
      predictions.push_back({trial.family, trial.predicted_us, trial.measured_us});
    }
    tell({{"row",
           {{"index", index_of(row.workload)},
            {"evaluated", row.evaluated},
            {"failed", row.failed},
            {"reused", row.reused},
            {"resumed", row.resumed},
            {"predicted_us", row.predicted_us},
            {"composite_left_out", row.composite_left_out},
            {"predictions", std::move(predictions)},
            {"provenance", row.winner ? to_string(row.winner->provenance) : "untuned"},
            {"baseline", row.baseline.has_value()}}}});
  }
  void on_warning(const std::string& message) override { tell({{"warning", message}}); }

 private:
  void tell(const json& message) { static_cast<void>(channel_.send(message)); }
  [[nodiscard]] std::size_t index_of(const Workload& workload) const {
    const auto& workloads = plan_.workloads;
    return static_cast<std::size_t>(std::find(workloads.begin(), workloads.end(), workload) -
                                    workloads.begin());
  }

  const Channel& channel_;
  const Plan& plan_;
};

// One stretch of the plan.
void follow(const TuneOptions& options, Store& store, bool predicting, const json& order,
            const Channel& channel) {
  TuneOptions stretch = options;
  const auto first = options.plan.workloads.begin() + order.at("first").get<std::ptrdiff_t>();
  stretch.plan.workloads.assign(first, first + order.at("count").get<std::ptrdiff_t>());
  stretch.budget_s = order.at("budget_s").get<double>();
  Messenger messenger(channel, options.plan);
  const TuneResult result = predicting ? tune_predicted(stretch, store, messenger)
                                       : tune_measured(stretch, store, messenger);
  static_cast<void>(channel.send(
      {{"facts",
        {{"mma_denormals", result.mma_denormals ? json(*result.mma_denormals) : json(nullptr)},
         {"assumed", result.assumed},
         {"interrupted", result.interrupted}}}}));
}

}  // namespace

TuneResult lead_fleet(const TuneOptions& options, Store& store,
                      const std::vector<FleetMember>& members, TuneObserver& observer) {
  return Leader(options, store, members, observer).run();
}

void follow_fleet(const TuneOptions& options, Store& store, bool predicting) {
  ::prctl(PR_SET_PDEATHSIG, SIGINT);  // a leader that is killed takes its members along
  Channel channel(STDIN_FILENO);
  try {
    while (!options.interrupted() && channel.send({{"ready", true}})) {
      std::optional<json> order;
      while (!(order = channel.next())) {
        if (!channel.fill() || options.interrupted()) return;
      }
      follow(options, store, predicting, *order, channel);
    }
  } catch (const Error& error) {
    static_cast<void>(
        channel.send({{"error", error.what()}, {"code", static_cast<int>(error.code())}}));
  }
}

FleetMember member_like_this(int ordinal, int threads) {
  std::ifstream stream("/proc/self/cmdline", std::ios::binary);
  const std::string line{std::istreambuf_iterator<char>(stream), {}};
  FleetMember member{fmt::format("gpu{}", ordinal), {}};
  for (std::size_t begin = 0; begin < line.size();) {
    const std::size_t end = std::min(line.find('\0', begin), line.size());
    member.command.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  member.command.at(0) = "/proc/self/exe";
  for (const std::string& argument : {std::string("--member"), std::to_string(ordinal),
                                      std::string("--threads"), std::to_string(threads)}) {
    member.command.push_back(argument);
  }
  return member;
}

}  // namespace w4tune
