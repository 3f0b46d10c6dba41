// Channel: JSON messages over a connected socket, whole or not at all.
//
// A frame is "W4M", a version, the length of what follows (4 bytes, little endian) and a message as
// CBOR. Owns the socket; one thread uses it. What the other end does wrong is a Status, not an
// exception: it may be a process that has gone mad.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace w4tune {

class Channel {
 public:
  using Clock = std::chrono::steady_clock;
  using Deadline = Clock::time_point;
  static constexpr Deadline kNever = Deadline::max();

  static constexpr std::uint8_t kVersion = 1;  // of the frames and of what is said in them
  static constexpr std::size_t kHeaderBytes = 8;
  static constexpr std::size_t kMostBytes = std::size_t{64} << 20;  // of one message

  enum class Status {
    kDone,
    kClosed,   // the other end is gone
    kLate,     // the deadline has passed
    kGarbage,  // what came is no message
  };
  struct Received {
    Status status = Status::kDone;
    nlohmann::json message;
    std::string detail;  // of kGarbage
  };

  explicit Channel(int socket) : socket_(socket) {}
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  ~Channel();

  // A message larger than kMostBytes is a programmer's error.
  Status send(const nlohmann::json& message, Deadline deadline = kNever);
  // The next message. What has arrived is taken even after the deadline.
  Received receive(Deadline deadline = kNever);

 private:
  Status read(void* to, std::size_t bytes, std::size_t& done, Deadline deadline) const;

  int socket_;
};

}  // namespace w4tune
