#include "tuner/measuring_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <thread>

#include "core/check.h"
#include "tuner/measuring_server.h"
#include "tuner/verify.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

using Clock = Channel::Clock;

constexpr int kStarts = 3;
constexpr auto kBetweenStarts = std::chrono::seconds(1);
// Lost in a row, it is the GPU that is ill rather than the candidates.
constexpr int kMostLost = 10;
// A step of a candidate may take as long as so many launches of the best one: a sample is some
// hundred launches at most, and 2 times the best is slow.
constexpr double kPatience = 2000.0;
constexpr double kEndSeconds = 5.0;    // for a process that ends by itself
constexpr double kKillSeconds = 60.0;  // for the driver to take a killed one off the GPU

Channel::Deadline after(double seconds) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// Signals that a terminal or a scheduler sends to all processes of a run: the tuner answers them,
// and ends its measuring process when it is done.
sigset_t signals_of_the_tuner() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP}) {
    ::sigaddset(&signals, signal);
  }
  return signals;
}

// Waits for the process to end; empty if it has not by then.
std::optional<int> wait_until(pid_t pid, Channel::Deadline deadline) {
  while (true) {
    int status = 0;
    const pid_t ended = ::waitpid(pid, &status, WNOHANG);
    if (ended == pid || (ended < 0 && errno != EINTR)) return status;
    if (Clock::now() >= deadline) return std::nullopt;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

std::string ending(int status) {
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    return fmt::format("the measuring process was ended by signal {} ({})", signal,
                       ::strsignal(signal));
  }
  return fmt::format("the measuring process ended with exit code {}", WEXITSTATUS(status));
}

// Whether an answer can be one to the request.
template <class Request, class Answer>
bool fits(const Request& /*request*/, const Answer& /*answer*/) {
  return true;
}
bool fits(const MeasureRequest& /*request*/, const Measurement& answer) {
  return !is_correct(answer.error) || !answer.samples.time_us.empty();
}
bool fits(const ContestRequest& request, const Contest& answer) {
  return answer.kernels.size() == request.kernels.size();
}

}  // namespace

MeasuringProcess::~MeasuringProcess() {
  if (!child_) return;
  child_->channel.reset();  // it ends at the end of its requests
  if (wait_until(child_->pid, after(kEndSeconds))) return;
  ::kill(child_->pid, SIGKILL);
  wait_until(child_->pid, after(kKillSeconds));
}

void MeasuringProcess::spawn() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw Error(ErrorCode::kEnvironment,
                fmt::format("no socket for the measuring process: {}.", std::strerror(errno)));
  }
  auto channel = std::make_unique<Channel>(ends[0]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], kMeasuringSocket);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  // Standard output is for the tuner's own words.
  ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  const sigset_t blocked = signals_of_the_tuner();
  ::posix_spawnattr_setsigmask(&attributes, &blocked);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  std::string name = "w4tune";
  std::string command = kMeasuringCommand;
  std::array<char*, 3> arguments = {name.data(), command.data(), nullptr};
  pid_t pid = 0;
  const int error =
      ::posix_spawn(&pid, setup_.program.c_str(), &actions, &attributes, arguments.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  if (error != 0) {
    throw Error(ErrorCode::kEnvironment,
                fmt::format("{}, which is to measure, can't be started: {}.", setup_.program,
                            std::strerror(error)));
  }
  child_ = Child{pid, std::move(channel)};
}

std::string MeasuringProcess::lose(bool ended_itself) {
  std::optional<int> status;
  child_->channel.reset();
  if (ended_itself) status = wait_until(child_->pid, after(kEndSeconds));
  if (!status) {
    ::kill(child_->pid, SIGKILL);
    status = wait_until(child_->pid, after(kKillSeconds));
  }
  const pid_t pid = child_->pid;
  child_.reset();
  if (!status) {
    throw Error(ErrorCode::kEnvironment,
                fmt::format("the measuring process {} can't be ended: the driver holds it. Look at "
                            "the system's log, and reset the GPU.",
                            pid));
  }
  return ending(*status);
}

std::string MeasuringProcess::prepare() {
  const auto complaint = [](const Attempt<nlohmann::json>& reply) {
    const auto* failure = std::get_if<Failure>(&reply);
    return failure == nullptr ? std::string() : failure->detail;
  };
  std::string why = complaint(exchange(BeginRequest::kName, setup_.begin, setup_.work_limit_s));
  if (why.empty() && opened_) {
    why = complaint(exchange(OpenRequest::kName, *opened_, setup_.work_limit_s));
  }
  if (!why.empty() && child_) lose(false);
  return why;
}

void MeasuringProcess::ensure_started() {
  W4_CHECK(!setup_.program.empty(), "whoever measures names the program that does");
  // One that died while it had nothing to do: no candidate is to blame.
  if (child_ && wait_until(child_->pid, Clock::now())) child_.reset();
  if (child_) return;
  if (lost_in_a_row_ >= kMostLost) {
    throw Error(
        ErrorCode::kEnvironment,
        fmt::format("{} candidates in a row cost the measuring process, the last one: {}. They are "
                    "recorded. Look whether the GPU is well, then run the same command again.",
                    lost_in_a_row_, last_loss_));
  }
  std::string why;
  for (int i = 0; i < kStarts; ++i) {
    if (i > 0) std::this_thread::sleep_for(kBetweenStarts);
    spawn();
    why = prepare();
    if (why.empty()) return;
  }
  throw Error(ErrorCode::kEnvironment,
              fmt::format("the measuring process did not get ready, {} times: {}. See 'w4tune "
                          "doctor'.",
                          kStarts, why));
}

Attempt<nlohmann::json> MeasuringProcess::exchange(std::string_view name, nlohmann::json body,
                                                   double limit_s) {
  Failure failure;
  Channel::Status status =
      child_->channel->send({{"ask", name}, {"body", std::move(body)}}, after(limit_s));
  Channel::Received received;
  double waited_s = limit_s;
  try {
    while (status == Channel::Status::kDone) {
      received = child_->channel->receive(after(waited_s));
      status = received.status;
      if (status != Channel::Status::kDone) break;
      nlohmann::json& message = received.message;
      if (message.contains("answer")) return std::move(message.at("answer"));
      if (message.contains("step")) {
        failure.step = message.at("step").get<int>();
        waited_s = failure.step >= 0 ? limit_s : setup_.work_limit_s;
        continue;
      }
      failure.detail = message.at("error").get<std::string>();
      const auto code = static_cast<ErrorCode>(message.at("code").get<int>());
      failure.lost = message.at("broken").get<bool>();
      if (failure.lost) lose(true);
      if (code != ErrorCode::kDevice) throw Error(code, failure.detail);
      return failure;
    }
  } catch (const nlohmann::json::exception&) {
    status = Channel::Status::kGarbage;
    received.detail = "a message that is none of those it knows";
  }
  failure.lost = true;
  const std::string end = lose(status == Channel::Status::kClosed);
  if (status == Channel::Status::kLate) {
    failure.outcome = Outcome::kTimeout;
    failure.detail = fmt::format("no sign of life for {:.0f} s: the measuring process was ended",
                                 std::ceil(waited_s));
  } else if (status == Channel::Status::kGarbage) {
    failure.detail = fmt::format("the measuring process sent {}", received.detail);
  } else {
    failure.detail = end;
  }
  return failure;
}

template <class Answer, class Request>
Attempt<Answer> MeasuringProcess::attempt(const Request& request, double limit_s) {
  ensure_started();
  Attempt<nlohmann::json> reply = exchange(Request::kName, request, limit_s);
  if (const auto* answer = std::get_if<nlohmann::json>(&reply)) {
    std::optional<Answer> result;
    try {
      result = answer->get<Answer>();
    } catch (const nlohmann::json::exception&) {
      result.reset();
    }
    if (result && fits(request, *result)) {
      lost_in_a_row_ = 0;
      return std::move(*result);
    }
    lose(false);
    reply = Failure{Outcome::kLaunchError,
                    "the measuring process sent an answer to another question", kNoKernel, true};
  }
  const Failure& failure = std::get<Failure>(reply);
  lost_in_a_row_ = failure.lost ? lost_in_a_row_ + 1 : 0;
  last_loss_ = failure.detail;
  return failure;
}

double MeasuringProcess::step_limit_s(double expected_us) const {
  return setup_.step_limit_s + 1e-6 * kPatience * expected_us;
}

Probed MeasuringProcess::probe(bool calibrate) {
  const Attempt<Probed> probed = attempt<Probed>(ProbeRequest{calibrate}, setup_.work_limit_s);
  if (const auto* failure = std::get_if<Failure>(&probed)) {
    throw Error(ErrorCode::kDevice, fmt::format("the GPU can't be probed: {}.", failure->detail));
  }
  return std::get<Probed>(probed);
}

void MeasuringProcess::open(const OpenRequest& request) {
  opened_ = request;
  if (child_) {
    const auto reply = exchange(OpenRequest::kName, request, setup_.work_limit_s);
    if (std::holds_alternative<nlohmann::json>(reply)) return;
    if (child_) lose(false);
  }
  ensure_started();
}

Attempt<ErrorMetrics> MeasuringProcess::check(const CheckRequest& request, double expected_us) {
  return attempt<ErrorMetrics>(request, step_limit_s(expected_us));
}

Attempt<Measurement> MeasuringProcess::measure(const MeasureRequest& request, double expected_us) {
  return attempt<Measurement>(request, step_limit_s(expected_us));
}

Attempt<Contest> MeasuringProcess::contest(const ContestRequest& request, double expected_us) {
  return attempt<Contest>(request, step_limit_s(expected_us));
}

}  // namespace w4tune
