// merge --measure on a GPU: two winners of one workload, one of them made slow on purpose.
#include "tuner/retime.h"

#include <gtest/gtest.h>

#include "core/stats.h"
#include "gpu/device.h"
#include "tests/cache/samples.h"
#include "tests/tuner/program.h"
#include "tests/tuner/watched_run.h"
#include "tuner/tune.h"

namespace w4tune {
namespace {

TEST(Retime, TimesWhatIsStoredInTurns) {
  if (device_count() == 0) GTEST_SKIP() << no_device_reason();
  const samples::Folder folder;
  Store store = Store::open(folder.file("retime.db"), Store::Mode::kReadWrite);
  TuneOptions options;
  PlanOverrides overrides;
  overrides.m = {16};
  overrides.shapes = {{4096, 1024}};
  options.plan = model_plan("pi05", overrides);
  options.device = query_device(0);
  options.measuring_program = program_under_test();
  options.evaluations = 8;
  options.threads = 8;
  Watcher watcher;
  const TuneResult result = tune_measured(options, store, watcher);
  ASSERT_TRUE(result.rows.at(0).winner);
  Entrant good{*result.rows[0].winner, {}};
  good.winner.composite.reset();
  good.cubin = store.find_compilation(good.winner.compilation_key)->cubin;
  // The same kernel, told that a row of its tiles is twice as high: half of the output is missing.
  Entrant wrong = good;
  wrong.winner.footprint.row_tile *= 2;
  wrong.winner.compilation_key += " wrong";  // kernels are loaded once for each
  Retimer retimer(0, options.device, Protocol{}, Retimer::workspace_for(good.winner));
  const std::vector<Samples> samples = retimer.time({good, wrong, good});
  ASSERT_EQ(samples.size(), 3U);
  EXPECT_EQ(samples[0].time_us.size(), static_cast<std::size_t>(Protocol{}.final_samples));
  EXPECT_TRUE(samples[1].time_us.empty()) << "it computes half of the rows";
  const double ratio = median(samples[0].time_us) / median(samples[2].time_us);
  EXPECT_NEAR(ratio, 1.0, 0.05) << "the same kernel takes the same time";
}

}  // namespace
}  // namespace w4tune
