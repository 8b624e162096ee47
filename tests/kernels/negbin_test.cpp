// Negative binomial sampling and log-probability (kernels/negbin.h): distribution, independence
// across counters, the same bits whatever the instruction set, and closed forms.
#include "../../kernels/negbin.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

namespace topreach::kernels {

// All instruction sets are compiled in, whichever dispatch.cpp would pick.
#define TR_DECLARE_ISA(isa)                     \
  namespace isa {                               \
  extern const NegBinCpu<float> negbin_float;   \
  extern const NegBinCpu<double> negbin_double; \
  }
TR_DECLARE_ISA(baseline)
#if defined(__x86_64__)
TR_DECLARE_ISA(avx2)
TR_DECLARE_ISA(avx512)
#endif

namespace {

std::shared_ptr<void> scratch() {
  return {std::aligned_alloc(64, size_t(kNegBinSampleScratch)), std::free};
}

struct Draws {
  int64_t rows, sites, samples;
  std::vector<double> n, z, counts;  // counts [samples, rows, sites]
  const double& at(int64_t m, int64_t row, int64_t site) const {
    return counts[size_t((m * rows + row) * sites + site)];
  }
};

Draws draw(std::vector<double> n, std::vector<double> z, int64_t rows, int64_t samples,
           PhiloxKey key = {1, 2}, int64_t row_offset = 0,
           const NegBinCpu<double>& cpu = negbin_cpu<double>()) {
  Draws d{rows, int64_t(n.size()) / rows, samples, std::move(n), std::move(z), {}};
  d.counts.resize(size_t(samples) * d.n.size());
  const NegBinSampling<double> problem{d.n.data(), d.z.data(), rows,       d.sites,
                                       samples,    key,        row_offset, d.counts.data()};
  cpu.sample(problem, 0, rows * negbin_tiles(d.sites), scratch().get());
  return d;
}

double log_pmf(double n, double z, double y) {
  return std::lgamma(n + y) - std::lgamma(n) - std::lgamma(y + 1) - n * std::log1p(std::exp(z)) -
         y * std::log1p(std::exp(-z));
}

// Pearson's statistic over cells with at least 25 expected, and its degrees of freedom.
std::pair<double, int> chi_square(const std::vector<double>& counts, double n, double z) {
  std::map<int64_t, int64_t> seen;
  for (const double y : counts) ++seen[int64_t(y)];
  const double total = double(counts.size());
  double statistic = 0, expected = 0, observed = 0, mass = 0, last_expected = 0, last_observed = 0;
  int cells = 0;
  for (int64_t y = 0; mass < 1 - 1e-12 && y < 2'000'000; ++y) {
    const double p = std::exp(log_pmf(n, z, double(y)));
    mass += p;
    expected += p * total;
    const auto it = seen.find(y);
    if (it != seen.end()) observed += double(it->second);
    if (expected < 25) continue;
    statistic += (observed - expected) * (observed - expected) / expected;
    last_expected = expected;
    last_observed = observed;
    expected = observed = 0;
    ++cells;
  }
  // The rest joins the last cell.
  const double e = last_expected + expected, o = last_observed + observed;
  statistic += (o - e) * (o - e) / e -
               (last_observed - last_expected) * (last_observed - last_expected) / last_expected;
  return {statistic, cells - 1};
}

struct Parameters {
  double n, z;
};

class NegBinDistribution : public ::testing::TestWithParam<Parameters> {};

// Tables (short, long, starting above 0) and rejection (small and large shape, small and large
// rate).
TEST_P(NegBinDistribution, MatchesThePmf) {
  const auto [n, z] = GetParam();
  const int64_t sites = 128, samples = 4000;
  const Draws d =
      draw(std::vector<double>(sites, n), std::vector<double>(sites, z), 1, samples, {11, 23});
  const double mean = n * std::exp(z), variance = mean * (1 + std::exp(z));
  double sum = 0, squares = 0;
  for (const double y : d.counts) {
    sum += y;
    squares += (y - mean) * (y - mean);
  }
  const double total = double(d.counts.size());
  EXPECT_LT(std::fabs(sum / total - mean), 5 * std::sqrt(variance / total));
  // Var[(y - mean)^2] = variance^2 (2 + excess kurtosis).
  const double kurtosis = 6 / n + 1 / variance;
  EXPECT_LT(std::fabs(squares / total - variance),
            5 * variance * std::sqrt((2 + kurtosis) / total));
  if (mean > 1e5) return;  // too many cells: moments only
  const auto [statistic, freedom] = chi_square(d.counts, n, z);
  // Wilson & Hilferty's normal approximation.
  const double f = std::max(freedom, 1);
  const double normal = (std::cbrt(statistic / f) - (1 - 2 / (9 * f))) / std::sqrt(2 / (9 * f));
  EXPECT_LT(normal, 5) << statistic << " with " << freedom << " degrees of freedom";
}

INSTANTIATE_TEST_SUITE_P(Settings, NegBinDistribution,
                         ::testing::Values(Parameters{1.0, 0.0}, Parameters{0.7, 0.3},
                                           Parameters{0.05, 1.0}, Parameters{3.0, -2.0},
                                           Parameters{2.0, 2.0}, Parameters{50.0, -1.0},
                                           Parameters{400.0, -1.5}, Parameters{5000.0, -3.0},
                                           Parameters{1e5, -8.0}, Parameters{0.02, 4.0},
                                           Parameters{0.6, 5.0}, Parameters{3.0, 4.0},
                                           Parameters{40.0, 3.0}, Parameters{1000.0, 1.0},
                                           Parameters{1e4, 3.0}, Parameters{1e8, 0.0}));

TEST(NegBinSampler, TablesAndRejectionAgree) {
  // Just on either side of the limit on the table's length.
  double below = 1.0, above = 5.0;
  for (int i = 0; i < 50; ++i) {
    const double middle = (below + above) / 2;
    (negbin_start(2.0, middle).tabulated ? below : above) = middle;
  }
  EXPECT_FALSE(negbin_start(2.0, above).tabulated);
  for (const double z : {below, above}) {
    const Draws d = draw(std::vector<double>(64, 2.0), std::vector<double>(64, z), 1, 4000, {5, 6});
    const auto [statistic, freedom] = chi_square(d.counts, 2.0, z);
    EXPECT_LT(statistic, freedom + 5 * std::sqrt(2.0 * freedom));
  }
}

TEST(NegBinSampler, ExtremeParameters) {
  const std::vector<double> n{0.0, 1e-300, 1e-12, 5.0, 1e308, 0.0, 3.0, 1e-3};
  const std::vector<double> z{0.0, 0.0, 0.0, -INFINITY, -750.0, 700.0, -800.0, 40.0};
  const Draws d = draw(n, z, 1, 1000);
  for (int64_t m = 0; m < d.samples; ++m) {
    for (int64_t s = 0; s < 7; ++s) EXPECT_EQ(d.at(m, 0, s), 0.0) << s;
    EXPECT_GE(d.at(m, 0, 7), 0.0);
    EXPECT_EQ(d.at(m, 0, 7), std::floor(d.at(m, 0, 7)));
  }
  // Mean 1e8 with the variance of a Poisson: never far from the mean.
  const Draws wide = draw({1e14}, {std::log(1e-6)}, 1, 1000);
  for (const double y : wide.counts) EXPECT_NEAR(y, 1e8, 6e4);
}

// A draw depends on its parameters, key, row, site and number alone.
TEST(NegBinSampler, ReproducibleForAnySplit) {
  std::vector<double> n, z;
  const int64_t rows = 3, sites = 37;
  for (int64_t i = 0; i < rows * sites; ++i) {
    n.push_back(std::exp(0.3 * double(i % 40) - 6));
    z.push_back(0.1 * double(i % 60) - 2);
  }
  const Draws all = draw(n, z, rows, 11, {3, 4}, 5);
  for (int64_t row = 0; row < rows; ++row) {
    const auto part = [&](const std::vector<double>& v) {
      return std::vector<double>(v.begin() + row * sites, v.begin() + (row + 1) * sites);
    };
    const Draws one = draw(part(n), part(z), 1, 7, {3, 4}, 5 + row);
    for (int64_t m = 0; m < 7; ++m)
      for (int64_t s = 0; s < sites; ++s)
        EXPECT_EQ(one.at(m, 0, s), all.at(m, row, s)) << row << ' ' << m << ' ' << s;
  }
}

TEST(NegBinSampler, IndependentAcrossCounters) {
  // Correlations of draws that differ in one of: draw, site, row, key.
  const int64_t rows = 4, sites = 256, samples = 200;
  const std::vector<double> n(rows * sites, 1.3), z(rows * sites, 0.2);
  const Draws a = draw(n, z, rows, samples, {8, 9}), b = draw(n, z, rows, samples, {8, 10});
  const double mean = 1.3 * std::exp(0.2), variance = mean * (1 + std::exp(0.2));
  double draws = 0, neighbours = 0, row_pairs = 0, keys = 0;
  int64_t n_draws = 0, n_neighbours = 0, n_rows = 0, n_keys = 0;
  for (int64_t m = 0; m < samples; ++m)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t s = 0; s < sites; ++s) {
        const double y = a.at(m, r, s) - mean;
        if (m) draws += y * (a.at(m - 1, r, s) - mean), ++n_draws;
        if (s) neighbours += y * (a.at(m, r, s - 1) - mean), ++n_neighbours;
        if (r) row_pairs += y * (a.at(m, r - 1, s) - mean), ++n_rows;
        keys += y * (b.at(m, r, s) - mean), ++n_keys;
      }
  for (const auto& [sum, count] :
       {std::pair{draws, n_draws}, {neighbours, n_neighbours}, {row_pairs, n_rows}, {keys, n_keys}})
    EXPECT_LT(std::fabs(sum / double(count) / variance), 5 / std::sqrt(double(count)));
}

#if defined(__x86_64__)
TEST(NegBin, SameBitsOnEveryInstructionSet) {
  std::vector<double> n, z, y, g;
  const int64_t sites = 200, samples = 9;
  for (int64_t i = 0; i < 2 * sites; ++i) {
    n.push_back(std::exp(0.1 * double(i % 200) - 8));
    z.push_back(0.07 * double(i % 150) - 4);
  }
  const auto reference = draw(n, z, 2, samples, {1, 1}, 0, baseline::negbin_double);
  std::vector<const NegBinCpu<double>*> others;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    others.push_back(&avx2::negbin_double);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    others.push_back(&avx512::negbin_double);
  if (others.empty()) GTEST_SKIP() << "this machine has the baseline only";
  for (size_t i = 0; i < reference.counts.size(); ++i) g.push_back(std::sin(double(i)));
  const NegBinLikelihood<double> likelihood{reference.counts.data(), n.data(), z.data(), samples,
                                            2 * sites};
  const auto evaluate = [&](const NegBinCpu<double>& cpu) {
    std::vector<double> out(reference.counts.size() + 4 * size_t(sites));
    double* dn = out.data() + reference.counts.size();
    const int64_t tiles = negbin_tiles(2 * sites);
    cpu.log_prob(likelihood, 0, tiles, out.data(), scratch().get());
    cpu.backward(likelihood, 0, tiles, g.data(), dn, dn + 2 * sites, scratch().get());
    return out;
  };
  const std::vector<double> expected = evaluate(baseline::negbin_double);
  for (const auto* cpu : others) {
    EXPECT_EQ(draw(n, z, 2, samples, {1, 1}, 0, *cpu).counts, reference.counts);
    EXPECT_EQ(evaluate(*cpu), expected);
  }
}
#endif

// Tabulated and general formulas, against lgamma where that does not cancel.
TEST(NegBinLogProb, BothFormulasAgree) {
  for (const double n : {1e-8, 1e-3, 0.3, 1.0, 7.9, 8.1, 40.0, 3e3})
    for (const double z : {-30.0, -3.0, 0.0, 0.7, 6.0}) {
      const NegBinSite site = negbin_site(n, z);
      double table = negbin_log_zero(site);
      for (int y = 0; y < 64; ++y) {
        const double general = negbin_log_prob_of(site, y), truth = log_pmf(n, z, y);
        EXPECT_NEAR(general, table, 1e-13 * (10 + std::fabs(truth))) << n << ' ' << z << ' ' << y;
        EXPECT_NEAR(table, truth, 1e-13 * (1000 + std::fabs(truth) + n * 10));
        table += negbin_log_ratio(site, y);
      }
    }
}

// Poisson limit: n -> infinity at a fixed mean, where lgamma differences lose every digit.
TEST(NegBinLogProb, PoissonLimit) {
  for (const double y : {0.0, 3.0, 70.0, 1000.0}) {
    const double mean = 50.0, n = 1e14;
    const NegBinSite site = negbin_site(n, std::log(mean / n));
    const double poisson = y * std::log(mean) - mean - std::lgamma(y + 1);
    EXPECT_NEAR(negbin_log_prob_of(site, y), poisson, 1e-8 + 1e-11 * std::fabs(poisson)) << y;
  }
}

TEST(NegBinLogProb, Edges) {
  EXPECT_EQ(negbin_log_prob_of(negbin_site(0.0, 0.0), 0.0), 0.0);
  EXPECT_EQ(negbin_log_prob_of(negbin_site(0.0, 0.0), 2.0), -INFINITY);
  EXPECT_EQ(negbin_log_prob_of(negbin_site(2.0, -INFINITY), 0.0), 0.0);
  EXPECT_EQ(negbin_log_prob_of(negbin_site(2.0, -INFINITY), 70.0), -INFINITY);
  EXPECT_TRUE(std::isnan(negbin_log_prob_of(negbin_site(NAN, 0.0), 70.0)));
  EXPECT_TRUE(std::isnan(negbin_log_prob_of(negbin_site(1.0, NAN), 70.0)));
  EXPECT_NEAR(negbin_log_prob_of(negbin_site(1e-20, 800.0), 500.0),
              std::log(1e-20) - std::log(500.0), 1e-9);
}

}  // namespace
}  // namespace topreach::kernels
