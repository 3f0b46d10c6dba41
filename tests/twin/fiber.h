// Fiber: a function with a stack of its own, which stops where it likes and goes on when resumed.
//
// Everything happens on one OS thread. AddressSanitizer is told of every switch. The stack has a
// guard page, and is used again by later fibers.
#pragma once

#include <boost/context/fiber.hpp>
#include <cstddef>
#include <functional>

namespace w4::twin {

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes a fiber of `body`, which must not let exceptions out; it runs when resumed first. A fiber
  // that was started must have ended before it is destroyed.
  void start(std::function<void()> body);
  [[nodiscard]] bool has_ended() const { return has_ended_; }

  void resume();   // from outside, until it suspends itself or ends
  void suspend();  // from inside, until it is resumed

 private:
  struct Bounds {
    const void* bottom = nullptr;
    std::size_t size = 0;
    void* fake_stack = nullptr;  // AddressSanitizer's, while the stack is not in use
  };

  boost::context::fiber inside_;   // where to go on, while it is suspended
  boost::context::fiber outside_;  // where to return to, while it runs
  Bounds own_;
  Bounds callers_;
  bool has_ended_ = false;
};

}  // namespace w4::twin
