#include "tuner/compile_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>

namespace w4tune {
namespace {

CompileJob job(const std::string& key) { return {key, {"mma_pipe", {}}, "source of " + key}; }

Compilation compiled(const CompileJob& job) {
  Compilation result;
  result.key = job.key;
  result.cubin = job.source;
  return result;
}

TEST(CompilePool, CompilesEachKeyOnce) {
  std::atomic<int> calls{0};
  CompilePool pool(2, [&](const CompileJob& wanted) {
    ++calls;
    return compiled(wanted);
  });
  for (int i = 0; i < 3; ++i) {
    pool.announce(job("a"));
    pool.announce(job("b"), true);
  }
  EXPECT_EQ(pool.get(job("a")).cubin, "source of a");
  EXPECT_EQ(pool.get(job("b")).cubin, "source of b");
  EXPECT_EQ(pool.get(job("a")).cubin, "source of a");
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(pool.compiled_count(), 2);
  EXPECT_EQ(pool.queued_count(), 0);
}

TEST(CompilePool, NeverCompilesWhatIsKnown) {
  CompilePool pool(1, [](const CompileJob& wanted) -> Compilation {
    ADD_FAILURE() << "compiled " << wanted.key;
    return {};
  });
  Compilation known;
  known.key = "a";
  known.log = "it failed before";
  pool.provide(known);
  EXPECT_EQ(pool.get(job("a")).log, "it failed before");
  EXPECT_EQ(pool.compiled_count(), 0);
}

TEST(CompilePool, UrgentJobsOvertakeTheQueue) {
  std::mutex mutex;
  std::vector<std::string> order;
  std::atomic<bool> go{false};
  CompilePool pool(1, [&](const CompileJob& wanted) {
    while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::lock_guard lock(mutex);
    order.push_back(wanted.key);
    return compiled(wanted);
  });
  pool.announce(job("first"));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the worker has begun it
  pool.announce(job("queued"));
  pool.announce(job("later"));
  pool.announce(job("later"), true);
  go = true;
  while (pool.queued_count() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(order, (std::vector<std::string>{"first", "later", "queued"}));
}

TEST(CompilePool, HandsOnWhatTheCompilerThrew) {
  CompilePool pool(1, [](const CompileJob&) -> Compilation { throw std::runtime_error("broken"); });
  EXPECT_THROW(pool.get(job("a")), std::runtime_error);
  EXPECT_THROW(pool.get(job("a")), std::runtime_error) << "again, without compiling again";
  EXPECT_EQ(pool.compiled_count(), 1);
}

TEST(CompilePool, DropsTheQueueWhenItEnds) {
  std::atomic<int> calls{0};
  {
    CompilePool pool(1, [&](const CompileJob& wanted) {
      ++calls;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      return compiled(wanted);
    });
    for (int i = 0; i < 100; ++i) pool.announce(job(std::to_string(i)));
  }
  EXPECT_LT(calls, 100);
}

}  // namespace
}  // namespace w4tune
