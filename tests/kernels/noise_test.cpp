// The polynomials of the noise against libm in double precision, and the noise's layout.
#include "../../kernels/noise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "../../kernels/perturbed_topk.h"

namespace topreach::kernels {
namespace {

TEST(Noise, LogarithmIsWithinTwoUlp) {
  for (double exponent = -32; exponent <= 5; exponent += 1e-3) {
    const float x = float(std::exp2(exponent));
    const double want = std::log(double(x));
    // rounding of the result, of e log 2 and of the polynomial: a few units of the largest term
    const double bound = 2.5e-7 * std::max(std::abs(want), std::abs(double(x) - 1));
    EXPECT_NEAR(natural_log(x), want, bound) << x;
  }
  EXPECT_EQ(natural_log(1.0f), 0.0f);
}

TEST(Noise, ExponentialKeepsPrecisionAtBothEnds) {
  for (uint32_t word : {0u, 1u, 2u, 1000u, 0x40000000u, 0x80000000u, 0xB0000000u, 0xBFFFFFFFu,
                        0xC0000000u, 0xC0000001u, 0xFFFFFFF0u, 0xFFFFFFFEu, 0xFFFFFFFFu}) {
    const double u = (double(word >> 1) + 0.5) / 2147483648.0;
    const double want = -std::log1p(-(1 - u));
    EXPECT_NEAR(exponential(word) / want, 1.0, 4e-7) << word;
  }
}

TEST(Noise, SineAndCosine) {
  for (uint64_t word = 0; word < (uint64_t{1} << 32); word += 104729 * 7) {
    const double angle = 2 * M_PI * double(word) / 4294967296.0;
    const SineCosine got = sine_cosine(uint32_t(word));
    EXPECT_NEAR(got.sine, std::sin(angle), 2e-7);
    EXPECT_NEAR(got.cosine, std::cos(angle), 2e-7);
  }
}

TEST(Noise, SiteMapsToCounterAndWord) {
  const PhiloxKey key{11, 22};
  std::vector<float> z(200);
  noise_row_cpu(key, Noise::kNormal, 200, 5, 7, z.data());
  for (uint32_t s = 0; s < 200; ++s) {
    const uint32_t counter = 16 * (s / 64) + s % 16, word = s % 64 / 16;
    const FourNoises four = noise_of_counter<Noise::kNormal>(key, counter, 5, 7);
    const float values[] = {four.z0, four.z1, four.z2, four.z3};
    EXPECT_EQ(z[s], values[word]) << s;
  }
}

TEST(Noise, GumbelScoreIsOneMinusExpOfMinusNoise) {
  for (uint32_t i = 0; i < 1000; ++i) {
    const PhiloxWords words = noise_words({1, 2}, i, 0, 0);
    const double z = noise_of_words<Noise::kGumbel>(words).z2;
    const double score = score_of_words<Noise::kGumbel>(words).z2;
    EXPECT_NEAR(score, 1 - std::exp(-z), 1e-6 * (1 + std::exp(-z)));
  }
}

TEST(Noise, LogisticAndItsScore) {
  for (uint32_t word : {0u, 1u, 77u, 0x40000000u, 0x7FFFFFFFu, 0x80000000u, 0x80000101u,
                        0xBFFFFFFFu, 0xC0000000u, 0xFFFFFFF0u, 0xFFFFFFFEu, 0xFFFFFFFFu}) {
    const double u = (double(word >> 1) + 0.5) / 2147483648.0;
    const double want = std::log(u) - std::log1p(-u);
    const PhiloxWords words{word, word, word, word};
    // the quotient and the logarithm round, relative 2^-24 each and a few units of the logarithm
    EXPECT_NEAR(noise_of_words<Noise::kLogistic>(words).z1, want, 2e-7 * (1 + std::abs(want)));
    EXPECT_NEAR(score_of_words<Noise::kLogistic>(words).z1, std::tanh(want / 2), 1.2e-7);
  }
}

TEST(Noise, LaplaceTakesItsSignFromTheLastBit) {
  for (uint32_t word : {0u, 1u, 78u, 0x80000000u, 0xC0000001u, 0xFFFFFFFEu, 0xFFFFFFFFu}) {
    const double u = (double(word >> 1) + 0.5) / 2147483648.0;
    const double sign = word % 2 == 0 ? 1 : -1;
    const PhiloxWords words{word, word, word, word};
    EXPECT_NEAR(noise_of_words<Noise::kLaplace>(words).z3 / (-sign * std::log1p(u - 1)), 1, 4e-7);
    EXPECT_EQ(score_of_words<Noise::kLaplace>(words).z3, sign);
  }
}

}  // namespace
}  // namespace topreach::kernels
