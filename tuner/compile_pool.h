// CompilePool: compiles ahead of the measuring thread, on all cores, each kernel once.
//
// Results come from the cache when it has them (failures too) and go there when they are new. Any
// thread may call; the destructor drops what has not begun and waits for what has.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/compilation.h"
#include "core/kernel_config.h"

namespace w4tune {

// What to compile; the key is that of the compilation it will give.
struct CompileJob {
  std::string key;
  KernelConfig config;
  std::string source;
};

class CompilePool {
 public:
  // `compile` must be safe to call from several threads at once.
  CompilePool(int threads, std::function<Compilation(const CompileJob&)> compile);
  CompilePool(const CompilePool&) = delete;
  CompilePool& operator=(const CompilePool&) = delete;
  ~CompilePool();

  // Makes a known result available; it is never compiled.
  void provide(Compilation compilation);

  // Queues a job behind the others, or before them if it is urgent. Known and queued keys cost
  // nothing.
  void announce(const CompileJob& job, bool urgent = false);

  // The result of a job, compiling it first if needed. Rethrows what `compile` threw.
  const Compilation& get(const CompileJob& job);

  [[nodiscard]] int compiled_count() const;  // results that came from `compile`
  [[nodiscard]] int queued_count() const;

 private:
  enum class State { kQueued, kRunning, kDone };
  struct Entry {
    CompileJob job;
    State state = State::kQueued;
    Compilation result;
    std::exception_ptr failure;
  };

  void work();

  std::function<Compilation(const CompileJob&)> compile_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Entry> entries_;
  std::deque<std::string> queue_;  // keys; an urgent one may stand twice, the later is then stale
  int compiled_ = 0;
  bool closing_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace w4tune
