// The CUDA kernels of top-K under quotas, run by the host emulation, against the CPU's: plans, shares of
// plans and the conditional estimator must agree bit for bit, whatever the order of threads and however few
// draws a wave holds (kWaveBytes).
#include "../../kernels/cuda/perturbed_quota_topk.cu"
#include "../../kernels/cuda/quota_topk.cu"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "../../kernels/programs/quota_exchange.h"
#include "quota_cases.h"

namespace {

namespace cuda = topreach::kernels::cuda;
namespace kernels = topreach::kernels;
using cuda_emulation::Order;
using quota_cases::Quotas;
using quota_cases::random_quotas;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Arrays of exactly the needed size, so that AddressSanitizer detects overruns.
struct Steps {
  explicit Steps(const Quotas& q, int32_t small = kernels::kSmallQuotaStep)
      : arrays(q.tree(), small),
        numbers(arrays.numbers()),
        view(arrays.at(numbers.data())) {}
  kernels::QuotaStepArrays arrays;
  std::vector<int32_t> numbers;
  kernels::QuotaSteps view;
};

template <typename T>
std::vector<T> plan_of(const Quotas& q, const T* score) {
  kernels::QuotaScratch<T> scratch;
  std::vector<int32_t> chosen(size_t(q.k));
  q.tree().best(score, scratch, chosen.data());
  std::vector<T> mask(size_t(q.sites()), T(0));
  for (const int32_t s : chosen) mask[size_t(s)] = 1;
  return mask;
}

template <typename T>
std::vector<T> masks(const Steps& steps, const std::vector<T>& scores, bool finite = false) {
  std::vector<T> mask(scores.size(), T(-1));
  EXPECT_EQ(cuda::quota_topk(steps.view, scores.data(), int64_t(scores.size()) / steps.view.sites,
                             finite, mask.data(), nullptr),
            cudaSuccess);
  return mask;
}

template <typename T>
bool all_nan(const T* row, int64_t sites) {
  return std::all_of(row, row + sites, [](T x) { return std::isnan(x); });
}

template <typename T>
class QuotaTopKCuda : public testing::Test {
 protected:
  void TearDown() override { cuda_emulation::schedule(Order::kForward); }
};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(QuotaTopKCuda, Types);

TYPED_TEST(QuotaTopKCuda, PlansAreTheCpus) {
  using T = TypeParam;
  std::mt19937 random(3);
  for (int trial = 0; trial < 60; ++trial) {
    const int sites = trial % 8 == 7 ? 200 : 1 + int(random() % 40);
    const Quotas q = random_quotas(random, sites, int(random() % 9), trial % 2 == 0, trial);
    std::vector<T> scores;
    for (int i = 0; i < 2 * sites; ++i) scores.push_back(T(int(random() % 12)) / 4 - 1);  // ties
    cuda_emulation::schedule(trial % 3 == 0   ? Order::kForward
                             : trial % 3 == 1 ? Order::kReverse
                                              : Order::kRandom,
                             uint64_t(trial));
    // Small steps, or none: both ways make the same plan.
    for (const int32_t small : {kernels::kSmallQuotaStep, 0}) {
      const std::vector<T> got = masks(Steps(q, small), scores);
      for (int row = 0; row < 2; ++row) {
        const std::vector<T> want = plan_of(q, scores.data() + row * sites);
        ASSERT_EQ(std::vector<T>(got.begin() + row * sites, got.begin() + (row + 1) * sites), want)
            << "trial " << trial << ", row " << row;
      }
    }
  }
}

TYPED_TEST(QuotaTopKCuda, ManySitesAndBothZeros) {
  using T = TypeParam;
  std::mt19937 random(4);
  Quotas q = random_quotas(random, 3000, 12, true, 700);
  std::vector<T> scores;
  for (int s = 0; s < 3000; ++s) scores.push_back(T(int(random() % 700)) - 350);
  EXPECT_EQ(masks(Steps(q), scores), plan_of(q, scores.data()));
  for (int s = 0; s < 3000; ++s) scores[size_t(s)] = s % 2 ? T(0) : T(-0.0);
  EXPECT_EQ(masks(Steps(q), scores), plan_of(q, scores.data()));
}

TYPED_TEST(QuotaTopKCuda, RefusesRowsAsTheCpuDoes) {
  using T = TypeParam;
  const T infinity = T(kInfinity), nan = std::numeric_limits<T>::quiet_NaN();
  Quotas q;
  q.group = {0, 0, 1, 1, -1};
  q.lower = {1, 0};
  q.upper = {2, 2};
  q.k = 2;
  const std::vector<T> scores{1,         2,         3, 4, 0,          //
                              1,         nan,       3, 4, 0,          //
                              -infinity, -infinity, 3, 4, 0,          // one of group 0 is needed
                              -infinity, 2,         3, 4, -infinity,  //
                              infinity,  2,         3, 4, 0};
  const std::vector<T> mask = masks(Steps(q), scores), finite = masks(Steps(q), scores, true);
  const bool refused[] = {false, true, true, false, false};
  for (int row = 0; row < 5; ++row) {
    SCOPED_TRACE(row);
    EXPECT_EQ(all_nan(mask.data() + 5 * row, 5), refused[row]);
    EXPECT_EQ(all_nan(finite.data() + 5 * row, 5), refused[row] || row == 4);
    if (!refused[row]) {
      EXPECT_EQ(std::vector<T>(mask.begin() + 5 * row, mask.begin() + 5 * row + 5),
                plan_of(q, scores.data() + 5 * row));
    }
  }
}

// ---- perturbed ---------------------------------------------------------------------------------

template <typename T>
struct Case {
  Quotas q;
  int64_t rows, draws;
  double sigma;
  bool conditional;
  std::vector<T> scores, v;
  int64_t key[2] = {0x1234567890ABCDEF, -77};
  int64_t row_offset = 5;

  Case(Quotas quotas, int64_t rows, int64_t draws, double sigma, bool conditional,
       unsigned seed = 1)
      : q(std::move(quotas)),
        rows(rows),
        draws(draws),
        sigma(sigma),
        conditional(conditional) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < rows * q.sites(); ++i) {
      scores.push_back(T(normal(random)));
      v.push_back(T(normal(random)));
    }
  }
};

template <typename T>
struct Result {
  std::vector<T> value, grad;
};

template <typename T>
Result<T> on_cuda(const Case<T>& c) {
  const Steps steps(c.q);
  const std::vector<T> mask = masks(steps, c.scores, c.conditional);
  Result<T> r{std::vector<T>(c.scores.size(), T(-7)), std::vector<T>(c.scores.size(), T(-7))};
  cuda::PerturbedQuotaProblem<T> p{steps.view,    c.scores.data(), mask.data(), c.rows,
                                   c.sigma,       c.draws,         c.key,       c.row_offset,
                                   c.conditional, nullptr,         nullptr};
  const int64_t bytes = cuda::perturbed_quota_topk_workspace(p);
  std::vector<double> workspace(size_t(bytes + 7) / 8, NAN);
  EXPECT_EQ(cuda::perturbed_quota_topk(p, r.value.data(), workspace.data(), nullptr), cudaSuccess);
  std::fill(workspace.begin(), workspace.end(), NAN);
  p.v = c.v.data();
  p.membership = r.value.data();
  EXPECT_EQ(cuda::perturbed_quota_topk(p, r.grad.data(), workspace.data(), nullptr), cudaSuccess);
  return r;
}

// One draw's parts of value and gradient, by the CPU's kernels: plans for score_loo.
template <typename T>
void plan_parts(const Case<T>& c, const T* scores, const T* v, const std::vector<T>& u,
                const std::vector<float>& z, double centre, std::vector<double>& value,
                std::vector<double>& grad) {
  const std::vector<T> plan = plan_of(c.q, u.data());
  double reach = 0;
  for (size_t s = 0; s < u.size(); ++s) reach += plan[s] > 0 ? double(v[s]) : 0.0;
  for (size_t s = 0; s < u.size(); ++s) {
    value[s] += double(plan[s]);
    grad[s] += std::isfinite(scores[s]) ? (reach - centre) * double(z[s]) : 0.0;
  }
}

// And exchanges of the free sites, as csrc/ops/perturbed_quota_topk.cpp forms them.
template <typename T>
void exchange_parts(const Case<T>& c, const T* scores, const T* v, const std::vector<T>& u,
                    const std::vector<float>& z, std::vector<double>& value,
                    std::vector<double>& grad) {
  const size_t groups = c.q.lower.size();
  Quotas free;
  free.k = c.q.k;
  free.lower = c.q.lower;
  free.upper = c.q.upper;
  free.lower.push_back(0);
  free.upper.push_back(c.q.sites());
  std::vector<int32_t> site;
  std::vector<T> own;
  for (size_t s = 0; s < u.size(); ++s) {
    const size_t g = c.q.group[s] < 0 ? groups : size_t(c.q.group[s]);
    const int lock = c.q.lock.empty() ? 0 : c.q.lock[s];
    if (lock > 0) {
      --free.k;
      free.lower[g] = std::max<int64_t>(free.lower[g] - 1, 0);
      --free.upper[g];
    } else if (lock == 0 && std::isfinite(scores[s])) {
      site.push_back(int32_t(s));
      free.group.push_back(int32_t(g));
      own.push_back(u[s]);
    }
  }
  kernels::QuotaScratch<T> scratch;
  std::vector<int32_t> chosen(size_t(free.k));
  free.tree().best(own.data(), scratch, chosen.data());
  kernels::QuotaExchange<T> exchange;
  exchange.fill(own.data(), int64_t(site.size()), chosen.data(), free.k, int32_t(groups) + 1,
                free.group.data(), free.lower.data(), free.upper.data());
  for (size_t i = 0; i < site.size(); ++i) {
    const auto s = size_t(site[i]);
    const int32_t partner = exchange.partner(int32_t(i));
    if (partner < 0) {
      value[s] += exchange.is_chosen(int32_t(i)) ? 1 : 0;
      continue;
    }
    const auto other = size_t(site[size_t(partner)]);
    const double x = (double(scores[other]) - double(scores[s])) / c.sigma + double(z[other]);
    value[s] += kernels::upper_tail<kernels::Noise::kNormal>(x);
    grad[s] += kernels::density<kernels::Noise::kNormal>(x) * (double(v[s]) - double(v[other]));
  }
}

template <typename T>
Result<T> on_cpu(const Case<T>& c, const std::vector<T>& membership) {
  const auto sites = size_t(c.q.sites());
  Result<T> r{std::vector<T>(c.scores.size()), std::vector<T>(c.scores.size())};
  for (int64_t row = 0; row < c.rows; ++row) {
    const T *scores = c.scores.data() + row * c.q.sites(), *v = c.v.data() + row * c.q.sites();
    double centre = 0;
    for (size_t s = 0; s < sites; ++s)
      centre += double(membership[size_t(row) * sites + s]) * double(v[s]);
    std::vector<double> value(sites, 0.0), grad(sites, 0.0);
    for (int64_t begin = 0; begin < c.draws; begin += kernels::kDrawBlock) {
      std::vector<double> value_part(sites, 0.0), grad_part(sites, 0.0);
      for (int64_t j = begin; j < std::min(c.draws, begin + kernels::kDrawBlock); ++j) {
        std::vector<float> z(sites);
        kernels::noise_row_cpu({uint32_t(c.key[0]), uint32_t(c.key[1])}, kernels::Noise::kNormal,
                               c.q.sites(), uint32_t(j), uint32_t(c.row_offset + row), z.data());
        std::vector<T> u(sites);
        for (size_t s = 0; s < sites; ++s) u[s] = kernels::fused(T(c.sigma), T(z[s]), scores[s]);
        if (c.conditional)
          exchange_parts(c, scores, v, u, z, value_part, grad_part);
        else
          plan_parts(c, scores, v, u, z, centre, value_part, grad_part);
      }
      for (size_t s = 0; s < sites; ++s) value[s] += value_part[s], grad[s] += grad_part[s];
    }
    const double draws = double(c.conditional ? c.draws : c.draws - 1);
    for (size_t s = 0; s < sites; ++s) {
      const int lock = c.q.lock.empty() ? 0 : c.q.lock[s];
      const size_t i = size_t(row) * sites + s;
      r.value[i] = c.conditional && lock > 0 ? T(1) : T(value[s] / double(c.draws));
      r.grad[i] = lock != 0 ? T(0) : T(grad[s] / (draws * c.sigma));
    }
  }
  return r;
}

template <typename T>
void expect_agreement(const Case<T>& c) {
  const Result<T> got = on_cuda(c), want = on_cpu(c, got.value);
  EXPECT_EQ(got.value, want.value);
  if (c.conditional) {
    EXPECT_EQ(got.grad, want.grad);
    return;
  }
  // b_j . v - b . v is summed in another order: S eps sum |v| a draw, times |z| < 7, over sigma.
  double size = 0;
  for (const T v : c.v) size += std::fabs(double(v));
  const double off = 7 * double(c.q.sites()) * 2.3e-16 * size / c.sigma;
  for (size_t i = 0; i < got.grad.size(); ++i)
    EXPECT_NEAR(got.grad[i], want.grad[i],
                off + std::numeric_limits<T>::epsilon() * std::fabs(double(want.grad[i])))
        << i;
}

TYPED_TEST(QuotaTopKCuda, PerturbedIsTheCpus) {
  std::mt19937 random(6);
  for (int trial = 0; trial < 20; ++trial) {
    SCOPED_TRACE(trial);
    const int sites = 1 + int(random() % 90);
    const bool conditional = trial % 2 == 0;
    const Quotas q =
        random_quotas(random, sites, int(random() % 7), !conditional, int(random() % 90));
    cuda_emulation::schedule(trial % 3 == 0 ? Order::kForward : Order::kRandom, uint64_t(trial));
    Case<TypeParam> c(q, 2, 2 + int64_t(random() % 24), 0.3, conditional, unsigned(trial));
    if (trial % 5 == 4) {  // ties in u: noise below the rounding of the scores
      for (TypeParam& r : c.scores) r = std::round(r) + TypeParam(4);
      c.sigma = 1e-30;
      for (TypeParam& v : c.v) v = std::round(v);
    }
    expect_agreement(c);
  }
}

TYPED_TEST(QuotaTopKCuda, PerturbedTakesSitesThatAreClosed) {
  std::mt19937 random(7);
  for (int trial = 0; trial < 6; ++trial) {
    SCOPED_TRACE(trial);
    Quotas q;
    for (int s = 0; s < 60; ++s) q.group.push_back(s % 4 - 1);
    q.lower = {2, 0, 5};
    q.upper = {6, 3, 60};
    q.k = 14;
    if (trial % 3 == 0) {
      q.lock.assign(60, 0);
      q.lock[1] = q.lock[2] = 1;
      q.lock[3] = -1;
    }
    Case<TypeParam> c(q, 3, 21, 0.5, trial % 2 == 0, unsigned(trial));
    for (size_t i = 0; i < c.scores.size(); ++i)
      if (i % 60 > 3 && random() % 4 == 0) c.scores[i] = -TypeParam(kInfinity);
    expect_agreement(c);
  }
}

TYPED_TEST(QuotaTopKCuda, PerturbedRowsStandAlone) {
  std::mt19937 random(8);
  const int64_t sites = 50;
  const Quotas q = random_quotas(random, int(sites), 5, false, 20);
  for (const bool conditional : {false, true}) {
    Case<TypeParam> all(q, 4, 23, 0.4, conditional), last(q, 1, 23, 0.4, conditional);
    const auto from = size_t(3 * sites);
    last.scores.assign(all.scores.begin() + long(from), all.scores.end());
    last.v.assign(all.v.begin() + long(from), all.v.end());
    last.row_offset = all.row_offset + 3;
    all.scores[7] = std::numeric_limits<TypeParam>::quiet_NaN();
    const auto a = on_cuda(all), b = on_cuda(last);
    EXPECT_TRUE(all_nan(a.value.data(), sites) && all_nan(a.grad.data(), sites));
    EXPECT_TRUE(std::equal(b.value.begin(), b.value.end(), a.value.begin() + long(from)));
    EXPECT_TRUE(std::equal(b.grad.begin(), b.grad.end(), a.grad.begin() + long(from)));
  }
}

}  // namespace
