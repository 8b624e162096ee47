// Quotas and effects as programs: plans by enumeration, configs, errors that name the group.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "../../csrc/topreach.h"

namespace {

using topreach::Grouping;
using topreach::ProgramPtr;
using topreach::Quotas;
using torch::Tensor;

constexpr int64_t kSites = 12;

// r = 1 + (7 i + 3) mod 12; municipality i mod 3.
Tensor scores() {
  Tensor r = torch::empty({kSites}, torch::kDouble);
  for (int64_t i = 0; i < kSites; ++i) r[i] = double(1 + (7 * i + 3) % 12);
  return r;
}

Grouping municipalities(const std::vector<int64_t>& lower, const std::vector<int64_t>& upper) {
  std::vector<std::string> group_of_site;
  for (int64_t i = 0; i < kSites; ++i) group_of_site.push_back("m" + std::to_string(i % 3));
  return topreach::plan::group_by("municipality", group_of_site, {"m0", "m1", "m2"}, lower, upper);
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

TEST(Quotas, GiveThePublishedAnswer) {
  const Quotas program(5, {municipalities({2, 1, 1}, {3, 2, 1})});
  const auto solution = program.solve(scores());
  EXPECT_EQ(solution.value, 48);
  EXPECT_EQ(solution.status, "optimal");
  EXPECT_FALSE(solution.gap.has_value());
  EXPECT_EQ((solution.plan * scores()).sum().item<double>(), 48);
  EXPECT_EQ(program.describe(), "Quotas(k=5, 3 groups by municipality)");
}

// All plans of 3 of 12 sites, against every row of random scores.
TEST(Quotas, AreBestAmongAllPlans) {
  torch::manual_seed(0);
  const Quotas program(3, {municipalities({1, 0, 0}, {2, 1, 3})});
  const Tensor r = torch::randn({5, kSites});
  const Tensor plans = program.best(r);
  for (int64_t row = 0; row < 5; ++row) {
    double most = -INFINITY;
    for (int mask = 0; mask < 1 << kSites; ++mask) {
      if (__builtin_popcount(unsigned(mask)) != 3) continue;
      int64_t count[3] = {0, 0, 0};
      double value = 0;
      for (int64_t i = 0; i < kSites; ++i) {
        if (!(mask >> i & 1)) continue;
        ++count[i % 3];
        value += r[row][i].item<double>();
      }
      if (count[0] >= 1 && count[0] <= 2 && count[1] <= 1) most = std::max(most, value);
    }
    EXPECT_NEAR((plans[row] * r[row]).sum().item<double>(), most, 1e-6);
  }
}

TEST(Quotas, ComeBackFromTheirConfig) {
  std::vector<std::string> ids;
  for (int64_t i = 0; i < kSites; ++i) ids.push_back("0" + std::to_string(i));
  const Grouping region{"region", {"all"}, std::vector<int32_t>(kSites, 0), {1}, {5}};
  const Quotas program(5, {municipalities({2, 1, 1}, {3, 2, 1}), region},
                       {1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, ids);
  const ProgramPtr again = topreach::make_program(program.name(), program.config());
  EXPECT_EQ(again->config(), program.config());
  EXPECT_TRUE(torch::equal(again->best(scores()), program.best(scores())));
  std::vector<std::string> turned(ids.rbegin(), ids.rend());
  const ProgramPtr other = program.for_sites("test", turned);
  EXPECT_TRUE(torch::equal(other->best(scores().flip(0)).flip(0), program.best(scores())));
  EXPECT_EQ(program.for_sites("test", ids), nullptr);
}

TEST(Quotas, NameWhatCannotBeMet) {
  EXPECT_EQ(
      error_of([] { Quotas(5, {municipalities({5, 0, 0}, {9, 9, 9})}); }),
      "Quotas: quotas must be feasible, got at least 5 in municipality 'm0' that has 4 sites");
  EXPECT_EQ(error_of([] { Quotas(5, {municipalities({3, 2, 1}, {9, 9, 9})}); }),
            "Quotas: quotas must be feasible, got lower bounds that sum to 6 for k=5");
  const Quotas program(3, {municipalities({0, 2, 0}, {9, 9, 9})});
  Tensor closed = scores();
  for (const int64_t i : {1, 4, 7}) closed[i] = -INFINITY;
  EXPECT_NE(
      error_of([&] { program.best(closed); }).find("at least 2 in municipality 'm1' that has 1"),
      std::string::npos);
  EXPECT_NE(error_of([&] { program.check("f", 11); }).find("f: groups of Quotas"),
            std::string::npos);
}

TEST(Quotas, AreSmoothAndTrain) {
  const Quotas program(5, {municipalities({2, 1, 1}, {3, 2, 1})});
  Tensor r = scores().requires_grad_();
  const Tensor b = program.soft(r, {.sigma = 2.0});
  EXPECT_NEAR(b.sum().item<double>(), 5, 1e-8);
  const Tensor v = torch::arange(double(kSites), torch::kDouble);
  const Tensor gradient = torch::autograd::grad({(b * v).sum()}, {r})[0];
  const double h = 1e-4;
  for (int64_t i = 0; i < kSites; ++i) {
    Tensor up = scores(), down = scores();
    up[i] += h;
    down[i] -= h;
    const Tensor difference = program.soft(up, {.sigma = 2.0}) - program.soft(down, {.sigma = 2.0});
    EXPECT_NEAR(gradient[i].item<double>(), (difference * v).sum().item<double>() / (2 * h), 1e-4);
  }
  const auto value =
      topreach::direct_bpr(r.unsqueeze(0), torch::rand({1, kSites}, torch::kDouble),
                           {.program = std::make_shared<Quotas>(program), .sigma = 2.0});
  EXPECT_TRUE(torch::autograd::grad({value.loss}, {r})[0].isfinite().all().item<bool>());
}

TEST(WithEffect, WeighsValuesAndCounts) {
  const topreach::WithEffect program(std::make_shared<topreach::TopK>(1), {.1, 1.});
  const Tensor r = torch::tensor({5., 1.}), y = torch::tensor({4., 2.});
  EXPECT_TRUE(torch::equal(program.best(r), torch::tensor({0., 1.})));
  EXPECT_NEAR(program.bpr(torch::tensor({50., 1.}), y).item<double>(), .4 / 2, 1e-7);
  const ProgramPtr again = topreach::make_program(program.name(), program.config());
  EXPECT_EQ(again->describe(), "TopK(k=1, by effect)");
  EXPECT_EQ(error_of([] { topreach::WithEffect(std::make_shared<topreach::TopK>(1), {-1.}); }),
            "WithEffect: effect must be a share from 0 to 1, got -1 for site 0");
}

}  // namespace
