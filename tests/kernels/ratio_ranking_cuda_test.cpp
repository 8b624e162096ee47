// The CUDA kernels of the ratio ranking, run by the host emulation, against the CPU kernels: the
// ranking and the weights of "score" and "diagonal" must agree bit for bit, those of "score_loo" up
// to the rounding of their centre.
#include "../../kernels/cuda/ratio_ranking.cu"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace {

namespace cuda = topreach::kernels::cuda;
using cuda_emulation::Order;
using topreach::kernels::kSampleBlock;

template <typename T>
struct Case {
  int64_t samples, rows, sites;
  T offset;
  std::vector<T> y, g;

  Case(int64_t samples, int64_t rows, int64_t sites, double offset)
      : samples(samples),
        rows(rows),
        sites(sites),
        offset(T(offset)) {
    std::mt19937 random(unsigned(sites + samples));
    std::poisson_distribution<int> counts(0.3);
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < samples * rows * sites; ++i) y.push_back(T(counts(random)));
    for (int64_t i = 0; i < rows * sites; ++i) g.push_back(T(normal(random)));
    std::fill_n(y.begin(), sites, T(0));  // a sample without events: 0/0 for offset 0
  }
  cuda::RatioProblem<T> problem() const { return {y.data(), samples, rows, sites, offset}; }
};

template <typename T>
struct Result {
  std::vector<T> ranking, score, score_loo, diagonal;
};

// As csrc/ops/ratio_ranking.cpp does it.
template <typename T>
Result<T> on_cpu(const Case<T>& c) {
  const auto& cpu = topreach::kernels::ratio_cpu<T>();
  Result<T> r;
  r.ranking.assign(size_t(c.rows * c.sites), T(0));
  r.diagonal.assign(c.y.size(), T(0));
  const int64_t stride = c.rows * c.sites;
  for (int64_t row = 0; row < c.rows; ++row) {
    T* to = r.ranking.data() + row * c.sites;
    for (int64_t begin = 0; begin < c.samples; begin += kSampleBlock) {
      std::vector<T> part(size_t(c.sites), T(0));
      EXPECT_EQ(-1, cpu.forward(c.y.data() + row * c.sites, stride, c.sites, c.offset, begin,
                                std::min(c.samples, begin + kSampleBlock), part.data()));
      for (int64_t s = 0; s < c.sites; ++s) to[s] += part[size_t(s)];
    }
    for (int64_t s = 0; s < c.sites; ++s) to[s] /= T(c.samples);
  }
  for (int64_t i = 0; i < c.samples * c.rows; ++i) {
    const int64_t row = i % c.rows;
    const T *y = c.y.data() + i * c.sites, *g = c.g.data() + row * c.sites;
    double centre = 0;
    for (int64_t s = 0; s < c.sites; ++s)
      centre += double(g[s]) * double(r.ranking[size_t(row * c.sites + s)]);
    const T reach = cpu.reach(y, g, c.sites, c.offset);
    r.score.push_back(T(1) / T(c.samples) * (reach - T(0)));
    r.score_loo.push_back(T(1) / T(c.samples - 1) * (reach - T(centre)));
    cpu.diagonal(y, g, c.sites, c.offset, T(1) / T(c.samples), r.diagonal.data() + i * c.sites);
  }
  return r;
}

template <typename T>
Result<T> on_cuda(const Case<T>& c) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const size_t lines = size_t(c.samples * c.rows);
  Result<T> r{std::vector<T>(c.g.size(), nan), std::vector<T>(lines, nan),
              std::vector<T>(lines, nan), std::vector<T>(c.y.size(), nan)};
  std::vector<T> workspace(size_t(cuda::ratio_ranking_workspace<T>(c.samples, c.rows)) / sizeof(T),
                           nan);
  const auto p = c.problem();
  EXPECT_EQ(cuda::ratio_ranking(p, r.ranking.data(), workspace.data(), nullptr), cudaSuccess);
  EXPECT_EQ(cuda::ratio_ranking_backward(p, c.g.data(), r.ranking.data(), false, r.score.data(),
                                         workspace.data(), nullptr),
            cudaSuccess);
  EXPECT_EQ(cuda::ratio_ranking_backward(p, c.g.data(), r.ranking.data(), true, r.score_loo.data(),
                                         workspace.data(), nullptr),
            cudaSuccess);
  EXPECT_EQ(cuda::ratio_ranking_backward_diagonal(p, c.g.data(), r.diagonal.data(),
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
  EXPECT_TRUE(same_bits(gpu.ranking, cpu.ranking));
  EXPECT_TRUE(same_bits(gpu.score, cpu.score));
  EXPECT_TRUE(same_bits(gpu.diagonal, cpu.diagonal));
  // |g . r| <= max |g| because r sums to at most 1; S double roundings, then one to T.
  double most = 0;
  for (const T g : c.g) most = std::max(most, std::abs(double(g)));
  const double eps = std::numeric_limits<T>::epsilon();
  const double bound = most * (1.2e-16 * double(c.sites) + 2 * eps);
  for (size_t i = 0; i < cpu.score_loo.size(); ++i)
    EXPECT_NEAR(gpu.score_loo[i], cpu.score_loo[i], bound);
}

template <typename T>
class RatioRankingCuda : public testing::Test {
 protected:
  void TearDown() override { cuda_emulation::schedule(Order::kForward); }
};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(RatioRankingCuda, Types);

TYPED_TEST(RatioRankingCuda, AgreesForManyShapes) {
  for (const int64_t sites : {1, 2, 15, 16, 17, 130, 1024, 1025, 2600})
    for (const double offset : {0.0, 1.0}) {
      SCOPED_TRACE(testing::Message() << "S " << sites << ", offset " << offset);
      expect_agreement(Case<TypeParam>(7, 3, sites, offset));
    }
  for (const int64_t samples : {2, 24, 25, 26, 77}) {
    SCOPED_TRACE(testing::Message() << "M " << samples);
    expect_agreement(Case<TypeParam>(samples, 2, 70, 0.0));
  }
}

TYPED_TEST(RatioRankingCuda, AgreesInAnyOrderOfThreads) {
  for (int seed = 0; seed < 6; ++seed) {
    cuda_emulation::schedule(seed == 0 ? Order::kReverse : Order::kRandom, uint64_t(seed));
    expect_agreement(Case<TypeParam>(5, 4, 1100, 0.5));
  }
}

TYPED_TEST(RatioRankingCuda, MakesRowsOfNoCountsNan) {
  for (const double bad : {-1.0, double(NAN), double(INFINITY)}) {
    Case<TypeParam> c(6, 3, 90, 0.0);
    const auto clean = on_cuda(c);
    c.y[size_t((4 * 3 + 1) * 90 + 17)] = TypeParam(bad);  // sample 4 of row 1
    const auto r = on_cuda(c);
    for (size_t i = 0; i < r.ranking.size(); ++i) {
      EXPECT_EQ(std::isnan(r.ranking[i]), i / 90 == 1);
      if (i / 90 != 1) {
        EXPECT_EQ(r.ranking[i], clean.ranking[i]);
      }
    }
    for (size_t i = 0; i < r.score.size(); ++i) {
      EXPECT_EQ(std::isnan(r.score[i]), i == 4 * 3 + 1);
      EXPECT_EQ(std::isnan(r.score_loo[i]), i % 3 == 1);  // the centre is that of the row
    }
  }
}

}  // namespace
