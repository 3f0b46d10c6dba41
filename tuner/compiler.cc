#include "tuner/compiler.h"

#include <fmt/format.h>

#include "core/check.h"
#include "w4tune/error.h"

namespace w4tune {

Compiler::Compiler(std::string arch, const std::string& device_dir, int threads, Store* store)
    : arch_(std::move(arch)), store_(store) {
  Nvrtc::get();  // fails here, not on a worker
  const DeviceSources sources = device_sources_from(device_dir);
  headers_ = sources.headers;
  utility_source_ = sources.utilities;
  source_hash_ = sources.hash;
  pool_ = std::make_unique<CompilePool>(threads, [this](const CompileJob& job) {
    return Nvrtc::get().compile(job.source, headers_, arch_);
  });
}

CompileJob Compiler::job(const KernelConfig& config, const Problem& problem) {
  const Family* family = find_family(config.family);
  W4_CHECK(family != nullptr, "a configuration of an unknown family");
  CompileJob job{{}, config, family->source(config, problem)};
  std::string& key = keys_[job.source];
  if (key.empty()) key = Nvrtc::get().compile_key(job.source, headers_, arch_);
  job.key = key;
  return job;
}

void Compiler::look_up(const CompileJob& job) {
  if (store_ == nullptr || !looked_up_.insert(job.key).second) return;
  if (auto known = store_->find_compilation(job.key)) {
    stored_.insert(job.key);
    pool_->provide(std::move(*known));
  }
}

void Compiler::announce(const KernelConfig& config, const Problem& problem, bool urgent) {
  const CompileJob wanted = job(config, problem);
  look_up(wanted);
  pool_->announce(wanted, urgent);
}

const Compilation& Compiler::get(const KernelConfig& config, const Problem& problem) {
  const CompileJob wanted = job(config, problem);
  look_up(wanted);
  const Compilation& result = pool_->get(wanted);
  if (store_ != nullptr && stored_.insert(wanted.key).second) {
    store_->put_compilation(config, result);
  }
  return result;
}

Compilation Compiler::utilities() {
  const std::string key = Nvrtc::get().compile_key(utility_source_, headers_, arch_);
  if (store_ != nullptr) {
    if (auto known = store_->find_compilation(key); known && known->ok()) return *known;
  }
  Compilation result = Nvrtc::get().compile(utility_source_, headers_, arch_);
  if (!result.ok()) {
    throw Error(ErrorCode::kInternal,
                fmt::format("the utility kernels do not compile for {}: {}", arch_, result.log));
  }
  return result;
}

}  // namespace w4tune
