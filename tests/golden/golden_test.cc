// Texts and bytes that must not change unnoticed. W4_UPDATE_GOLDEN=1 rewrites the expected files.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cache/store.h"
#include "cli/probe_table.h"
#include "cli/table.h"
#include "core/hash.h"
#include "core/weight_layout.h"
#include "generated/cache_sql.h"
#include "templates/mma_pipe.h"
#include "tests/cache/samples.h"
#include "tests/cli/run_command.h"
#include "tests/core/sample_calibration.h"
#include "tests/tuner/sample_reports.h"

namespace w4tune {
namespace {

void expect_golden(const std::string& name, const std::string& got) {
  const std::string path = std::string(W4TUNE_SOURCE_DIR) + "/tests/golden/expected/" + name;
  if (std::getenv("W4_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(path, std::ios::binary) << got;
    return;
  }
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream expected;
  expected << stream.rdbuf();
  ASSERT_TRUE(stream) << path << " is missing: run with W4_UPDATE_GOLDEN=1";
  EXPECT_EQ(got, expected.str())
      << "if this is meant, run with W4_UPDATE_GOLDEN=1 and look at git diff";
}

std::string output_of(const std::string& arguments) {
  // The defaults that depend on the machine are given.
  return run_command("XDG_CACHE_HOME=/cache " + std::string(W4TUNE_CLI) + " " + arguments + " 2>&1")
      .out;
}

TEST(Golden, RenderedSource) {
  const MmaPipe family;
  const KernelConfig config = parse_kernel_config(
      "mma_pipe row_tile=128 token_tile=16 depth_tile=128 stages=4 row_warps=4 token_warps=1 "
      "depth_warps=2 dequant=1 reduce=0 evict_first=0");
  expect_golden("mma_pipe_f16.cu",
                family.source(config, {Op::kGemm, 4096, 1024, 128, Dtype::kF16}));
  expect_golden("mma_pipe_bf16_channel.cu",
                family.source(config, {Op::kGemm, 4096, 1024, 1024, Dtype::kBF16}));
  expect_golden("mma_pipe_f16_geglu.cu",
                family.source(config, {Op::kGeglu, 4096, 1024, 128, Dtype::kF16}));
}

TEST(Golden, RenderedSourceOfTheOtherFamilies) {
  const Problem problem{Op::kGeglu, 4096, 1024, 128, Dtype::kF16};
  for (const char* text :
       {"mma_tile row_tile=128 warp_rows=32 token_tile=88 stages=4 ctas=2 dequant=0",
        "mma_reg row_tile=32 token_tile=16 depth_warps=8 blocks=2 ahead=2 dequant=1",
        "gemv row_tile=32 token_tile=2 depth_warps=8 blocks=2 ahead=2 ctas=2 dequant=2",
        "bulk_pipe row_warps=4 warp_rows=16 depth_warps=1 token_tile=32 depth_tile=256 stages=3 "
        "ahead=0 math=1 dequant=1 reduce=0",
        "wgmma warpgroups=2 fragments=2 token_tile=64 depth_tile=128 stages=4 ahead=0 "
        "dequant=0 reduce=0"}) {
    const KernelConfig config = parse_kernel_config(text);
    expect_golden(config.family + "_f16_geglu.cu",
                  find_family(config.family)->source(config, problem));
  }
}

// The packed weight is a file format: other programs may have stored it.
TEST(Golden, PackedBytes) {
  for (const Op op : {Op::kGemm, Op::kGeglu}) {
    const Problem problem{op, 32, 128, 32, Dtype::kF16};
    const auto rows = static_cast<std::size_t>(weight_rows(problem));
    std::vector<std::uint8_t> nibbles(rows * 64);
    std::vector<std::uint16_t> scales(rows * 4);
    for (std::size_t i = 0; i < nibbles.size(); ++i)
      nibbles[i] = static_cast<std::uint8_t>(i * 37 + 11);
    for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<std::uint16_t>(i);
    std::vector<std::uint32_t> packed(weight_bytes(problem) / 4);
    std::vector<std::uint16_t> packed_scales(scale_bytes(problem) / 2);
    pack_weight(problem, nibbles.data(), NibbleEncoding::kOffset8, scales.data(), packed.data(),
                packed_scales.data());
    std::string text =
        "weight " + sha256_hex({reinterpret_cast<const char*>(packed.data()), packed.size() * 4});
    text += "\nscales " +
            sha256_hex(
                {reinterpret_cast<const char*>(packed_scales.data()), packed_scales.size() * 2}) +
            "\n";
    expect_golden("packed_" + std::string(to_string(op)) + ".txt", text);
  }
}

TEST(Golden, Schema) {
  for (const char* version : {"001", "002", "003", "004", "005"}) {
    expect_golden(fmt::format("schema_{}.sql", version),
                  std::string(sql::text(fmt::format("migration_{}.sql", version))));
  }
}

TEST(Golden, Tables) {
  expect_golden(
      "table.txt",
      format_table({{">M", "kernel", ">us"}, {"1", "a b", "1.25"}, {"1024", "c", "100.50"}}));
}

TEST(Golden, Probe) {
  DeviceInfo device = find_known_device("h200")->info;
  device.calibration = sample_calibration();
  expect_golden("probe.txt", probe_table(device));
}

// A cache with winners that FP16 beats, that beat it, and that nobody compared with it.
TEST(Golden, Show) {
  const samples::Folder folder;
  const std::string db = folder.file("show.db");
  {
    Store store = Store::open(db, Store::Mode::kReadWrite);
    const std::int64_t run = store.begin_run(samples::run_info());
    store.put_compilation(samples::config(), samples::compilation());
    std::vector<Winner> winners;
    for (const auto& [m, baseline_us] :
         {std::pair{1, 61.0}, {16, 45.0}, {512, 29.0}, {712, 28.0}, {1024, 0.0}}) {
      winners.push_back(samples::winner(m, Provenance::kMeasured));
      winners.back().baseline_us = baseline_us;
    }
    store.put_winners(run, samples::problem(), winners);
    Winner fused = samples::winner(16, Provenance::kMeasured);
    fused.problem.op = Op::kGeglu;
    fused.baseline_us = 28.0;
    store.put_winners(run, fused.problem, {fused});
    Winner composite = samples::composite_winner(968);
    composite.problem.dtype = Dtype::kBF16;
    composite.baseline_us = 20.0;
    store.put_winners(run, composite.problem, {composite});
  }
  expect_golden("show.txt", output_of("show --db " + db));
  expect_golden("show.json", output_of("show --json --db " + db));
}

// Files with another winner for one cell, told apart and not, and what lint says of what comes out.
TEST(Golden, MergeAndLint) {
  const samples::Folder folder;
  const auto write = [&](const char* name, double first_us, double second_us, const char* date) {
    Store store = Store::open(folder.file(name), Store::Mode::kReadWrite);
    RunInfo info = samples::run_info();
    info.started_at = date;
    const std::int64_t run = store.begin_run(info);
    store.put_compilation(samples::config(), samples::compilation());
    for (const auto& [m, time_us] : {std::pair{16, first_us}, {64, second_us}}) {
      Winner winner = samples::winner(m, Provenance::kMeasured);
      winner.time_us_median = time_us;
      winner.time_us.clear();
      for (int i = -12; i <= 12; ++i) winner.time_us.push_back(time_us * (1.0 + 0.0002 * i));
      store.put_winners(run, winner.problem, {winner});
    }
    Winner predicted = samples::winner(64, Provenance::kPredicted);
    predicted.time_us = {};
    predicted.time_us_median = second_us;
    store.put_winners(run, predicted.problem, {predicted});
  };
  write("a.db", 30.0, 28.02, "2026-01-01T00:00:00Z");
  write("b.db", 33.0, 28.0, "2026-01-02T00:00:00Z");
  const std::string command = "cd " + folder.path().string() + " && " + W4TUNE_CLI;
  expect_golden("merge.txt", run_command(command + " merge out.db a.db b.db 2>&1").out);
  const auto merged =
      nlohmann::json::parse(run_command(command + " merge --json again.db b.db a.db").out);
  ASSERT_EQ(merged.at("conflicts").size(), 3U);
  EXPECT_EQ(merged.at("conflicts").at(0).at("kept").at("file"), "a.db");
  EXPECT_EQ(merged.at("conflicts").at(0).at("because"), "faster");
  EXPECT_NEAR(merged.at("conflicts").at(0).at("others").at(0).at("slower_by"), 0.1, 1e-9);
  EXPECT_TRUE(merged.at("conflicts").at(2).at("others").at(0).at("interval").is_null());
  expect_golden("lint.txt", run_command(command + " lint out.db 2>&1").out);
  expect_golden("lint.json", run_command(command + " lint --json out.db 2>&1").out);
}

// Two reports with every verdict, a row of another clock, one without samples, and rows without a
// partner.
TEST(Golden, Compare) {
  const samples::Folder folder;
  const auto write = [&](const char* name, const std::vector<double>& times, double clock_mhz,
                         const char* config) {
    TuneResult result;
    result.ceilings = {600.0, 120.0, "cublaslt_8192"};
    int m = *name == 'a' ? 1 : 2;
    for (const double time : times) {
      WorkloadResult row = sample_row(m++, time, 0.0);
      row.winner->candidate.config = parse_kernel_config(config);
      row.winner->time_us.clear();
      for (int i = -5; i <= 5; ++i) row.winner->time_us.push_back(time * (1.0 + 0.0005 * i));
      if (m == 8) row.winner->time_us.clear();
      row.winner->clock_mhz.assign(row.winner->time_us.size(), m == 7 ? clock_mhz : 1700.0);
      result.rows.push_back(std::move(row));
    }
    RunInfo run = sample_run();
    if (*name == 'b') run.nvrtc = "13.1";
    write_file(folder.file(name), report_json(run, result).dump());
  };
  write("a.json", {5.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0}, 1700.0, "mma_pipe row_tile=64");
  write("b.json", {10.5, 9.5, 10.0, 10.1, 11.0, 11.0, 20.0}, 1545.0, "mma_pipe row_tile=32");
  const std::string command =
      "cd " + folder.path().string() + " && " + W4TUNE_CLI + " compare a.json b.json";
  expect_golden("compare.txt", run_command(command + " 2>&1").out);
  expect_golden("compare.md", run_command(command + " --markdown 2>&1").out);
}

TEST(Golden, Help) {
  expect_golden("help.txt", output_of("--help"));
  expect_golden("help_probe.txt", output_of("probe --help"));
  expect_golden("help_compare.txt", output_of("compare --help"));
  expect_golden("help_report.txt", output_of("report --help"));
  expect_golden("help_show.txt", output_of("show --help"));
  expect_golden("help_replay.txt", output_of("replay --help"));
  expect_golden("help_export.txt", output_of("export --help"));
  expect_golden("help_merge.txt", output_of("merge --help"));
  expect_golden("help_lint.txt", output_of("lint --help"));
}

}  // namespace
}  // namespace w4tune
