// The faults that tests/tuner/isolation_gpu_test.cc runs: they compile, but for the one that must
// not.
#include <gtest/gtest.h>

#include "core/device_info.h"
#include "tests/tuner/faulty_sources.h"
#include "tests/tuner/watched_run.h"
#include "tuner/compiler.h"

namespace w4tune {
namespace {

TEST(FaultySources, CompileButForTheOneThatMustNot) {
  const Workload workload{{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, 10};
  for (const char* name : {"a40", "h200"}) {
    DeviceInfo device = find_known_device(name)->info;
    device.mma_denormals = true;
    std::size_t count = 0;
    const Faults faults = faults_among(likeliest(workload, device, {kFaultyFamily}), count);
    EXPECT_LE(count, 6U) << "the search must come to it early";
    const auto folder =
        std::filesystem::path(W4TUNE_CLI).parent_path() / (std::string("faulty_") + name);
    write_faulty_sources(folder, faults, workload.problem);
    Compiler compiler(arch_name(device.sm), folder.string(), 2, nullptr);
    for (const Candidate& candidate : {faults.hangs, faults.illegal, faults.wrong}) {
      const Compilation& compilation = compiler.get(candidate.config, workload.problem);
      EXPECT_TRUE(compilation.ok()) << compilation.log;
      EXPECT_EQ(compilation.spill_bytes, 0);
    }
    const Compilation& none = compiler.get(faults.no_compile.config, workload.problem);
    EXPECT_FALSE(none.ok());
    EXPECT_NE(none.log.find("made not to compile"), std::string::npos) << none.log;
  }
}

}  // namespace
}  // namespace w4tune
