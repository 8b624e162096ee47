// The CUDA kernels of the expected top-K under quotas, run by the host emulation, against the CPU's: the
// same nodes with sums in another order, so value and product agree far below the rule's own error.
#include "../../kernels/cuda/expected_quota_topk.cu"
#include "../../kernels/cuda/quota_topk.cu"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "../../kernels/programs/expected_quota_topk.h"
#include "quota_cases.h"

namespace {

namespace cuda = topreach::kernels::cuda;
namespace kernels = topreach::kernels;
using cuda_emulation::Order;
using quota_cases::Quotas;
using quota_cases::random_quotas;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Case {
  Quotas q;
  int64_t rows;
  double sigma;
  std::vector<double> scores, v;

  Case(Quotas quotas, int64_t rows, double sigma, unsigned seed)
      : q(std::move(quotas)),
        rows(rows),
        sigma(sigma) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < rows * q.sites(); ++i) {
      scores.push_back(normal(random));
      v.push_back(normal(random) + 3);
    }
  }
  int lock(size_t s) const { return q.lock.empty() ? 0 : q.lock[s]; }
};

struct Result {
  std::vector<double> value, product;
};

Result on_cuda(const Case& c) {
  const kernels::QuotaStepArrays arrays(c.q.tree());
  const std::vector<int32_t> numbers = arrays.numbers();
  const kernels::QuotaSteps steps = arrays.at(numbers.data());
  const auto sites = size_t(c.q.sites());
  std::vector<double> mask(c.scores.size(), -1), sorted = c.scores;
  EXPECT_EQ(cuda::quota_topk(steps, c.scores.data(), c.rows, true, mask.data(), nullptr),
            cudaSuccess);
  for (size_t row = 0; row < size_t(c.rows); ++row) {
    double* own = sorted.data() + row * sites;
    for (size_t s = 0; s < sites; ++s)
      if (c.lock(s) != 0 || std::isnan(own[s])) own[s] = -kInfinity;
    std::sort(own, own + sites);
  }
  Result r{std::vector<double>(c.scores.size(), -7), std::vector<double>(c.scores.size(), -7)};
  cuda::ExpectedQuotaProblem<double> p{steps,   c.scores.data(), mask.data(), sorted.data(),
                                       nullptr, c.rows,          c.sigma};
  for (std::vector<double>* out : {&r.value, &r.product}) {
    const int64_t bytes = cuda::expected_quota_topk_workspace(p);
    std::vector<double> workspace(size_t(bytes) / 8);
    std::memset(workspace.data(), 0xFF, size_t(bytes));
    EXPECT_EQ(cuda::expected_quota_topk(p, out->data(), workspace.data(), nullptr), cudaSuccess);
    p.v = c.v.data();
  }
  return r;
}

// As csrc/ops/quota_topk.cpp does it: the problem of the free sites.
Result on_cpu(const Case& c) {
  const auto sites = size_t(c.q.sites());
  const size_t groups = c.q.lower.size();
  Result r{std::vector<double>(c.scores.size(), 0.0), std::vector<double>(c.scores.size(), 0.0)};
  for (size_t row = 0; row < size_t(c.rows); ++row) {
    std::vector<int64_t> lower = c.q.lower, upper = c.q.upper;
    lower.push_back(0);
    upper.push_back(c.q.sites());
    int64_t k = c.q.k;
    std::vector<int32_t> site, group;
    std::vector<double> scores, v;
    for (size_t s = 0; s < sites; ++s) {
      const size_t i = row * sites + s, g = c.q.group[s] < 0 ? groups : size_t(c.q.group[s]);
      if (c.lock(s) > 0) {
        r.value[i] = 1;
        --k;
        lower[g] = std::max<int64_t>(lower[g] - 1, 0);
        --upper[g];
      } else if (c.lock(s) == 0 && std::isfinite(c.scores[i])) {
        site.push_back(int32_t(s));
        group.push_back(int32_t(g));
        scores.push_back(c.scores[i]);
        v.push_back(c.v[i]);
      }
    }
    if (k == 0 || k == int64_t(site.size())) {
      for (const int32_t s : site) r.value[row * sites + size_t(s)] = k > 0 ? 1 : 0;
      continue;
    }
    std::vector<double> value(site.size()), product(site.size());
    kernels::ExpectedQuotaTopK expected(int64_t(site.size()), k, int32_t(groups) + 1, group.data(),
                                        lower.data(), upper.data());
    expected.run(scores.data(), c.sigma, v.data(), value.data(), product.data());
    for (size_t i = 0; i < site.size(); ++i) {
      r.value[row * sites + size_t(site[i])] = std::min(std::max(value[i], 0.0), 1.0);
      r.product[row * sites + size_t(site[i])] = product[i];
    }
  }
  return r;
}

// Tolerance: rounding of some 1e3 terms, and some 1e3 terms below 1e-17 that only one of the two keeps.
void expect_agreement(const Case& c) {
  const Result got = on_cuda(c), want = on_cpu(c);
  double size = 0;
  for (const double v : c.v) size = std::max(size, std::fabs(v));
  for (size_t i = 0; i < got.value.size(); ++i) {
    EXPECT_NEAR(got.value[i], want.value[i], 1e-12) << "value " << i;
    EXPECT_NEAR(got.product[i], want.product[i], 1e-11 * size / c.sigma) << "product " << i;
  }
}

class ExpectedQuotaTopKCuda : public testing::Test {
 protected:
  void TearDown() override { cuda_emulation::schedule(Order::kForward); }
};

TEST_F(ExpectedQuotaTopKCuda, RandomQuotasAreTheCpus) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 16; ++trial) {
    SCOPED_TRACE(trial);
    const int sites = 1 + int(random() % 30);
    const Quotas q = random_quotas(random, sites, int(random() % 6), false, int(random() % 30));
    cuda_emulation::schedule(trial % 3 == 0   ? Order::kForward
                             : trial % 3 == 1 ? Order::kReverse
                                              : Order::kRandom,
                             uint64_t(trial));
    Case c(q, 1, trial % 4 == 0 ? 0.02 : (trial % 4 == 1 ? 3.0 : 0.3), unsigned(trial));
    if (trial % 5 == 0)
      for (double& r : c.scores) r = std::round(r);  // ties
    expect_agreement(c);
  }
}

TEST_F(ExpectedQuotaTopKCuda, ManySitesInOneGroupAndInNone) {
  std::mt19937 random(6);
  expect_agreement(Case(random_quotas(random, 90, 0, false, 30), 1, 0.4, 1));
  expect_agreement(Case(random_quotas(random, 90, 2, false, 40), 1, 0.4, 2));
}

TEST_F(ExpectedQuotaTopKCuda, TakesSitesThatAreClosedAndFarApart) {
  Quotas q;
  for (int s = 0; s < 40; ++s) q.group.push_back(s % 4 - 1);
  q.lower = {2, 0, 5};
  q.upper = {6, 3, 60};
  q.k = 14;
  Case c(q, 3, 0.1, 3);
  for (size_t i = 5; i < 40; i += 7) c.scores[i] = -kInfinity;
  for (size_t i = 40; i < 80; ++i) c.scores[i] = std::round(c.scores[i]) * 1e6;
  expect_agreement(c);
}

// A row's bits do not depend on the other rows; a row that the CPU refuses is NaN.
TEST_F(ExpectedQuotaTopKCuda, RowsStandAlone) {
  std::mt19937 random(8);
  const Quotas q = random_quotas(random, 30, 4, false, 12);
  Case all(q, 4, 0.3, 4), last(q, 1, 0.3, 4);
  all.scores[7] = std::nan("");
  all.scores[35] = kInfinity;
  last.scores.assign(all.scores.begin() + 90, all.scores.end());
  last.v.assign(all.v.begin() + 90, all.v.end());
  const Result a = on_cuda(all), b = on_cuda(last);
  for (size_t i = 0; i < 60; ++i) EXPECT_TRUE(std::isnan(a.value[i]) && std::isnan(a.product[i]));
  for (size_t i = 0; i < 30; ++i) {
    EXPECT_EQ(a.value[90 + i], b.value[i]);
    EXPECT_EQ(a.product[90 + i], b.product[i]);
  }
}

}  // namespace
