// The tuner's side of the measuring process, against processes that go wrong in every way; and what
// can be seen of the real one without a GPU.
#include "tuner/measuring_process.h"

#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <thread>

#include "gpu/device.h"
#include "tests/cli/run_command.h"
#include "tests/tuner/stand_in.h"
#include "tuner/measuring_server.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

using Names = std::vector<std::string>;

const Problem kProblem{Op::kGemm, 64, 512, 128, Dtype::kF16};

Candidate candidate(int number) { return {{"gemv", {{"row_tile", number}}}, {1, 1}}; }
std::string text(int number) { return to_string(candidate(number)); }

CompiledCandidate compiled(int number) { return {candidate(number), {}, "key", {"image"}}; }

MeasureRequest request(int number) {
  MeasureRequest request;
  request.kernel = compiled(number);
  request.m = 10;
  return request;
}

ContestRequest contest_of(const std::vector<int>& numbers) {
  ContestRequest request;
  for (const int number : numbers) request.kernels.push_back({compiled(number), 1.0});
  request.m = 10;
  return request;
}

class MeasuringProcessTest : public testing::Test {
 protected:
  MeasuringProcessTest() : script_(testing::UnitTest::GetInstance()->current_test_info()->name()) {
    script_.set({});
  }

  static MeasuringSetup setup(const std::string& program = W4TUNE_STAND_IN) {
    return {.program = program, .begin = {}, .step_limit_s = 0.5, .work_limit_s = 2.0};
  }

  // The failure of a candidate; a measurement is a failure of the test.
  static Failure failure_of(MeasuringProcess& process, int number) {
    const Attempt<Measurement> attempt = process.measure(request(number), 1.0);
    const auto* failure = std::get_if<Failure>(&attempt);
    EXPECT_NE(failure, nullptr) << "it was measured";
    return failure == nullptr ? Failure{} : *failure;
  }
  static bool is_measured(MeasuringProcess& process, int number) {
    const Attempt<Measurement> attempt = process.measure(request(number), 1.0);
    const auto* measurement = std::get_if<Measurement>(&attempt);
    return measurement != nullptr && measurement->samples.time_us.size() == 3;
  }

  // How it ends for a process that does `how` instead of beginning.
  std::string error_at_start(const std::string& how) {
    script_.set({{"begin", how}});
    try {
      MeasuringProcess(setup()).probe(false);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kEnvironment);
      return error.what();
    }
    return "it began";
  }

  // The log without the numbers of the processes.
  Names log() const {
    Names lines = script_.take_log();
    for (std::string& line : lines) {
      if (line.rfind("start", 0) == 0) line = "start";
    }
    return lines;
  }

  StandInScript script_;
};

TEST_F(MeasuringProcessTest, AnswersWhatIsAsked) {
  MeasuringProcess process(setup());
  EXPECT_EQ(process.probe(true).calibration.mma_source, "stand-in");
  process.open({kProblem, 10, 0, false});
  EXPECT_TRUE(is_measured(process, 1));
  EXPECT_TRUE(std::holds_alternative<ErrorMetrics>(process.check({compiled(1), 9}, 1.0)));
  const Attempt<Contest> contest = process.contest(contest_of({1, 2}), 1.0);
  ASSERT_TRUE(std::holds_alternative<Contest>(contest));
  EXPECT_EQ(std::get<Contest>(contest).kernels.size(), 2U);
  EXPECT_EQ(log(), (Names{"start", "begin", "probe", "open " + to_string(kProblem),
                          "measure " + text(1), "check " + text(1), "contest"}));
}

TEST_F(MeasuringProcessTest, ACandidateThatHangsCostsItself) {
  script_.set({{text(1), "hang"}});
  MeasuringProcess process(setup());
  process.open({kProblem, 10, 0, false});
  const Failure failure = failure_of(process, 1);
  EXPECT_EQ(failure.outcome, Outcome::kTimeout);
  EXPECT_EQ(failure.detail, "no sign of life for 1 s: the measuring process was ended");
  EXPECT_EQ(failure.step, 0);
  EXPECT_TRUE(failure.lost);
  EXPECT_TRUE(is_measured(process, 2));
  const std::string opened = "open " + to_string(kProblem);
  EXPECT_EQ(log(), (Names{"start", "begin", opened, "measure " + text(1), "start", "begin", opened,
                          "measure " + text(2)}));
}

TEST_F(MeasuringProcessTest, SignsOfLifeGiveASlowCandidateTime) {
  script_.set({{text(1), "slow"}});
  MeasuringProcess process(setup());
  EXPECT_TRUE(is_measured(process, 1));
}

TEST_F(MeasuringProcessTest, ACandidateThatEndsTheProcessCostsItself) {
  script_.set({{text(1), "segv"}, {text(2), "kill"}, {text(3), "exit"}, {text(4), "sticky"}});
  MeasuringProcess process(setup());
  const Names details = {"the measuring process was ended by signal 11 (Segmentation fault)",
                         "the measuring process was ended by signal 9 (Killed)",
                         "the measuring process ended with exit code 3",
                         "an error of the stand-in"};
  for (std::size_t i = 0; i < details.size(); ++i) {
    const Failure failure = failure_of(process, static_cast<int>(i) + 1);
    EXPECT_EQ(failure.outcome, Outcome::kLaunchError);
    EXPECT_EQ(failure.detail, details[i]);
    EXPECT_TRUE(failure.lost);
  }
  EXPECT_TRUE(is_measured(process, 5));
}

TEST_F(MeasuringProcessTest, AProcessThatTalksNonsenseIsReplaced) {
  script_.set({{text(1), "garbage"},
               {text(2), "cut"},
               {text(3), "version"},
               {text(4), "huge"},
               {text(5), "else"}});
  MeasuringProcess process(setup());
  const Names details = {"bytes that are no message", "a message that is cut short",
                         "a message of version 2 instead of 1", "a message of 4294967295 bytes",
                         "an answer to another question"};
  for (std::size_t i = 0; i < details.size(); ++i) {
    const Failure failure = failure_of(process, static_cast<int>(i) + 1);
    EXPECT_EQ(failure.outcome, Outcome::kLaunchError);
    EXPECT_EQ(failure.detail, "the measuring process sent " + details[i]);
  }
  EXPECT_TRUE(is_measured(process, 6));
}

TEST_F(MeasuringProcessTest, WhatTheDriverRefusesCostsNoProcess) {
  script_.set({{text(1), "refused"}});
  MeasuringProcess process(setup());
  const Failure failure = failure_of(process, 1);
  EXPECT_EQ(failure.outcome, Outcome::kLaunchError);
  EXPECT_FALSE(failure.lost);
  EXPECT_TRUE(is_measured(process, 2));
  EXPECT_EQ(log(), (Names{"start", "begin", "measure " + text(1), "measure " + text(2)}));
}

TEST_F(MeasuringProcessTest, WhatIsNoCandidatesFaultIsAnError) {
  script_.set({{text(1), "defect"}});
  MeasuringProcess process(setup());
  try {
    process.measure(request(1), 1.0);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
  }
}

TEST_F(MeasuringProcessTest, AContestSaysWhoEndedIt) {
  script_.set({{"contest " + text(2), "kill"}, {"contest " + text(3), "hang"}});
  MeasuringProcess process(setup());
  ContestRequest contest = contest_of({1, 2, 3});
  Attempt<Contest> attempt = process.contest(contest, 1.0);
  ASSERT_TRUE(std::holds_alternative<Failure>(attempt));
  EXPECT_EQ(std::get<Failure>(attempt).step, 1);
  contest.kernels.erase(contest.kernels.begin() + 1);
  attempt = process.contest(contest, 1.0);
  ASSERT_TRUE(std::holds_alternative<Failure>(attempt));
  EXPECT_EQ(std::get<Failure>(attempt).step, 1);
  EXPECT_EQ(std::get<Failure>(attempt).outcome, Outcome::kTimeout);
}

TEST_F(MeasuringProcessTest, AProcessThatDiesIdleIsNobodysFault) {
  MeasuringProcess process(setup());
  process.open({kProblem, 10, 0, false});
  const Names lines = script_.take_log();
  ASSERT_EQ(lines.at(0).rfind("start ", 0), 0U);
  ::kill(std::stoi(lines[0].substr(6)), SIGKILL);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_TRUE(is_measured(process, 1));
}

TEST_F(MeasuringProcessTest, LeavesCtrlCToTheTuner) {
  MeasuringProcess process(setup());
  process.probe(false);
  const int pid = std::stoi(script_.take_log().at(0).substr(6));
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP}) ::kill(pid, signal);
  EXPECT_TRUE(is_measured(process, 1));
  EXPECT_EQ(log(), (Names{"measure " + text(1)})) << "by the same process";
}

TEST_F(MeasuringProcessTest, ManyLossesInARowEndTheRun) {
  std::map<std::string, std::string> all;
  for (int i = 0; i < 12; ++i) all[text(i)] = "kill";
  all.erase(text(5));
  script_.set(all);
  MeasuringProcess process(setup());
  for (int i = 0; i < 5; ++i) failure_of(process, i);
  EXPECT_TRUE(is_measured(process, 5));
  for (int i = 0; i < 10; ++i) failure_of(process, i == 5 ? 11 : i);
  try {
    process.measure(request(20), 1.0);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kEnvironment);
    EXPECT_NE(std::string(error.what()).find("10 candidates in a row"), std::string::npos);
  }
}

TEST_F(MeasuringProcessTest, AProcessThatNeverGetsReadyIsAnErrorOfOneLine) {
  for (const std::string how : {"segv", "exit", "garbage", "hang"}) {
    const std::string error = error_at_start(how);
    EXPECT_EQ(error.rfind("the measuring process did not get ready, 3 times: ", 0), 0U) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos);
    EXPECT_EQ(log(), (Names{"start", "begin", "start", "begin", "start", "begin"}));
  }
}

TEST_F(MeasuringProcessTest, AProgramThatIsNotThere) {
  try {
    MeasuringProcess(setup("/no/such/w4tune")).probe(false);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "/no/such/w4tune, which is to measure, can't be started: No such file or "
                 "directory.");
  }
}

// The real program.

TEST_F(MeasuringProcessTest, TheToolMeasuresOrSaysWhyNot) {
  MeasuringSetup real = setup(W4TUNE_CLI);
  real.work_limit_s = 60.0;
  if (device_count() > 0) GTEST_SKIP() << "there is a GPU";
  try {
    MeasuringProcess(real).probe(false);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), no_device_reason());
  }
}

TEST_F(MeasuringProcessTest, TheToolRefusesToMeasureForAUser) {
  const CommandResult result = run_command(std::string(W4TUNE_CLI) + " measure-worker 2>&1 3>&-");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.out,
            "w4tune: measure-worker is what 'w4tune tune' starts to measure. Run that instead.\n");
}

TEST_F(MeasuringProcessTest, TheToolDiesWithWhatStartedIt) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  Channel channel(ends[0]);
  pid_t pid = 0;
  std::thread parent([&] {
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], kMeasuringSocket);
    std::string program = W4TUNE_CLI;
    std::string command = kMeasuringCommand;
    std::array<char*, 3> arguments = {program.data(), command.data(), nullptr};
    ASSERT_EQ(::posix_spawn(&pid, program.c_str(), &actions, nullptr, arguments.data(), environ),
              0);
    ::posix_spawn_file_actions_destroy(&actions);
    channel.send({{"ask", "nothing"}, {"body", nullptr}});
    EXPECT_TRUE(channel.receive().message.contains("error"));  // it is under way
  });
  parent.join();
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  ::close(ends[1]);
}

}  // namespace
}  // namespace w4tune
