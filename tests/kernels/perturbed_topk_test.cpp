// The CPU loops of the perturbed top-K against sorting, with brackets that hold and that miss.
#include "../../kernels/perturbed_topk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace topreach::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Memory {
  explicit Memory(int64_t bytes)
      : data(static_cast<char*>(std::aligned_alloc(64, size_t(bytes)))) {}
  ~Memory() { std::free(data); }
  char* data;
};

template <typename T>
std::vector<int> chosen_by_sorting(const std::vector<T>& u, int64_t k) {
  std::vector<int> order(u.size()), chosen(u.size(), 0);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return u[a] > u[b]; });
  for (int64_t i = 0; i < k; ++i) chosen[size_t(order[size_t(i)])] = 1;
  return chosen;
}

template <typename T>
void expect_forward_is_sorting(const std::vector<T>& scores, int64_t k, T sigma,
                               const Bracket<T>* forced = nullptr) {
  const int64_t sites = int64_t(scores.size()), draws = 23;
  const TopKProblem<T> problem{scores.data(), 1, sites, k, sigma, draws, {3, 4}, 9};
  const auto& cpu = topk_cpu<T>();
  Memory scratch(TopKScratch<T>::bytes(sites));
  std::vector<int32_t> counts(scores.size(), 0), last_tied(draws);
  std::vector<T> value(draws);
  const auto bracket = forced ? *forced : cpu.bracket(problem, Noise::kNormal, 0, scratch.data);
  cpu.forward(problem, Noise::kNormal, 0, bracket, 0, draws, counts.data(), value.data(),
              last_tied.data(), scratch.data);
  std::vector<int> want(scores.size(), 0);
  std::vector<float> z(scores.size());
  for (int64_t j = 0; j < draws; ++j) {
    noise_row_cpu(problem.key, Noise::kNormal, sites, uint32_t(j), 9, z.data());
    std::vector<T> u(scores.size());
    for (size_t s = 0; s < u.size(); ++s) u[s] = fused(sigma, T(z[s]), scores[s]);
    const auto chosen = chosen_by_sorting(u, k);
    for (size_t s = 0; s < u.size(); ++s) {
      want[s] += chosen[s];
      const bool member = u[s] > value[size_t(j)] ||
                          (u[s] == value[size_t(j)] && int32_t(s) <= last_tied[size_t(j)]);
      EXPECT_EQ(member, chosen[s] == 1) << "draw " << j << ", site " << s;
    }
  }
  for (size_t s = 0; s < want.size(); ++s) EXPECT_EQ(counts[s], want[s]) << s;
}

template <typename T>
std::vector<T> random_scores(int64_t sites, int seed) {
  std::mt19937 generator(static_cast<unsigned>(seed));
  std::gamma_distribution<double> gamma(0.6);
  std::vector<T> scores(static_cast<size_t>(sites));
  for (T& s : scores) s = T(gamma(generator));
  return scores;
}

TEST(PerturbedTopKCpu, EqualsSorting) {
  for (int64_t sites : {2, 3, 15, 16, 17, 63, 64, 65, 130, 1000, 1620}) {
    for (int64_t k : {int64_t{1}, sites / 3, sites / 2, sites - 1}) {
      if (k < 1) continue;
      expect_forward_is_sorting(random_scores<float>(sites, int(sites)), k, 0.3f);
      expect_forward_is_sorting(random_scores<double>(sites, int(sites)), k, 0.3);
    }
  }
}

TEST(PerturbedTopKCpu, BracketsThatMissChangeNothing) {
  const auto scores = random_scores<float>(700, 1);
  const float big = std::numeric_limits<float>::max();
  for (const Bracket<float>& bracket :
       {Bracket<float>{-big, kInfinity}, Bracket<float>{100.f, 200.f},
        Bracket<float>{-200.f, -100.f}, Bracket<float>{5.f, 1.f}, Bracket<float>{-big, -big}}) {
    expect_forward_is_sorting(scores, 50, 0.3f, &bracket);
  }
}

TEST(PerturbedTopKCpu, TiesAndInfinities) {
  std::vector<float> scores(300, 1e7f);  // the noise is lost in rounding: all tie
  expect_forward_is_sorting(scores, 37, 1e-3f);
  for (size_t s = 0; s < scores.size(); s += 3) scores[s] = -kInfinity;
  expect_forward_is_sorting(scores, 37, 1.0f);
  expect_forward_is_sorting(scores, 250, 1.0f);
  for (size_t s = 1; s < scores.size(); s += 3) scores[s] = kInfinity;
  expect_forward_is_sorting(scores, 37, 1.0f);
  expect_forward_is_sorting(scores, 150, 1.0f);
  expect_forward_is_sorting(std::vector<float>(100, kInfinity), 10, 1.0f);
  expect_forward_is_sorting(std::vector<float>(100, -kInfinity), 10, 1.0f);
}

TEST(PerturbedTopKCpu, BlocksOfDrawsAddUp) {
  const auto scores = random_scores<float>(333, 2);
  const auto v = random_scores<float>(333, 3);
  const int64_t draws = 30;
  const TopKProblem<float> problem{scores.data(), 1, 333, 40, 0.3f, draws, {5, 6}, 0};
  const auto& cpu = topk_cpu<float>();
  Memory scratch(TopKScratch<float>::bytes(333));
  const auto bracket = cpu.bracket(problem, Noise::kNormal, 0, scratch.data);
  std::vector<int32_t> whole(333, 0), parts(333, 0), tied(30);
  std::vector<float> value(30), split_value(30);
  cpu.forward(problem, Noise::kNormal, 0, bracket, 0, draws, whole.data(), value.data(),
              tied.data(), scratch.data);
  for (int64_t cut : {0, 7, 19}) {
    const int64_t end = cut == 0 ? 7 : cut == 7 ? 19 : draws;
    cpu.forward(problem, Noise::kNormal, 0, bracket, cut, end, parts.data(), split_value.data(),
                tied.data(), scratch.data);
  }
  EXPECT_EQ(whole, parts);
  EXPECT_EQ(value, split_value);

  // g = sum_j (b_j . v - centre) z_j, in double precision
  const float centre = 0.25f;
  std::vector<float> total(333, 0.f), z(333);
  cpu.backward(problem, Noise::kNormal, 0, v.data(), centre, 0, draws, value.data(), tied.data(),
               total.data(), scratch.data);
  std::vector<double> want(333, 0.0);
  double largest = 0;
  for (int64_t j = 0; j < draws; ++j) {
    noise_row_cpu(problem.key, Noise::kNormal, 333, uint32_t(j), 0, z.data());
    std::vector<float> u(333);
    for (size_t s = 0; s < u.size(); ++s) u[s] = fused(0.3f, z[s], scores[s]);
    const auto chosen = chosen_by_sorting(u, 40);
    double reach = 0;
    for (size_t s = 0; s < u.size(); ++s) reach += chosen[s] * double(v[s]);
    largest = std::max(largest, reach);
    for (size_t s = 0; s < u.size(); ++s) want[s] += (reach - centre) * double(z[s]);
  }
  // a dot product of 40 terms and a sum of 30, each rounded at 2^-24, with |z| < 5
  const double bound = (40 + 30) * 6e-8 * largest * 5 * 30;
  for (size_t s = 0; s < want.size(); ++s) EXPECT_NEAR(total[s], want[s], bound) << s;
}

// Each site against the K-th largest of the others, found by sorting without it; F and f by libm.
template <typename T>
void expect_conditional(const std::vector<T>& scores, int64_t k, T sigma) {
  const int64_t sites = int64_t(scores.size()), draws = 14;
  const TopKProblem<T> problem{scores.data(), 1, sites, k, sigma, draws, {5, 6}, 3};
  const auto& cpu = topk_cpu<T>();
  Memory scratch(TopKScratch<T>::bytes(sites));
  std::vector<T> value(size_t(draws), T(0)), u(scores.size()), v(scores.size());
  std::vector<T> b(scores.size(), T(0)), g(scores.size(), T(0));
  for (size_t s = 0; s < v.size(); ++s) v[s] = T(std::sin(double(s)));
  std::vector<int32_t> tied(draws), boundary(2 * draws, -1);
  const auto bracket = cpu.bracket(problem, Noise::kNormal, 0, scratch.data);
  cpu.conditional_forward(problem, Noise::kNormal, 0, bracket, 0, draws, b.data(), value.data(),
                          tied.data(), boundary.data(), scratch.data);
  cpu.conditional_backward(problem, Noise::kNormal, 0, v.data(), 0, draws, value.data(),
                           tied.data(), boundary.data(), g.data(), scratch.data);
  std::vector<double> want_b(scores.size(), 0), want_g(scores.size(), 0);
  std::vector<float> z(scores.size());
  double largest = 0;
  for (int64_t j = 0; j < draws; ++j) {
    noise_row_cpu(problem.key, Noise::kNormal, sites, uint32_t(j), 3, z.data());
    for (size_t s = 0; s < u.size(); ++s) u[s] = fused(sigma, T(z[s]), scores[s]);
    std::vector<size_t> order(u.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t c) { return u[a] > u[c]; });
    EXPECT_EQ(boundary[size_t(2 * j)], int32_t(order[size_t(k - 1)])) << "draw " << j;
    EXPECT_EQ(boundary[size_t(2 * j + 1)], int32_t(order[size_t(k)])) << "draw " << j;
    for (size_t at = 0; at < order.size(); ++at) {
      const size_t s = order[at], rival = order[at < size_t(k) ? size_t(k) : size_t(k - 1)];
      const double x =
          (double(scores[rival]) - double(scores[s])) / double(sigma) + double(z[rival]);
      want_b[s] += std::erfc(x / std::sqrt(2.0)) / 2;
      want_g[s] += std::exp(-x * x / 2) / std::sqrt(2 * M_PI) * (double(v[s]) - double(v[rival]));
      largest = std::max(largest, std::abs(double(scores[s]) / double(sigma)));
    }
  }
  // x rounds at the size of the scores over sigma, F and f (steepest 0.4) and a sum of 14 follow
  const double eps = std::numeric_limits<T>::epsilon();
  const double bound = double(draws) * (eps * (4 * largest + draws) + 1e-6 * (eps > 1e-10));
  for (size_t s = 0; s < scores.size(); ++s) {
    EXPECT_NEAR(b[s], want_b[s], bound) << "site " << s;
    EXPECT_NEAR(g[s], want_g[s], 2 * bound) << "site " << s;
  }
}

TEST(PerturbedTopKCpu, ConditionalEqualsSortingWithoutEachSite) {
  for (int64_t sites : {2, 3, 15, 64, 65, 130, 1000}) {
    for (int64_t k : {int64_t{1}, sites / 3, sites - 1}) {
      if (k < 1) continue;
      SCOPED_TRACE(testing::Message() << "S " << sites << ", K " << k);
      expect_conditional(random_scores<float>(sites, int(sites)), k, 0.3f);
      expect_conditional(random_scores<double>(sites, int(sites)), k, 0.3);
    }
  }
}

TEST(PerturbedTopKCpu, ConditionalWithTies) {
  std::vector<float> scores(300, 1e7f);  // the noise is lost in the rounding of u: all tie
  expect_conditional(scores, 37, 1e-3f);
  for (size_t s = 0; s < scores.size(); ++s) scores[s] = float(s % 5) * 1e7f;
  expect_conditional(scores, 60, 1.0f);  // no tie is split, but u of the next are all equal
  expect_conditional(scores, 77, 1.0f);
}

TEST(PerturbedTopKCpu, ThresholdWithoutNoise) {
  const auto& cpu = topk_cpu<double>();
  for (int64_t sites : {1, 2, 70, 5000}) {
    auto scores = random_scores<double>(sites, 4);
    for (size_t s = 0; s < scores.size(); ++s) scores[s] = std::floor(3 * scores[s]);  // ties
    Memory scratch(TopKScratch<double>::bytes(sites));
    for (int64_t k : {int64_t{1}, (sites + 1) / 2, sites}) {
      double value;
      int32_t last_tied;
      cpu.threshold(scores.data(), sites, k, &value, &last_tied, scratch.data);
      const auto chosen = chosen_by_sorting(scores, k);
      for (size_t s = 0; s < scores.size(); ++s) {
        EXPECT_EQ(scores[s] > value || (scores[s] == value && int32_t(s) <= last_tied),
                  chosen[s] == 1);
      }
    }
  }
}

}  // namespace
}  // namespace topreach::kernels
