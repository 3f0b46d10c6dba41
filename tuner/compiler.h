// Compiler: KernelConfigs to cubins for one architecture, through the cache and the compile pool.
//
// Used by one thread (the one that owns the Store); the pool compiles on others.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cache/store.h"
#include "core/compilation.h"
#include "core/problem.h"
#include "gpu/nvrtc.h"
#include "templates/family.h"
#include "tuner/compile_pool.h"

namespace w4tune {

class Compiler {
 public:
  // `arch` as NVRTC names it, "sm_86" or "compute_86". Throws Error{kEnvironment} without NVRTC.
  // `store` may be nullptr: then nothing is remembered.
  Compiler(std::string arch, const std::string& device_dir, int threads, Store* store);

  // Compiles ahead; before others when `urgent`.
  void announce(const KernelConfig& config, const Problem& problem, bool urgent = false);

  // The compilation of a configuration: from the cache, the pool, or now.
  const Compilation& get(const KernelConfig& config, const Problem& problem);

  // The module of utility kernels (packing, reference). Throws Error{kInternal} with the log when
  // it does not compile.
  Compilation utilities();

  [[nodiscard]] const std::string& arch() const { return arch_; }
  [[nodiscard]] const std::string& source_hash() const { return source_hash_; }

 private:
  CompileJob job(const KernelConfig& config, const Problem& problem);
  void look_up(const CompileJob& job);

  std::string arch_;
  std::string source_hash_;
  std::vector<Header> headers_;
  std::string utility_source_;
  Store* store_;
  std::set<std::string> looked_up_;          // keys the store was asked for
  std::set<std::string> stored_;             // keys the store has
  std::map<std::string, std::string> keys_;  // source text -> key
  std::unique_ptr<CompilePool> pool_;
};

}  // namespace w4tune
