// Stands where the measuring process stands, without a GPU: every candidate is right, its time
// drawn from its text. Goes wrong where the test says so, in the environment:
//
//   W4_STAND_IN = {"log": FILE, "pause_ms": TIME OF A MEASUREMENT, "do": {WHERE: HOW, ...}}
//
// WHERE is "begin", "check", a candidate's text while it is searched, or that after "contest ".
// The log gets a line for each start, with the process's number, and one for each request.
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#include "tests/core/sample_calibration.h"
#include "tuner/channel.h"
#include "tuner/measuring_messages.h"
#include "tuner/measuring_server.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

using namespace std::chrono_literals;

Calibration stand_in_calibration() {
  Calibration calibration = sample_calibration();
  calibration.mma_source = "stand-in";
  return calibration;
}

class StandIn {
 public:
  explicit StandIn(const nlohmann::json& script) : script_(script), channel_(kMeasuringSocket) {}

  void serve() {
    note(fmt::format("start {}", ::getpid()));
    while (true) {
      const Channel::Received received = channel_.receive();
      if (received.status != Channel::Status::kDone) return;
      answer(received.message);
    }
  }

 private:
  void answer(const nlohmann::json& message) {
    const auto& name = message.at("ask").get_ref<const std::string&>();
    const nlohmann::json& body = message.at("body");
    if (name == ProbeRequest::kName) {
      note(name);
      return say(Probed{true, stand_in_calibration()});
    }
    if (name == BeginRequest::kName) {
      note(name);
      if (go_wrong(name).empty()) say(nullptr);
      return;
    }
    if (name == OpenRequest::kName) {
      note("open " + body.at("problem").get<std::string>());
      return say(nullptr);
    }
    if (name == CheckRequest::kName) {
      const auto request = body.get<CheckRequest>();
      note(name + " " + to_string(request.kernel.candidate));
      step(0);
      if (go_wrong(name).empty()) say(ErrorMetrics{});
      return;
    }
    if (name == MeasureRequest::kName) return measure(body.get<MeasureRequest>());
    contest(body.get<ContestRequest>());
  }

  void measure(const MeasureRequest& request) {
    const std::string text = to_string(request.kernel.candidate);
    note("measure " + text);
    step(0);
    std::this_thread::sleep_for(std::chrono::milliseconds(script_.at("pause_ms").get<int>()));
    Measurement measurement;
    const std::string how = go_wrong(text);
    if (how.empty()) measurement.samples = samples_of(text);
    if (how == "wrong") measurement.error.worst_ratio = 7.0;
    if (how != "answered") say(measurement);
  }

  void contest(const ContestRequest& request) {
    note("contest");
    Contest contest;
    contest.composite.left_out = "a stand-in has none";
    for (std::size_t i = 0; i < request.kernels.size(); ++i) {
      const std::string text = to_string(request.kernels[i].kernel.candidate);
      step(static_cast<int>(i));
      if (go_wrong("contest " + text) == "answered") return;
      contest.kernels.push_back(samples_of(text));
    }
    say(contest);
  }

  static Samples samples_of(const std::string& text) {
    const double time_us =
        20.0 + static_cast<double>(std::hash<std::string>{}(text) % 1000) / 100.0;
    return {{time_us, time_us + 0.01, time_us + 0.02}, {1000.0, 1000.0, 1000.0}};
  }

  // Does what the script has for `what`. Returns how, where an answer is still to come or was
  // given.
  std::string go_wrong(const std::string& what) {
    const nlohmann::json& all = script_.at("do");
    if (!all.contains(what)) return {};
    const auto how = all.at(what).get<std::string>();
    if (how == "hang") std::this_thread::sleep_for(1h);
    if (how == "segv" || how == "kill") {
      std::signal(SIGSEGV, SIG_DFL);  // AddressSanitizer has words of its own
      std::raise(how == "segv" ? SIGSEGV : SIGKILL);
    }
    if (how == "exit") std::_Exit(3);
    if (how == "slow") {
      for (int i = 0; i < 8; ++i) {
        std::this_thread::sleep_for(200ms);
        step(0);
      }
      return {};
    }
    if (how == "garbage") raw("Segmentation fault (core dumped)");
    if (how == "cut") {
      raw(std::string("W4M\x01\x09\x00\x00\x00half", 12));
      std::_Exit(0);
    }
    if (how == "version") raw(std::string("W4M\x02\x01\x00\x00\x00\x07", 9));
    if (how == "huge") raw("W4M\x01\xff\xff\xff\xff");
    if (how == "else") say("no measurement");
    if (how == "refused") error(ErrorCode::kDevice, false);
    if (how == "sticky") {
      error(ErrorCode::kDevice, true);
      std::_Exit(1);
    }
    if (how == "defect") error(ErrorCode::kInternal, false);
    return how == "wrong" ? how : "answered";
  }

  void raw(const std::string& bytes) {
    ::send(kMeasuringSocket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  void error(ErrorCode code, bool broken) {
    channel_.send({{"error", "an error of the stand-in"},
                   {"code", static_cast<int>(code)},
                   {"broken", broken}});
  }
  void say(const nlohmann::json& answer) { channel_.send({{"answer", answer}}); }
  void step(int whose) { channel_.send({{"step", whose}}); }

  void note(const std::string& line) const {
    std::ofstream(script_.at("log").get<std::string>(), std::ios::app) << line << '\n';
  }

  nlohmann::json script_;
  Channel channel_;
};

}  // namespace
}  // namespace w4tune

int main() {
  const char* script = std::getenv("W4_STAND_IN");
  if (script == nullptr) return 2;
  w4tune::StandIn(nlohmann::json::parse(script)).serve();
  return 0;
}
