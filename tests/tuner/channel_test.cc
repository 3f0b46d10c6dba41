#include "tuner/channel.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <future>
#include <limits>
#include <string_view>

#include "tuner/measuring_messages.h"

namespace w4tune {
namespace {

using namespace std::chrono_literals;
using Status = Channel::Status;

// A channel and the bare other end of its socket.
class ChannelTest : public testing::Test {
 protected:
  ChannelTest() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
    channel_ = std::make_unique<Channel>(ends[0]);
    other_ = ends[1];
  }
  ~ChannelTest() override { hang_up(); }

  void write(std::string_view bytes) const {
    ASSERT_EQ(::write(other_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  void hang_up() {
    if (other_ >= 0) ::close(other_);
    other_ = -1;
  }
  // What the channel makes of these bytes, after which nothing comes.
  Channel::Received receive(std::string_view bytes) {
    write(bytes);
    hang_up();
    return channel_->receive(soon());
  }

  static Channel::Deadline soon() { return Channel::Clock::now() + 5s; }

  std::unique_ptr<Channel> channel_;
  int other_ = -1;
};

// A frame's first bytes, for a body of `length` below 256.
std::string header(char length, char version = static_cast<char>(Channel::kVersion)) {
  return {'W', '4', 'M', version, length, 0, 0, 0};
}

TEST_F(ChannelTest, CarriesMessagesInOrder) {
  Channel other(::dup(other_));
  const nlohmann::json first = {{"text", "W4M"}, {"number", 3}, {"none", nullptr}};
  EXPECT_EQ(channel_->send(first), Status::kDone);
  EXPECT_EQ(channel_->send(7), Status::kDone);
  EXPECT_EQ(other.receive(soon()).message, first);
  EXPECT_EQ(other.receive(soon()).message, 7);
}

TEST_F(ChannelTest, CarriesMoreThanTheSocketHolds) {
  Channel other(::dup(other_));
  const Bytes image{std::string(5'000'000, '\xff')};
  auto sent = std::async(std::launch::async, [&] { return channel_->send(image, soon()); });
  const Channel::Received received = other.receive(soon());
  EXPECT_EQ(sent.get(), Status::kDone);
  EXPECT_EQ(received.message.get<Bytes>().data, image.data);
}

TEST_F(ChannelTest, CarriesRequestsAndAnswers) {
  Channel other(::dup(other_));
  MeasureRequest request;
  request.kernel.candidate = {{"gemv", {{"row_tile", 16}, {"ahead", 2}}}, {4, 2}};
  request.kernel.footprint = {.row_tile = 16, .threads = 128, .token_map = true};
  request.kernel.key = "key";
  request.kernel.image.data = std::string("\x7f\x00\xff", 3);
  request.m = 10;
  request.best_us = std::numeric_limits<double>::infinity();
  channel_->send(request);
  const auto found = other.receive(soon()).message.get<MeasureRequest>();
  EXPECT_EQ(found.kernel.candidate, request.kernel.candidate);
  EXPECT_EQ(found.kernel.footprint, request.kernel.footprint);
  EXPECT_EQ(found.kernel.image.data, request.kernel.image.data);
  EXPECT_EQ(found.best_us, request.best_us);

  const Problem problem{Op::kGeglu, 64, 512, 512, Dtype::kBF16};
  channel_->send(OpenRequest{problem, 3, 1 << 20, true});
  EXPECT_EQ(other.receive(soon()).message.get<OpenRequest>().problem, problem);

  Measurement measurement{{.worst_ratio = std::numeric_limits<double>::infinity()},
                          {{1.25, 0.1}, {1980.0, 0.0}}};
  channel_->send(measurement);
  const auto back = other.receive(soon()).message.get<Measurement>();
  EXPECT_EQ(back.error, measurement.error);
  EXPECT_EQ(back.samples.time_us, measurement.samples.time_us);

  BeginRequest begin;
  begin.protocol.seed = std::numeric_limits<std::uint64_t>::max();
  channel_->send(begin);
  EXPECT_EQ(other.receive(soon()).message.get<BeginRequest>().protocol.text(),
            begin.protocol.text());
}

TEST_F(ChannelTest, TellsWhenNothingComes) {
  EXPECT_EQ(channel_->receive(Channel::Clock::now() + 20ms).status, Status::kLate);
  write(header(4));
  EXPECT_EQ(channel_->receive(Channel::Clock::now() + 20ms).status, Status::kLate);
  hang_up();
  EXPECT_EQ(channel_->receive(soon()).status, Status::kClosed);
  EXPECT_EQ(channel_->send(1, soon()), Status::kClosed);
}

TEST_F(ChannelTest, TellsWhenNobodyReads) {
  const Bytes image{std::string(5'000'000, 'x')};
  EXPECT_EQ(channel_->send(image, Channel::Clock::now() + 20ms), Status::kLate);
}

TEST_F(ChannelTest, TakesWhatArrivedBeforeALateDeadline) {
  write(header(1) + '\x07');
  const Channel::Received received = channel_->receive(Channel::Clock::now() - 1s);
  EXPECT_EQ(received.status, Status::kDone);
  EXPECT_EQ(received.message, 7);
}

TEST_F(ChannelTest, ABodyCutShort) {
  const Channel::Received received = receive(header(4) + "\x07");
  EXPECT_EQ(received.status, Status::kGarbage);
  EXPECT_EQ(received.detail, "a message that is cut short");
}

TEST_F(ChannelTest, AHeaderCutShort) {
  EXPECT_EQ(receive("W4M").detail, "a message that is cut short");
}

TEST_F(ChannelTest, BytesOfSomethingElse) {
  EXPECT_EQ(receive("Segmentation fault").detail, "bytes that are no message");
}

TEST_F(ChannelTest, AnotherVersion) {
  EXPECT_EQ(receive(header(1, 9) + '\x07').detail, "a message of version 9 instead of 1");
}

TEST_F(ChannelTest, AHugeLengthIsNotAllocated) {
  std::string frame = header(0);
  for (std::size_t i = 4; i < frame.size(); ++i) frame[i] = '\xff';
  EXPECT_EQ(receive(frame).detail, "a message of 4294967295 bytes");
}

TEST_F(ChannelTest, ABodyThatIsNoCbor) {
  EXPECT_EQ(receive(header(2) + "\x9c\xff").detail, "a message that is no CBOR");
}

}  // namespace
}  // namespace w4tune
