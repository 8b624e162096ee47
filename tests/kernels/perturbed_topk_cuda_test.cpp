// The CUDA kernels of the perturbed top-K, run by the host emulation, against the CPU kernels: the
// noise, thresholds, counts, the gradient of estimator "score", and boundaries, value and gradient of
// the conditional estimator must agree bit for bit, whatever the order in which threads and blocks run.
#include "../../kernels/cuda/conditional_topk.cu"
#include "../../kernels/cuda/perturbed_topk.cu"
#include "../../kernels/cuda/topk_mask.cu"
#include "../../kernels/cuda/topk_noise.cu"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "../../kernels/perturbed_topk.h"

namespace {

namespace cuda = topreach::kernels::cuda;
using cuda_emulation::Order;
using topreach::kernels::kDrawBlock;
using topreach::kernels::Noise;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Noise kNoises[] = {Noise::kNormal, Noise::kGumbel, Noise::kLogistic, Noise::kLaplace};

template <typename T>
struct Result {
  std::vector<T> membership, value, grad, grad_loo, conditional, conditional_grad;
  std::vector<int32_t> last_tied, boundary;
};

template <typename T>
struct Case {
  int64_t rows, sites, k, draws;
  T sigma;
  Noise noise = Noise::kNormal;
  std::vector<T> scores, v;
  int64_t key[2] = {0x1234567890ABCDEF, -77};
  int64_t row_offset = 5;

  Case(int64_t rows, int64_t sites, int64_t k, int64_t draws, double sigma, unsigned seed = 1)
      : rows(rows),
        sites(sites),
        k(k),
        draws(draws),
        sigma(T(sigma)) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < rows * sites; ++i) {
      scores.push_back(T(normal(random)));
      v.push_back(T(normal(random)));
    }
  }
  T scale() const { return T(1) / T(draws); }
};

template <typename T>
T dot(const T* a, const T* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double(a[i]) * double(b[i]);
  return T(sum);
}

// As csrc/ops/perturbed_topk.cpp does it.
template <typename T>
Result<T> on_cpu(const Case<T>& c) {
  const topreach::kernels::TopKProblem<T> p{c.scores.data(),
                                            c.rows,
                                            c.sites,
                                            c.k,
                                            c.sigma,
                                            c.draws,
                                            {uint32_t(c.key[0]), uint32_t(c.key[1])},
                                            c.row_offset};
  const auto& cpu = topreach::kernels::topk_cpu<T>();
  Result<T> r;
  r.membership.assign(c.scores.size(), T(0));
  r.grad.assign(c.scores.size(), T(0));
  r.grad_loo.assign(c.scores.size(), T(0));
  r.conditional.assign(c.scores.size(), T(0));
  r.conditional_grad.assign(c.scores.size(), T(0));
  r.value.assign(size_t(c.rows * c.draws), T(0));
  r.last_tied.assign(size_t(c.rows * c.draws), 0);
  r.boundary.assign(size_t(2 * c.rows * c.draws), -1);
  std::vector<unsigned char> memory(size_t(topreach::kernels::TopKScratch<T>::bytes(c.sites) + 64));
  void* scratch = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
  for (int64_t row = 0; row < c.rows; ++row) {
    std::vector<int32_t> counts(size_t(c.sites), 0);
    T* value = r.value.data() + row * c.draws;
    int32_t* last_tied = r.last_tied.data() + row * c.draws;
    const auto bracket = cpu.bracket(p, c.noise, row, scratch);
    cpu.forward(p, c.noise, row, bracket, 0, c.draws, counts.data(), value, last_tied, scratch);
    T* b = r.membership.data() + row * c.sites;
    for (int64_t s = 0; s < c.sites; ++s) b[s] = T(counts[size_t(s)]) / T(c.draws);
    const T* v = c.v.data() + row * c.sites;
    for (const bool leave_one_out : {false, true}) {
      const T centre = leave_one_out ? dot(b, v, c.sites) : T(0);
      T* grad = (leave_one_out ? r.grad_loo : r.grad).data() + row * c.sites;
      for (int64_t begin = 0; begin < c.draws; begin += kDrawBlock) {
        std::vector<T> part(size_t(c.sites), T(0));
        cpu.backward(p, c.noise, row, v, centre, begin, std::min(c.draws, begin + kDrawBlock),
                     value, last_tied, part.data(), scratch);
        for (int64_t s = 0; s < c.sites; ++s) grad[s] += part[size_t(s)];
      }
      for (int64_t s = 0; s < c.sites; ++s)
        grad[s] = std::isinf(c.scores[size_t(row * c.sites + s)]) ? T(0) : grad[s] * c.scale();
    }
    b = r.conditional.data() + row * c.sites;
    T* grad = r.conditional_grad.data() + row * c.sites;
    int32_t* boundary = r.boundary.data() + 2 * row * c.draws;
    for (int64_t begin = 0; begin < c.draws; begin += kDrawBlock) {
      const int64_t end = std::min(c.draws, begin + kDrawBlock);
      std::vector<T> tails(size_t(c.sites), T(0)), densities(size_t(c.sites), T(0));
      cpu.conditional_forward(p, c.noise, row, bracket, begin, end, tails.data(), value, last_tied,
                              boundary, scratch);
      cpu.conditional_backward(p, c.noise, row, v, begin, end, value, last_tied, boundary,
                               densities.data(), scratch);
      for (int64_t s = 0; s < c.sites; ++s) b[s] += tails[size_t(s)];
      for (int64_t s = 0; s < c.sites; ++s) grad[s] += densities[size_t(s)];
    }
    for (int64_t s = 0; s < c.sites; ++s) {
      const T score = c.scores[size_t(row * c.sites + s)];
      const bool chosen = score > value[0] || (score == value[0] && s <= last_tied[0]);
      b[s] = std::isinf(score) ? T(chosen) : b[s] / T(c.draws);
      grad[s] = std::isinf(score) ? T(0) : grad[s] * c.scale();
    }
  }
  return r;
}

template <typename T>
Result<T> on_cuda(const Case<T>& c) {
  const cuda::TopKProblem<T> p{c.scores.data(), c.rows,  c.sites, c.k,
                               c.sigma,         c.draws, c.key,   c.row_offset};
  Result<T> r;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  r.membership.assign(c.scores.size(), nan);
  r.grad.assign(c.scores.size(), nan);
  r.grad_loo.assign(c.scores.size(), nan);
  r.conditional.assign(c.scores.size(), nan);
  r.conditional_grad.assign(c.scores.size(), nan);
  r.value.assign(size_t(c.rows * c.draws), nan);
  r.last_tied.assign(size_t(c.rows * c.draws), -1);
  r.boundary.assign(size_t(2 * c.rows * c.draws), -1);
  // Exactly as large as asked for, so that AddressSanitizer detects overruns; and poisoned.
  const size_t bytes = size_t(cuda::perturbed_topk_workspace<T>(c.rows, c.draws));
  std::vector<T> workspace(bytes / sizeof(T), nan);
  EXPECT_EQ(cuda::perturbed_topk(p, c.noise, r.membership.data(), r.value.data(),
                                 r.last_tied.data(), workspace.data(), nullptr),
            cudaSuccess);
  for (const bool leave_one_out : {false, true}) {
    std::fill(workspace.begin(), workspace.end(), nan);
    T* grad = (leave_one_out ? r.grad_loo : r.grad).data();
    EXPECT_EQ(cuda::perturbed_topk_backward(p, c.noise, c.v.data(), r.membership.data(),
                                            r.value.data(), r.last_tied.data(), leave_one_out,
                                            c.scale(), grad, workspace.data(), nullptr),
              cudaSuccess);
  }
  std::vector<T> value(r.value.size(), nan);
  std::vector<int32_t> last_tied(r.last_tied.size(), -1);
  std::fill(workspace.begin(), workspace.end(), nan);
  EXPECT_EQ(cuda::conditional_topk(p, c.noise, r.conditional.data(), value.data(), last_tied.data(),
                                   r.boundary.data(), workspace.data(), nullptr),
            cudaSuccess);
  EXPECT_EQ(last_tied, r.last_tied);
  std::fill(workspace.begin(), workspace.end(), nan);
  EXPECT_EQ(cuda::conditional_topk_backward(p, c.noise, c.v.data(), value.data(), last_tied.data(),
                                            r.boundary.data(), c.scale(), r.conditional_grad.data(),
                                            workspace.data(), nullptr),
            cudaSuccess);
  return r;
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <typename T>
void expect_agreement(const Case<T>& c) {
  const auto cpu = on_cpu(c), gpu = on_cuda(c);
  EXPECT_EQ(gpu.value, cpu.value);  // as numbers: the two zeros are one
  EXPECT_TRUE(same_bits(gpu.last_tied, cpu.last_tied));
  EXPECT_TRUE(same_bits(gpu.membership, cpu.membership));
  EXPECT_TRUE(same_bits(gpu.grad, cpu.grad));
  EXPECT_TRUE(same_bits(gpu.boundary, cpu.boundary));
  EXPECT_TRUE(same_bits(gpu.conditional, cpu.conditional));
  EXPECT_TRUE(same_bits(gpu.conditional_grad, cpu.conditional_grad));
  // The centre is a double sum in another order: it differs by at most n eps sum |b v|, rounded to
  // T, and enters each of J weights of a gradient mean_j w_j score(z_j), scores below 25.
  for (int64_t row = 0; row < c.rows; ++row) {
    double size = 0, weights = 0;
    for (int64_t s = 0; s < c.sites; ++s) {
      const size_t i = size_t(row * c.sites + s);
      size += std::abs(double(cpu.membership[i]) * double(c.v[i]));
      weights += std::abs(double(c.v[i]));
    }
    const double eps = std::numeric_limits<T>::epsilon();
    const double off = size * (double(c.sites) * 1.2e-16 + eps) * 25;
    const double rounding = weights * eps * 25;
    for (int64_t s = 0; s < c.sites; ++s) {
      const size_t i = size_t(row * c.sites + s);
      EXPECT_NEAR(gpu.grad_loo[i], cpu.grad_loo[i], off + rounding) << "site " << s;
    }
  }
}

template <typename T>
class PerturbedTopKCuda : public testing::Test {
 protected:
  void TearDown() override { cuda_emulation::schedule(Order::kForward); }
};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(PerturbedTopKCuda, Types);

TEST(TopKNoiseCuda, HasTheBitsOfTheCpu) {
  const int64_t key[2] = {-1, 42}, rows = 3, draws = 4, offset = 9;
  for (const Noise noise : kNoises) {
    for (const int64_t sites : {1, 15, 64, 65, 1620}) {
      std::vector<float> z(size_t(draws * rows * sites), -1);
      ASSERT_EQ(cuda::topk_noise(key, noise, draws, rows, sites, offset, z.data(), nullptr),
                cudaSuccess);
      std::vector<int64_t> sums(size_t(rows), -1);
      ASSERT_EQ(
          cuda::topk_noise_checksum(key, noise, draws, rows, sites, offset, sums.data(), nullptr),
          cudaSuccess);
      const topreach::kernels::PhiloxKey words{uint32_t(key[0]), uint32_t(key[1])};
      std::vector<float> expected(static_cast<size_t>(sites));
      for (int64_t row = 0; row < rows; ++row) {
        EXPECT_EQ(sums[size_t(row)], int64_t(topreach::kernels::noise_checksum_cpu(
                                         words, noise, sites, draws, uint32_t(offset + row))));
        for (int64_t j = 0; j < draws; ++j) {
          topreach::kernels::noise_row_cpu(words, noise, sites, uint32_t(j), uint32_t(offset + row),
                                           expected.data());
          EXPECT_EQ(0, std::memcmp(expected.data(), z.data() + (j * rows + row) * sites,
                                   size_t(sites) * sizeof(float)));
        }
      }
    }
  }
}

TYPED_TEST(PerturbedTopKCuda, AgreesForManyShapes) {
  for (const int64_t sites : {2, 9, 64, 65, 300, 1620, 3000}) {
    for (int64_t k : {int64_t{1}, sites / 3, sites - 1}) {
      k = std::clamp<int64_t>(k, 1, sites - 1);
      SCOPED_TRACE(testing::Message() << "S " << sites << ", K " << k);
      expect_agreement(Case<TypeParam>(2, sites, k, 12, 0.1));
    }
  }
}

TYPED_TEST(PerturbedTopKCuda, AgreesForManyNumbersOfDraws) {
  for (const int64_t draws : {1, 2, 10, 11, 161, 330}) {
    SCOPED_TRACE(testing::Message() << "J " << draws);
    expect_agreement(Case<TypeParam>(2, 70, 20, draws, 0.5));
  }
}

TYPED_TEST(PerturbedTopKCuda, AgreesInAnyOrderOfThreads) {
  Case<TypeParam> c(3, 300, 40, 12, 0.02);
  for (TypeParam& r : c.scores) r = std::round(r * 8) / 8;  // some ties
  c.sigma = TypeParam(1e-9);
  for (int seed = 0; seed < 6; ++seed) {
    SCOPED_TRACE(testing::Message() << "order " << seed);
    cuda_emulation::schedule(seed == 0 ? Order::kReverse : Order::kRandom, uint64_t(seed));
    expect_agreement(c);
    expect_agreement(Case<TypeParam>(2, 500, 30, 12, 0.3));
  }
}

TYPED_TEST(PerturbedTopKCuda, AgreesWithEveryNoise) {
  Case<TypeParam> c(2, 200, 30, 40, 1.0);
  for (const Noise noise : kNoises) {
    c.noise = noise;
    expect_agreement(c);
  }
}

TYPED_TEST(PerturbedTopKCuda, SplitsTiesByIndex) {
  // Sigma below the rounding of the scores: every draw sees the same few values.
  Case<TypeParam> c(2, 2500, 700, 11, 1e-30);
  for (size_t i = 0; i < c.scores.size(); ++i) c.scores[i] = TypeParam(1 + i % 3);
  expect_agreement(c);
  std::fill(c.scores.begin(), c.scores.end(), TypeParam(7));  // more than the candidates' room
  expect_agreement(c);
}

TYPED_TEST(PerturbedTopKCuda, TakesInfiniteScores) {
  Case<TypeParam> c(4, 100, 10, 11, 0.1);
  const auto infinity = TypeParam(kInfinity);
  for (int s = 0; s < 100; ++s) {
    if (s % 2 == 0) c.scores[size_t(s)] = -infinity;        // fewer sites, enough
    if (s >= 6) c.scores[size_t(100 + s)] = -infinity;      // too few: ties at -inf
    if (s % 10 == 3) c.scores[size_t(200 + s)] = infinity;  // exactly K at +inf
    if (s % 3 == 0) c.scores[size_t(300 + s)] = infinity;   // ties at +inf
  }
  expect_agreement(c);
}

TYPED_TEST(PerturbedTopKCuda, TreatsBothZerosAsOne) {
  Case<TypeParam> c(1, 40, 10, 3, 1e-44);
  c.sigma = std::numeric_limits<TypeParam>::denorm_min();
  for (size_t i = 0; i < c.scores.size(); ++i) c.scores[i] = TypeParam(i % 2 == 0 ? -0.0 : 0.0);
  expect_agreement(c);
}

// Brackets that hold the wanted value, miss it on either side, or hold too many or nothing.
TYPED_TEST(PerturbedTopKCuda, FindsThresholdsWhateverTheBracket) {
  using T = TypeParam;
  Case<T> c(1, 3000, 200, 14, 0.3);
  for (T& r : c.scores) r = std::round(r * 4) / 4;
  const auto cpu = on_cpu(c);
  const cuda::TopKProblem<T> p{c.scores.data(), c.rows,  c.sites, c.k,
                               c.sigma,         c.draws, c.key,   c.row_offset};
  const T t = cpu.value[3], low = std::numeric_limits<T>::lowest(), infinity = T(kInfinity);
  const topreach::kernels::Bracket<T> brackets[] = {{t - T(0.1), t + T(0.1)},
                                                    {t, t},
                                                    {t + T(0.5), infinity},
                                                    {low, t - T(0.5)},
                                                    {low, infinity},
                                                    {infinity, infinity},
                                                    {low, low}};
  for (const auto& bracket : brackets) {
    SCOPED_TRACE(testing::Message() << "[" << bracket.low << ", " << bracket.high << "]");
    std::vector<T> value(14, T(0));
    std::vector<int32_t> last_tied(14, -1), boundary(28, -1);
    ASSERT_EQ(cuda::launch(cuda::find_thresholds<T, Noise::kNormal>, 3, 64,
                           sizeof(cuda::ThresholdShared<T>), nullptr, p, &bracket, value.data(),
                           last_tied.data(), boundary.data()),
              cudaSuccess);
    EXPECT_EQ(value, cpu.value);
    EXPECT_EQ(last_tied, cpu.last_tied);
    EXPECT_EQ(boundary, cpu.boundary);
  }
}

// Brackets hardly ever miss.
TYPED_TEST(PerturbedTopKCuda, BracketsHoldTheThresholds) {
  using T = TypeParam;
  Case<T> c(4, 5000, 1000, 40, 0.3);
  const auto cpu = on_cpu(c);
  const cuda::TopKProblem<T> p{c.scores.data(), c.rows,  c.sites, c.k,
                               c.sigma,         c.draws, c.key,   c.row_offset};
  std::vector<topreach::kernels::Bracket<T>> brackets(4);
  ASSERT_EQ(cuda::launch(cuda::find_brackets<T, Noise::kNormal>, 4, 512, sizeof(cuda::SelectShared),
                         nullptr, p, cuda::bracket_margin(c.k, c.sites), brackets.data()),
            cudaSuccess);
  for (size_t i = 0; i < cpu.value.size(); ++i) {
    EXPECT_LE(brackets[i / 40].low, cpu.value[i]);
    EXPECT_GE(brackets[i / 40].high, cpu.value[i]);
  }
}

TYPED_TEST(PerturbedTopKCuda, RowsDependOnTheirGlobalNumberAlone) {
  Case<TypeParam> all(5, 90, 10, 21, 0.2), last(1, 90, 10, 21, 0.2);
  const size_t from = 4 * 90;
  last.scores.assign(all.scores.begin() + from, all.scores.end());
  last.v.assign(all.v.begin() + from, all.v.end());
  last.row_offset = all.row_offset + 4;
  const auto a = on_cuda(all), b = on_cuda(last);
  EXPECT_TRUE(std::equal(b.membership.begin(), b.membership.end(), a.membership.begin() + from));
  EXPECT_TRUE(std::equal(b.grad.begin(), b.grad.end(), a.grad.begin() + from));
  EXPECT_TRUE(std::equal(b.grad_loo.begin(), b.grad_loo.end(), a.grad_loo.begin() + from));
  EXPECT_TRUE(std::equal(b.conditional.begin(), b.conditional.end(), a.conditional.begin() + from));
  EXPECT_TRUE(std::equal(b.conditional_grad.begin(), b.conditional_grad.end(),
                         a.conditional_grad.begin() + from));
}

TYPED_TEST(PerturbedTopKCuda, MakesRowsWithNanNan) {
  Case<TypeParam> c(3, 80, 7, 15, 0.2);
  const auto clean = on_cuda(c);
  c.scores[80 + 79] = std::numeric_limits<TypeParam>::quiet_NaN();
  c.scores[80 + 3] = TypeParam(kInfinity);
  const auto r = on_cuda(c);
  for (size_t i = 0; i < 240; ++i) {
    const bool bad = i / 80 == 1;
    EXPECT_EQ(std::isnan(r.membership[i]), bad);
    EXPECT_EQ(std::isnan(r.grad[i]), bad);
    EXPECT_EQ(std::isnan(r.grad_loo[i]), bad);
    EXPECT_EQ(std::isnan(r.conditional[i]), bad);
    EXPECT_EQ(std::isnan(r.conditional_grad[i]), bad);
    if (!bad) {
      EXPECT_EQ(r.membership[i], clean.membership[i]);
      EXPECT_EQ(r.grad[i], clean.grad[i]);
    }
  }
}

// Users can call the operator directly, and it cannot check a boundary without waiting for the device.
TYPED_TEST(PerturbedTopKCuda, MakesRowsNanWhoseBoundaryNamesNoSites) {
  using T = TypeParam;
  const Case<T> c(3, 80, 7, 12, 0.2);
  auto r = on_cuda(c);
  r.boundary[2 * 12] = -1;                                       // row 1, draw 0
  r.boundary[2 * 35 + 1] = std::numeric_limits<int32_t>::max();  // row 2, draw 11
  const cuda::TopKProblem<T> p{c.scores.data(), c.rows,  c.sites, c.k,
                               c.sigma,         c.draws, c.key,   c.row_offset};
  std::vector<T> workspace(size_t(cuda::perturbed_topk_workspace<T>(c.rows, c.draws)) / sizeof(T));
  std::vector<T> grad(r.grad.size(), T(0));
  ASSERT_EQ(cuda::conditional_topk_backward(p, c.noise, c.v.data(), r.value.data(),
                                            r.last_tied.data(), r.boundary.data(), c.scale(),
                                            grad.data(), workspace.data(), nullptr),
            cudaSuccess);
  for (size_t i = 0; i < 80; ++i) EXPECT_EQ(grad[i], r.conditional_grad[i]);
  for (int64_t row = 1; row < 3; ++row) {
    const auto from = grad.begin() + row * 80;
    EXPECT_TRUE(std::any_of(from, from + 80, [](T g) { return std::isnan(g); })) << "row " << row;
  }
}

TYPED_TEST(PerturbedTopKCuda, MasksOfRowsHaveTheirOwnBudgets) {
  // Each row equals the result with its budget alone; NaN if the budget is outside 0..sites.
  Case<TypeParam> c(6, 70, 1, 1, 1.0, 5);
  const std::vector<int64_t> budgets{0, 1, 35, 70, -1, 71};
  std::vector<TypeParam> mask(c.scores.size()), one(70);
  ASSERT_EQ(
      cuda::topk_mask(c.scores.data(), 6, 70, int64_t{0}, budgets.data(), mask.data(), nullptr),
      cudaSuccess);
  for (size_t row = 0; row < 6; ++row) {
    const int64_t k = budgets[row];
    const auto begin = mask.begin() + long(70 * row);
    if (k < 0 || k > 70) {
      EXPECT_TRUE(std::all_of(begin, begin + 70, [](TypeParam x) { return std::isnan(x); }));
      continue;
    }
    ASSERT_EQ(cuda::topk_mask(c.scores.data() + 70 * row, 1, 70, k, nullptr, one.data(), nullptr),
              cudaSuccess);
    EXPECT_TRUE(std::equal(one.begin(), one.end(), begin)) << "row " << row;
  }
}

TYPED_TEST(PerturbedTopKCuda, MasksAsTheCpuDoes) {
  const auto& cpu = topreach::kernels::topk_cpu<TypeParam>();
  for (const int64_t sites : {1, 2, 33, 700, 3000}) {
    Case<TypeParam> c(9, sites, 1, 1, 1.0, unsigned(sites));
    for (size_t i = 0; i < c.scores.size(); ++i) {
      if (i % 3 == 0) c.scores[i] = std::round(c.scores[i]);
      if (i % 7 == 0) c.scores[i] = -TypeParam(kInfinity);
    }
    if (sites > 1) c.scores[size_t(2 * sites + 1)] = std::numeric_limits<TypeParam>::quiet_NaN();
    for (const int64_t k : {int64_t{0}, int64_t{1}, sites / 2, sites - 1, sites}) {
      std::vector<TypeParam> mask(c.scores.size(), TypeParam(-1));
      ASSERT_EQ(cuda::topk_mask(c.scores.data(), c.rows, sites, k, nullptr, mask.data(), nullptr),
                cudaSuccess);
      std::vector<unsigned char> memory(
          size_t(topreach::kernels::TopKScratch<TypeParam>::bytes(sites) + 64));
      void* scratch = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
      for (int64_t row = 0; row < c.rows; ++row) {
        const TypeParam* r = c.scores.data() + row * sites;
        TypeParam value = 0;
        int32_t last = 0;
        const bool nan = std::any_of(r, r + sites, [](TypeParam x) { return std::isnan(x); });
        if (k > 0 && !nan) cpu.threshold(r, sites, k, &value, &last, scratch);
        for (int64_t s = 0; s < sites; ++s) {
          const TypeParam got = mask[size_t(row * sites + s)];
          if (nan) {
            EXPECT_TRUE(std::isnan(got));
          } else {
            EXPECT_EQ(got, k > 0 && (r[s] > value || (r[s] == value && s <= last)) ? 1 : 0);
          }
        }
      }
    }
  }
}

}  // namespace
