// Expected top-K under quotas against enumeration of the sites above the threshold, with the plan made
// by QuotaTree; gradients against finite differences; known figures; exchange partners.
#include "../../kernels/programs/expected_quota_topk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "../../kernels/programs/quota_exchange.h"
#include "../../kernels/programs/quota_topk.h"
#include "../../kernels/special.h"

namespace {

using namespace topreach::kernels;

struct Case {
  std::vector<double> r;
  std::vector<int32_t> group;
  std::vector<int64_t> lower, upper;
  int64_t k;
  double sigma;
  int64_t sites() const { return int64_t(r.size()); }
  QuotaTree tree() const {
    return QuotaTree({sites(), k, int32_t(lower.size()), group.data(), nullptr, lower.data(),
                      upper.data(), nullptr});
  }
  std::vector<double> value(const std::vector<double>& at, const std::vector<double>* v = nullptr,
                            std::vector<double>* product = nullptr) const {
    ExpectedQuotaTopK op(sites(), k, int32_t(lower.size()), group.data(), lower.data(),
                         upper.data());
    std::vector<double> b(r.size());
    if (product) product->resize(r.size());
    op.run(at.data(), sigma, v ? v->data() : nullptr, b.data(),
           product ? product->data() : nullptr);
    return b;
  }
};

// b_i = int f_i(t) P(i is chosen | u_i = t) dt: every set of others above t, the plan by QuotaTree.
std::vector<double> by_enumeration(const Case& c) {
  const auto n = size_t(c.sites());
  const QuotaTree tree = c.tree();
  QuotaScratch<double> scratch;
  std::vector<int32_t> chosen(size_t(c.k));
  std::vector<std::vector<char>> picks(n, std::vector<char>(size_t(1) << n, 0));
  for (size_t i = 0; i < n; ++i)
    for (size_t set = 0; set < size_t(1) << n; ++set) {
      if (set >> i & 1) continue;
      std::vector<double> u(n);
      for (size_t s = 0; s < n; ++s) u[s] = s == i ? 1.0 : set >> s & 1 ? 2.0 : 0.0;
      tree.best(u.data(), scratch, chosen.data());
      for (const int32_t s : chosen) picks[i][set] |= size_t(s) == i;
    }
  std::vector<double> b(n, 0.0);
  const auto [low, high] = std::minmax_element(c.r.begin(), c.r.end());
  const double step = 0.05 * c.sigma;
  for (double t = *low - 8 * c.sigma; t < *high + 8 * c.sigma; t += step) {
    std::vector<double> p(n);
    for (size_t s = 0; s < n; ++s) p[s] = 0.5 * std::erfc((t - c.r[s]) / c.sigma / std::sqrt(2.0));
    for (size_t i = 0; i < n; ++i) {
      const double z = (t - c.r[i]) / c.sigma;
      const double f = std::exp(-z * z / 2) / std::sqrt(2 * M_PI) / c.sigma;
      for (size_t set = 0; set < size_t(1) << n; ++set) {
        if (!picks[i][set]) continue;
        double chance = 1;
        for (size_t s = 0; s < n; ++s)
          if (s != i) chance *= set >> s & 1 ? p[s] : 1 - p[s];
        b[i] += step * f * chance;
      }
    }
  }
  return b;
}

Case random_case(std::mt19937& random, int sites) {
  Case c;
  std::uniform_real_distribution<double> uniform(0, 1);
  const int groups = 1 + int(random() % 3);
  for (;;) {
    c = {};
    for (int s = 0; s < sites; ++s) {
      c.r.push_back(uniform(random));
      c.group.push_back(int32_t(random() % unsigned(groups)));
    }
    for (int g = 0; g < groups; ++g) {
      const int64_t a = random() % 3, b = random() % 5;
      c.lower.push_back(std::min(a, b));
      c.upper.push_back(std::max(a, b));
    }
    c.k = 1 + int64_t(random() % unsigned(sites));
    c.sigma = 0.05 + 0.4 * uniform(random);
    if (!c.tree().fault().found) return c;
  }
}

TEST(ExpectedQuotaTopK, RandomCasesAgainstEnumeration) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 40; ++trial) {
    const Case c = random_case(random, 2 + int(random() % 6));
    const auto b = c.value(c.r), want = by_enumeration(c);
    double sum = 0;
    for (size_t i = 0; i < b.size(); ++i) {
      ASSERT_NEAR(b[i], want[i], 1e-7) << trial;
      sum += b[i];
    }
    ASSERT_NEAR(sum, double(c.k), 1e-7);
  }
}

TEST(ExpectedQuotaTopK, GradientAgainstFiniteDifferences) {
  std::mt19937 random(4);
  std::normal_distribution<double> normal;
  for (int trial = 0; trial < 30; ++trial) {
    const Case c = random_case(random, 3 + int(random() % 10));
    std::vector<double> v, product, up = c.r, down = c.r;
    const double e = 1e-4 * c.sigma;
    for (size_t i = 0; i < c.r.size(); ++i) {
      v.push_back(normal(random) + 10);
      up[i] += e * v[i];
      down[i] -= e * v[i];
    }
    c.value(c.r, &v, &product);
    const auto above = c.value(up), below = c.value(down);
    double sum = 0;
    for (size_t i = 0; i < v.size(); ++i) {
      ASSERT_NEAR(product[i] * c.sigma, (above[i] - below[i]) / 2e-4, 3e-5) << trial;
      sum += product[i];
    }
    ASSERT_NEAR(sum * c.sigma, 0, 1e-6);  // the sum of b is K
  }
}

TEST(ExpectedQuotaTopK, EightSites) {  // known figures, to five digits
  const Case c{
      {.9, .7, .65, .6, .4, .3, .2, .1}, {0, 0, 0, 0, 1, 1, 2, 2}, {1, 1, 1}, {4, 2, 2}, 4, .15};
  const double want[] = {.91600, .50693, .34889, .22758, .68158, .31902, .68132, .31868};
  const auto b = c.value(c.r);
  for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(b[i], want[i], 5.1e-6);
}

TEST(ExpectedQuotaTopK, FarApartScoresGiveThePlan) {
  const Case c{{1e6, 5, 3, -1e6, 2e6, 0}, {0, 0, 0, 1, 1, 1}, {1, 2}, {2, 3}, 4, 1e-3};
  const auto b = c.value(c.r);
  const double want[] = {1, 1, 0, 0, 1, 1};
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(b[i], want[i], 1e-7);
}

// The chance of each site by its partner, averaged over draws, is b; the same holds for the gradient.
TEST(QuotaExchange, PartnersGiveTheSameChances) {
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  for (int trial = 0; trial < 6; ++trial) {
    const Case c = random_case(random, 8);
    const auto n = size_t(c.sites());
    std::vector<double> v(n), gradient, mean(n, 0.0), square(n, 0.0), slope(n, 0.0), slope2(n, 0.0);
    for (double& x : v) x = normal(random);
    const auto b = c.value(c.r, &v, &gradient);
    const QuotaTree tree = c.tree();
    QuotaScratch<double> scratch;
    std::vector<int32_t> chosen(size_t(c.k));
    QuotaExchange<double> exchange;
    const int draws = 20000;
    for (int d = 0; d < draws; ++d) {
      std::vector<double> u(c.r);
      for (double& x : u) x += c.sigma * normal(random);
      tree.best(u.data(), scratch, chosen.data());
      exchange.fill(u.data(), c.sites(), chosen.data(), c.k, int32_t(c.lower.size()),
                    c.group.data(), c.lower.data(), c.upper.data());
      for (size_t i = 0; i < n; ++i) {
        const int32_t a = exchange.partner(int32_t(i));
        double chance = exchange.is_chosen(int32_t(i)), g = 0;
        if (a >= 0) {
          const double z = (u[size_t(a)] - c.r[i]) / c.sigma;
          chance = normal_cdf(-z);
          g = normal_pdf(z) / c.sigma * (v[i] - v[size_t(a)]);
        }
        mean[i] += chance / draws;
        square[i] += chance * chance / draws;
        slope[i] += g / draws;
        slope2[i] += g * g / draws;
      }
    }
    for (size_t i = 0; i < n; ++i) {
      const double sd = std::sqrt(std::max(square[i] - mean[i] * mean[i], 0.0) / draws);
      const double sg = std::sqrt(std::max(slope2[i] - slope[i] * slope[i], 0.0) / draws);
      ASSERT_NEAR(mean[i], b[i], 5 * sd + 1e-7);
      ASSERT_NEAR(slope[i], gradient[i], 5 * sg + 1e-7);
    }
  }
}

}  // namespace
