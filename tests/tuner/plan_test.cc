#include "tuner/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>

#include "w4tune/error.h"

namespace w4tune {
namespace {

std::string write_plan(const std::string& text) {
  const std::string path =
      (std::filesystem::temp_directory_path() / "w4tune_plan_test.json").string();
  std::ofstream(path) << text;
  return path;
}

std::string error_of(const std::string& text) {
  try {
    read_plan(write_plan(text));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one line";
    return error.what();
  }
  return "no error";
}

TEST(Plan, Pi05HasSixLayersAtNineteenM) {
  const Plan plan = model_plan("pi05", {});
  EXPECT_EQ(plan.workloads.size(), 114U);
  const std::vector<Problem> problems = problems_of(plan);
  ASSERT_EQ(problems.size(), 6U);
  EXPECT_EQ(to_string(problems[0]), "gemm_n16384_k2048_g128_f16");
  EXPECT_EQ(to_string(problems[3]), "gemm_n1024_k4096_g128_f16");
  EXPECT_EQ(to_string(problems[4]), "geglu_n16384_k2048_g128_f16");
  EXPECT_EQ(to_string(problems[5]), "geglu_n4096_k1024_g128_f16");
  EXPECT_EQ(tokens_of(plan, problems[1]), default_m());
  EXPECT_EQ(tokens_of(plan, problems[5]), default_m());
}

TEST(Plan, AnOpNarrowsTheModelAndAppliesToShapesOfOnesOwn) {
  PlanOverrides overrides;
  overrides.m = {10};
  overrides.ops = {Op::kGeglu};
  EXPECT_EQ(problems_of(model_plan("pi05", overrides)).size(), 2U);
  overrides.ops = {Op::kGemm};
  EXPECT_EQ(problems_of(model_plan("pi05", overrides)).size(), 4U);
  overrides.ops = {Op::kGemm, Op::kGeglu};
  overrides.shapes = {{2048, 512}};
  const Plan plan = model_plan("pi05", overrides);
  ASSERT_EQ(plan.workloads.size(), 2U);
  EXPECT_EQ(to_string(plan.workloads[1]), "geglu_n2048_k512_g128_f16 m=10");
}

TEST(Plan, OverridesReplaceTheModelsOwn) {
  PlanOverrides overrides;
  overrides.m = {50, 10, 10};
  overrides.shapes = {{4096, 1024}};
  overrides.group_size = -1;
  overrides.dtype = "bf16";
  const Plan plan = model_plan("pi05", overrides);
  ASSERT_EQ(plan.workloads.size(), 2U) << "sorted, without repeats";
  EXPECT_EQ(to_string(plan.workloads[0]), "gemm_n4096_k1024_g1024_bf16 m=10");
  EXPECT_EQ(plan.workloads[1].m, 50);
}

TEST(Plan, RejectsUnknownModelsAndImpossibleShapes) {
  EXPECT_THROW(model_plan("llama", {}), Error);
  PlanOverrides overrides;
  overrides.shapes = {{100, 1024}};
  EXPECT_THROW(model_plan("pi05", overrides), Error);
  overrides.shapes = {{4096, 1024}};
  overrides.m = {0};
  EXPECT_THROW(model_plan("pi05", overrides), Error);
}

TEST(Plan, ReadsAFile) {
  const Plan plan = read_plan(write_plan(
      R"({"workloads": [{"n": 4096, "k": 1024, "m": [10, 1]},
                        {"n": 64, "k": 128, "group": 32, "dtype": "bf16", "m": 7}]})"));
  ASSERT_EQ(plan.workloads.size(), 3U);
  EXPECT_EQ(to_string(plan.workloads[0]), "gemm_n4096_k1024_g128_f16 m=1");
  EXPECT_EQ(to_string(plan.workloads[2]), "gemm_n64_k128_g32_bf16 m=7");
}

TEST(Plan, SaysWhatIsWrongWithAFileAndWhere) {
  EXPECT_NE(error_of("{").find("is not JSON"), std::string::npos);
  EXPECT_NE(error_of(R"({"workloads": []})").find("no workloads"), std::string::npos);
  EXPECT_NE(error_of(R"({"workloads": [{"n": 64}]})").find("workload 0"), std::string::npos);
  EXPECT_NE(error_of(R"({"workloads": [{"n": 64, "k": 128, "size": 1}]})").find("'size'"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"workloads": [{"n": 64, "k": 100, "m": 1}]})").find("K = 100"),
            std::string::npos);
  EXPECT_THROW(read_plan("/no/such/plan.json"), Error);
}

// Every workload is in one shard, in order, no shard is empty, and none costs much more than its
// part.
void expect_divided(const Plan& plan, int count) {
  std::vector<Workload> all;
  double total = 0.0;
  double most = 0.0;
  double largest = 0.0;
  for (const Workload& workload : plan.workloads) {
    total += tuning_cost(workload);
    largest = std::max(largest, tuning_cost(workload));
  }
  for (int index = 1; index <= count; ++index) {
    const Plan shard = shard_of(plan, index, count);
    EXPECT_EQ(shard.name, plan.name);
    EXPECT_FALSE(shard.workloads.empty()) << index << "/" << count;
    double cost = 0.0;
    for (const Workload& workload : shard.workloads) cost += tuning_cost(workload);
    most = std::max(most, cost);
    all.insert(all.end(), shard.workloads.begin(), shard.workloads.end());
  }
  EXPECT_EQ(all, plan.workloads) << count;
  EXPECT_LE(most, 1.25 * total / count + largest) << count << " of " << plan.workloads.size();
}

TEST(Shard, DividesEveryPlan) {
  std::mt19937 random(1);
  const auto draw = [&](int lo, int hi) {
    return std::uniform_int_distribution<int>(lo, hi)(random);
  };
  for (int round = 0; round < 50; ++round) {
    PlanOverrides overrides;
    for (int i = draw(1, 12); i > 0; --i) overrides.m.push_back(1 << draw(0, 12));
    for (int i = draw(1, 6); i > 0; --i) {
      overrides.shapes.emplace_back(64 * draw(1, 256), 128 * draw(1, 128));
    }
    if (draw(0, 1) == 1) overrides.ops = {Op::kGemm, Op::kGeglu};
    const Plan plan = model_plan("pi05", overrides);
    const int workloads = static_cast<int>(plan.workloads.size());
    for (const int count : {1, 2, 3, 7, workloads / 2 + 1, workloads}) {
      if (count <= workloads) expect_divided(plan, count);
    }
  }
}

TEST(Shard, DividesPi05EvenlyAndMostlyBetweenProblems) {
  const Plan plan = model_plan("pi05", {});
  for (int count = 1; count <= 114; ++count) expect_divided(plan, count);
  for (const int count : {2, 3, 4, 8}) {
    double total = 0.0;
    std::vector<double> costs;
    for (int index = 1; index <= count; ++index) {
      costs.push_back(0.0);
      for (const Workload& workload : shard_of(plan, index, count).workloads) {
        costs.back() += tuning_cost(workload);
      }
      total += costs.back();
    }
    EXPECT_LE(*std::max_element(costs.begin(), costs.end()), 1.15 * total / count) << count;
  }
  // Problems of equal cost are not cut.
  PlanOverrides even;
  even.shapes = {{4096, 1024}, {1024, 4096}, {4096, 1024}, {2048, 2048}};
  const Plan four = model_plan("pi05", even);
  for (int index = 1; index <= 3; ++index) {
    EXPECT_EQ(problems_of(shard_of(four, index, 3)).size(), 1U);
  }
}

TEST(Shard, MoreShardsThanWorkloadsAreRefusedByEach) {
  PlanOverrides overrides;
  overrides.m = {1, 10};
  overrides.shapes = {{4096, 1024}};
  const Plan plan = model_plan("pi05", overrides);
  for (const int index : {1, 3}) {
    try {
      shard_of(plan, index, 3);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("at most 2 shards"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace w4tune
