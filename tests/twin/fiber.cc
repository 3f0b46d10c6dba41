#include "tests/twin/fiber.h"

#include <boost/context/protected_fixedsize_stack.hpp>
#include <memory>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace w4::twin {
namespace {

using boost::context::fiber;
using boost::context::stack_context;

constexpr std::size_t kStackBytes = std::size_t{128} << 10;

class StackPool {
 public:
  ~StackPool() {
    for (stack_context& stack : free_) allocator_.deallocate(stack);
  }
  stack_context take() {
    if (free_.empty()) return allocator_.allocate();
    const stack_context stack = free_.back();
    free_.pop_back();
#if defined(__SANITIZE_ADDRESS__)
    // The frame a fiber ends in never returns, and leaves its red zones.
    __asan_unpoison_memory_region(static_cast<char*>(stack.sp) - stack.size, stack.size);
#endif
    return stack;
  }
  void give_back(const stack_context& stack) { free_.push_back(stack); }

 private:
  boost::context::protected_fixedsize_stack allocator_{kStackBytes};
  std::vector<stack_context> free_;
};

StackPool& stack_pool() {
  static StackPool pool;
  return pool;
}

// What Boost.Context asks for one fiber's stack.
struct PooledStack {
  stack_context stack;
  stack_context allocate() { return stack; }
  void deallocate(stack_context& done) { stack_pool().give_back(done); }
};

void announce_switch([[maybe_unused]] void** save, [[maybe_unused]] const void* bottom,
                     [[maybe_unused]] std::size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(save, bottom, size);
#endif
}

void finish_switch([[maybe_unused]] void* saved, [[maybe_unused]] const void** bottom,
                   [[maybe_unused]] std::size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(saved, bottom, size);
#endif
}

}  // namespace

void Fiber::start(std::function<void()> body) {
  const stack_context stack = stack_pool().take();
  own_ = {static_cast<char*>(stack.sp) - stack.size, stack.size};
  has_ended_ = false;
  inside_ =
      fiber(std::allocator_arg, PooledStack{stack}, [this, run = std::move(body)](fiber&& outside) {
        finish_switch(nullptr, &callers_.bottom, &callers_.size);
        outside_ = std::move(outside);
        run();
        has_ended_ = true;
        announce_switch(nullptr, callers_.bottom, callers_.size);
        return std::move(outside_);
      });
}

void Fiber::resume() {
  announce_switch(&callers_.fake_stack, own_.bottom, own_.size);
  inside_ = std::move(inside_).resume();
  finish_switch(callers_.fake_stack, nullptr, nullptr);
}

void Fiber::suspend() {
  announce_switch(&own_.fake_stack, callers_.bottom, callers_.size);
  outside_ = std::move(outside_).resume();
  finish_switch(own_.fake_stack, &callers_.bottom, &callers_.size);
}

}  // namespace w4::twin
