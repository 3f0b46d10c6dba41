#include "tuner/compile_pool.h"

#include <algorithm>

namespace w4tune {

CompilePool::CompilePool(int threads, std::function<Compilation(const CompileJob&)> compile)
    : compile_(std::move(compile)) {
  for (int i = 0; i < std::max(1, threads); ++i) workers_.emplace_back([this] { work(); });
}

CompilePool::~CompilePool() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void CompilePool::provide(Compilation compilation) {
  const std::lock_guard lock(mutex_);
  const std::string key = compilation.key;
  const auto [at, added] = entries_.try_emplace(key);
  if (!added) return;
  at->second.state = State::kDone;
  at->second.result = std::move(compilation);
}

void CompilePool::announce(const CompileJob& job, bool urgent) {
  {
    const std::lock_guard lock(mutex_);
    const auto [at, added] = entries_.try_emplace(job.key);
    if (added) {
      at->second.job = job;
    } else if (!urgent || at->second.state != State::kQueued) {
      return;
    }
    if (urgent) {
      queue_.push_front(job.key);
    } else {
      queue_.push_back(job.key);
    }
  }
  changed_.notify_all();
}

const Compilation& CompilePool::get(const CompileJob& job) {
  announce(job, true);
  std::unique_lock lock(mutex_);
  Entry& entry = entries_.at(job.key);  // std::map: stays where it is
  changed_.wait(lock, [&] { return entry.state == State::kDone; });
  if (entry.failure) std::rethrow_exception(entry.failure);
  return entry.result;
}

int CompilePool::compiled_count() const {
  const std::lock_guard lock(mutex_);
  return compiled_;
}

int CompilePool::queued_count() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(std::count_if(entries_.begin(), entries_.end(), [](const auto& item) {
    return item.second.state != State::kDone;
  }));
}

void CompilePool::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return closing_ || !queue_.empty(); });
    if (closing_) return;
    Entry& entry = entries_.at(queue_.front());
    queue_.pop_front();
    if (entry.state != State::kQueued) continue;
    entry.state = State::kRunning;
    lock.unlock();
    Compilation result;
    std::exception_ptr failure;
    try {
      result = compile_(entry.job);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    entry.result = std::move(result);
    entry.failure = failure;
    entry.state = State::kDone;
    ++compiled_;
    changed_.notify_all();
  }
}

}  // namespace w4tune
