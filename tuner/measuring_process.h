// MeasuringProcess: the tuner's side of the process that measures (tuner/measuring_server.h).
//
// Started by the first request, as "program measure-worker", with a socket as its descriptor 3. A
// candidate that hangs is ended with its process; the next request finds a new process, with the
// same problem open. The process dies with the thread that uses this object, and with the object.
// One thread uses it.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "tuner/channel.h"
#include "tuner/measuring_messages.h"

namespace w4tune {

struct MeasuringSetup {
  std::string program;  // w4tune, or what stands for it
  BeginRequest begin;
  // Without a sign of life for so long, besides what slow kernels are given, a candidate hangs.
  double step_limit_s = 10.0;
  // The same for what no candidate does: start-up, operands, cuBLASLt.
  double work_limit_s = 300.0;
};

// What came instead of an answer: how a candidate failed.
struct Failure {
  Outcome outcome = Outcome::kLaunchError;  // or kTimeout
  std::string detail;                       // one line
  int step = kNoKernel;                     // whose turn it was: a kernel's index, or another step
  bool lost = false;                        // the process with it
};

template <class Answer>
using Attempt = std::variant<Answer, Failure>;

// Every request throws Error{kEnvironment} where no measuring process stays alive: it did not start
// three times, or candidates cost ten in a row. Errors that are no candidate's fault are rethrown.
class MeasuringProcess {
 public:
  explicit MeasuringProcess(MeasuringSetup setup) : setup_(std::move(setup)) {}
  MeasuringProcess(const MeasuringProcess&) = delete;
  MeasuringProcess& operator=(const MeasuringProcess&) = delete;
  ~MeasuringProcess();

  // These concern no candidate, so their failures are Errors.
  Probed probe(bool calibrate);
  void open(const OpenRequest& request);

  // `expected_us`: what a launch is known to take at best, for how long is too long.
  Attempt<ErrorMetrics> check(const CheckRequest& request, double expected_us);
  Attempt<Measurement> measure(const MeasureRequest& request, double expected_us);
  Attempt<Contest> contest(const ContestRequest& request, double expected_us);

 private:
  struct Child {
    pid_t pid;
    std::unique_ptr<Channel> channel;
  };

  void ensure_started();
  void spawn();
  // "" or why it is of no use.
  std::string prepare();
  // One request of the process that runs; null for an answer that says nothing.
  Attempt<nlohmann::json> exchange(std::string_view name, nlohmann::json body, double limit_s);
  template <class Answer, class Request>
  Attempt<Answer> attempt(const Request& request, double limit_s);
  [[nodiscard]] double step_limit_s(double expected_us) const;

  // Ends what is left of the process. `ended_itself`: it is given time to.
  std::string lose(bool ended_itself);

  MeasuringSetup setup_;
  std::optional<Child> child_;
  std::optional<OpenRequest> opened_;
  int lost_in_a_row_ = 0;
  std::string last_loss_;
};

}  // namespace w4tune
