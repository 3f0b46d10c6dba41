// Cache files for tests of the runtime that need no GPU.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cache/store.h"
#include "tests/cache/samples.h"

namespace w4tune::samples {

inline const std::vector<std::pair<int, Provenance>>& mixed_tokens() {
  static const std::vector<std::pair<int, Provenance>> tokens = {{1, Provenance::kPredicted},
                                                                 {16, Provenance::kMeasured},
                                                                 {128, Provenance::kMeasured},
                                                                 {1024, Provenance::kMeasured}};
  return tokens;
}

// Adds winners of problem() for one GPU, tuned at these M.
inline void add_winners(const std::string& path, const DeviceInfo& gpu,
                        const std::vector<std::pair<int, Provenance>>& tokens = mixed_tokens()) {
  Store store = Store::open(path, Store::Mode::kReadWrite);
  RunInfo info = run_info();
  info.device = gpu;
  const std::int64_t run = store.begin_run(info);
  store.put_compilation(config(), compilation());
  std::vector<Winner> winners;
  for (const auto& [m, provenance] : tokens) winners.push_back(winner(m, provenance));
  store.put_winners(run, problem(), winners);
}

inline DeviceInfo gpu(const std::string& name, int sm, int sm_count) {
  DeviceInfo info = device(name);
  info.sm = sm;
  info.sm_count = sm_count;
  return info;
}

}  // namespace w4tune::samples
