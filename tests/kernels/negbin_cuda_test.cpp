// The CUDA kernels of the negative binomial, run by the host emulation, against the CPU kernels:
// counts, log-probabilities and their gradients must agree bit for bit.
#include "../../kernels/cuda/negbin.cu"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

namespace {

namespace cuda = topreach::kernels::cuda;
using cuda_emulation::Order;
using topreach::kernels::NegBinLikelihood;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Scratch {
  explicit Scratch(int64_t bytes) : memory(new unsigned char[size_t(bytes) + 64]) {}
  void* get() const { return memory.get() + (64 - reinterpret_cast<uintptr_t>(memory.get()) % 64); }
  std::unique_ptr<unsigned char[]> memory;
};

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Parameters from tiny to huge: tables of all lengths, draws by rejection, point masses.
template <typename T>
struct Parameters {
  std::vector<T> n, z;
  explicit Parameters(int64_t count) {
    std::mt19937 random(3);
    std::uniform_real_distribution<double> decade(-3, 4), logit(-4, 4);
    for (int64_t i = 0; i < count; ++i) {
      n.push_back(T(i % 11 == 5 ? 0.0 : std::pow(10.0, decade(random))));
      z.push_back(T(i % 13 == 7 ? -std::numeric_limits<double>::infinity() : logit(random)));
    }
  }
};

template <typename T>
class NegBinCuda : public testing::Test {
 protected:
  void TearDown() override { cuda_emulation::schedule(Order::kForward); }

  static std::vector<T> sample_on_cuda(const Parameters<T>& p, int64_t rows, int64_t sites,
                                       int64_t samples, const int64_t* key, int64_t row_offset) {
    std::vector<T> counts(size_t(samples * rows * sites), T(-1));
    EXPECT_EQ(cuda::negbin_sample<T>(
                  {p.n.data(), p.z.data(), rows, sites, samples, key, row_offset, counts.data()},
                  nullptr),
              cudaSuccess);
    return counts;
  }
};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(NegBinCuda, Types);

TYPED_TEST(NegBinCuda, SamplesAsTheCpuDoes) {
  using T = TypeParam;
  const int64_t key[2] = {-5, 1ll << 40 | 77};
  int seed = 0;
  for (const int64_t sites : {1, 7, 8, 9, 150}) {
    for (const int64_t samples : {1, 4, 30}) {
      SCOPED_TRACE(testing::Message() << "S " << sites << ", M " << samples);
      const int64_t rows = 3;
      const Parameters<T> p(rows * sites);
      std::vector<T> counts(size_t(samples * rows * sites), T(-2));
      const topreach::kernels::NegBinSampling<T> problem{
          p.n.data(), p.z.data(),   rows, sites, samples, {uint32_t(key[0]), uint32_t(key[1])},
          11,         counts.data()};
      const Scratch scratch(topreach::kernels::kNegBinSampleScratch);
      topreach::kernels::negbin_cpu<T>().sample(
          problem, 0, rows * topreach::kernels::negbin_tiles(sites), scratch.get());
      cuda_emulation::schedule(Order::kRandom, uint64_t(++seed));
      EXPECT_TRUE(same_bits(this->sample_on_cuda(p, rows, sites, samples, key, 11), counts));
    }
  }
}

TYPED_TEST(NegBinCuda, MakesCountsOfInvalidParametersNan) {
  using T = TypeParam;
  const int64_t key[2] = {1, 2};
  Parameters<T> p(40);
  const auto clean = this->sample_on_cuda(p, 2, 20, 5, key, 0);
  p.n[3] = T(-1);
  p.n[4] = T(kNan);
  p.n[5] = T(INFINITY);
  p.z[6] = T(kNan);
  p.z[7] = T(INFINITY);
  const auto counts = this->sample_on_cuda(p, 2, 20, 5, key, 0);
  for (size_t i = 0; i < counts.size(); ++i) {
    const size_t at = i % 40;
    if (at >= 3 && at <= 7) {
      EXPECT_TRUE(std::isnan(counts[i]));
    } else {
      EXPECT_EQ(counts[i], clean[i]);
    }
  }
}

TYPED_TEST(NegBinCuda, LogProbabilityAndGradientAreTheCpus) {
  using T = TypeParam;
  const auto& cpu = topreach::kernels::negbin_cpu<T>();
  const Scratch scratch(topreach::kernels::kNegBinLikelihoodScratch);
  int seed = 0;
  for (const int64_t inner : {1, 31, 32, 33, 250}) {
    for (const int64_t outer : {1, 3, 20}) {
      SCOPED_TRACE(testing::Message() << "inner " << inner << ", outer " << outer);
      const Parameters<T> p(inner);
      std::mt19937 random(unsigned(inner + outer));
      std::exponential_distribution<double> size(0.1);
      std::normal_distribution<double> normal;
      std::vector<T> y, grad;
      for (int64_t i = 0; i < inner * outer; ++i) {
        const double v = size(random);
        y.push_back(T(i % 9 == 0 ? v : (i % 17 == 0 ? std::floor(1e4 * v) : std::floor(v))));
        grad.push_back(T(normal(random)));
      }
      const NegBinLikelihood<T> problem{y.data(), p.n.data(), p.z.data(), outer, inner};
      const int64_t tiles = topreach::kernels::negbin_tiles(inner);
      std::vector<T> want(y.size()), got(y.size(), T(kNan));
      cpu.log_prob(problem, 0, tiles, want.data(), scratch.get());
      cuda_emulation::schedule(Order::kRandom, uint64_t(++seed));
      EXPECT_EQ(cuda::negbin_log_prob(problem, got.data(), nullptr), cudaSuccess);
      EXPECT_TRUE(same_bits(got, want));
      std::vector<T> want_n(p.n.size()), want_z(p.n.size()), got_n(p.n.size()), got_z(p.n.size());
      cpu.backward(problem, 0, tiles, grad.data(), want_n.data(), want_z.data(), scratch.get());
      EXPECT_EQ(
          cuda::negbin_log_prob_backward(problem, grad.data(), got_n.data(), got_z.data(), nullptr),
          cudaSuccess);
      // As numbers: a NaN (from n = 0 with y > 0) may have either sign bit.
      for (size_t i = 0; i < want_n.size(); ++i) {
        EXPECT_TRUE(got_n[i] == want_n[i] || (std::isnan(got_n[i]) && std::isnan(want_n[i])));
        EXPECT_TRUE(got_z[i] == want_z[i] || (std::isnan(got_z[i]) && std::isnan(want_z[i])));
      }
    }
  }
}

TYPED_TEST(NegBinCuda, MakesLogProbabilitiesOfInvalidValuesNan) {
  using T = TypeParam;
  const std::vector<T> n{2, 2, 2, 2, -1, T(kNan)}, z{0, 0, 0, 0, 0, 0};
  const std::vector<T> y{1, -1, T(kNan), T(INFINITY), 1, 1}, grad(6, T(1));
  const NegBinLikelihood<T> problem{y.data(), n.data(), z.data(), 1, 6};
  std::vector<T> out(6), d_n(6), d_z(6);
  EXPECT_EQ(cuda::negbin_log_prob(problem, out.data(), nullptr), cudaSuccess);
  EXPECT_EQ(cuda::negbin_log_prob_backward(problem, grad.data(), d_n.data(), d_z.data(), nullptr),
            cudaSuccess);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(std::isnan(out[i]), i > 0);
    EXPECT_EQ(std::isnan(d_n[i]), i > 0);
    EXPECT_EQ(std::isnan(d_z[i]), i > 0);
  }
}

}  // namespace
