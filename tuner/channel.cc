#include "tuner/channel.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <span>
#include <vector>

#include "core/check.h"

namespace w4tune {
namespace {

using Status = Channel::Status;

constexpr std::array<std::uint8_t, 3> kMagic = {'W', '4', 'M'};

// Milliseconds for poll(), rounded up; -1 waits for ever.
int milliseconds_until(Channel::Deadline deadline) {
  if (deadline == Channel::kNever) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - Channel::Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, std::numeric_limits<int>::max()));
}

// Until the socket can be read or written, or is closed.
Status wait_for(int socket, short events, Channel::Deadline deadline) {
  pollfd entry{socket, events, 0};
  while (true) {
    const int ready = ::poll(&entry, 1, milliseconds_until(deadline));
    if (ready > 0) return Status::kDone;
    if (ready == 0) return Status::kLate;
    if (errno != EINTR) return Status::kClosed;
  }
}

std::uint32_t length_in(std::span<const std::uint8_t> header) {
  std::uint32_t length = 0;
  for (std::size_t i = 0; i < 4; ++i) length |= std::uint32_t{header[4 + i]} << (8 * i);
  return length;
}

}  // namespace

Channel::~Channel() { ::close(socket_); }

Status Channel::send(const nlohmann::json& message, Deadline deadline) {
  std::vector<std::uint8_t> frame(kHeaderBytes);
  nlohmann::json::to_cbor(message, frame);
  const std::size_t length = frame.size() - kHeaderBytes;
  W4_CHECK(length <= kMostBytes, "a message is too large");
  std::copy(kMagic.begin(), kMagic.end(), frame.begin());
  frame[kMagic.size()] = kVersion;
  for (std::size_t i = 0; i < 4; ++i) frame[4 + i] = static_cast<std::uint8_t>(length >> (8 * i));
  for (std::size_t sent = 0; sent < frame.size();) {
    const Status ready = wait_for(socket_, POLLOUT, deadline);
    if (ready != Status::kDone) return ready;
    const ssize_t n =
        ::send(socket_, frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      sent += static_cast<std::size_t>(n);
    } else if (errno != EINTR && errno != EAGAIN) {
      return Status::kClosed;
    }
  }
  return Status::kDone;
}

Status Channel::read(void* to, std::size_t bytes, std::size_t& done, Deadline deadline) const {
  while (done < bytes) {
    const Status ready = wait_for(socket_, POLLIN, deadline);
    if (ready != Status::kDone) return ready;
    const ssize_t n = ::recv(socket_, static_cast<char*>(to) + done, bytes - done, MSG_DONTWAIT);
    if (n > 0) {
      done += static_cast<std::size_t>(n);
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
      return Status::kClosed;
    }
  }
  return Status::kDone;
}

Channel::Received Channel::receive(Deadline deadline) {
  const auto garbage = [](std::string detail) {
    return Received{Status::kGarbage, {}, std::move(detail)};
  };
  std::array<std::uint8_t, kHeaderBytes> header{};
  std::size_t done = 0;
  Status status = read(header.data(), header.size(), done, deadline);
  if (status == Status::kClosed && done > 0) return garbage("a message that is cut short");
  if (status != Status::kDone) return {status, {}, {}};
  if (!std::equal(kMagic.begin(), kMagic.end(), header.begin())) {
    return garbage("bytes that are no message");
  }
  if (header[kMagic.size()] != kVersion) {
    return garbage(
        fmt::format("a message of version {} instead of {}", header[kMagic.size()], kVersion));
  }
  const std::uint32_t length = length_in(header);
  if (length > kMostBytes) return garbage(fmt::format("a message of {} bytes", length));
  std::vector<std::uint8_t> body(length);
  done = 0;
  status = read(body.data(), body.size(), done, deadline);
  if (status == Status::kClosed) return garbage("a message that is cut short");
  if (status != Status::kDone) return {status, {}, {}};
  Received received;
  received.message = nlohmann::json::from_cbor(body, true, false);
  if (received.message.is_discarded()) return garbage("a message that is no CBOR");
  return received;
}

}  // namespace w4tune
