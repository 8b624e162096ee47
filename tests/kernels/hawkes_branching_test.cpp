// Futures of the networked Hawkes process (kernels/hawkes_branching.h) against means in closed form, an
// integrated system of moments, and each other.
#include "../../kernels/hawkes_branching.h"

#include <gtest/gtest.h>

#include "../../kernels/hawkes_path.h"
#include "hawkes_cases.h"

namespace {

using namespace hawkes_cases;
using topreach::kernels::HawkesFuture;
using topreach::kernels::HawkesMode;

struct Future {
  Case c;
  std::vector<double> z, excitation, base, edge;  // one parameter set
  std::vector<int64_t> pool_start, pool;
  int64_t most_events = 100000;

  int64_t periods() const { return int64_t(edge.size()) - 1; }

  struct Counts {
    std::vector<int32_t> counts;
    std::vector<uint8_t> failed;
  };

  Counts simulate(HawkesMode mode, int64_t paths, int64_t batch = 1 << 30) const {
    const HawkesProblem problem = c.problem();
    Counts r;
    r.counts.assign(size_t(paths * periods() * c.nodes()), -1);
    r.failed.assign(size_t(paths), 9);
    HawkesFuture f{};
    f.problem = &problem;
    f.mode = mode;
    f.key = {17, 5};
    f.sets = 1, f.paths_per_set = 1;
    f.parameters = z.data(), f.excitation = excitation.data(), f.base = base.data();
    f.edge = edge.data(), f.periods = periods();
    f.pool_start = pool_start.data(), f.pool = pool.data();
    f.most_events = most_events;
    f.counts = r.counts.data(), f.failed = r.failed.data();
    const auto& cpu = topreach::kernels::hawkes_branching_cpu();
    const AlignedMemory scratch(cpu.scratch(f));
    for (int64_t i = 0; i < paths; i += batch)
      cpu.simulate(f, i, std::min(paths, i + batch), scratch.get());
    return r;
  }
};

// gamma = 6, alpha = 5.6, delta_k = 8, S = 14: the mean count stays at 20 a period.
Future one_node(double excitation = 14.0) {
  Future f;
  f.c = random_case(1, 1, 1, 3, 1, 0, 0, 1.0);
  f.c.dense = {1.0};
  f.c.distance = {0.0};
  f.z = {std::log(6.0), std::log(5.6), 0.0, 8.0};
  f.excitation = {excitation};
  for (int k = 0; k <= 4; ++k) f.edge.push_back(double(k));
  f.base.assign(4, 6.0);
  f.pool_start = {0, 1};
  f.pool = {0};
  return f;
}

Future network() {
  Future f;
  f.c = random_case(7);
  const int64_t n = f.c.nodes();
  const HawkesProblem problem = f.c.problem();
  f.pool_start = {0};
  for (int64_t u = 0; u < n; ++u) {
    std::vector<double> z = parameters_of(f.c, u);
    f.z.insert(f.z.end(), z.begin(), z.end());
    f.excitation.push_back(topreach::kernels::hawkes_excitation(problem, u, z.data()));
    for (int64_t x = 0; x < f.c.events(); ++x)
      if (f.c.node[size_t(x)] == u) f.pool.push_back(x);
    f.pool_start.push_back(int64_t(f.pool.size()));
  }
  f.edge = {0.0, 1.0, 1.5, 3.0};
  for (int k = 0; k < 3; ++k)
    for (int64_t u = 0; u < n; ++u) f.base.push_back(0.3 + 0.4 * double((k + u) % 3));
  return f;
}

struct Moments {
  std::vector<double> mean, variance, fourth;
  int64_t paths;
};

Moments moments_of(const std::vector<int32_t>& counts, int64_t cells) {
  Moments m{std::vector<double>(size_t(cells)), std::vector<double>(size_t(cells)),
            std::vector<double>(size_t(cells)), int64_t(counts.size()) / cells};
  for (size_t i = 0; i < counts.size(); ++i)
    m.mean[i % size_t(cells)] += counts[i] / double(m.paths);
  for (size_t i = 0; i < counts.size(); ++i) {
    const double d = counts[i] - m.mean[i % size_t(cells)];
    m.variance[i % size_t(cells)] += d * d / double(m.paths);
    m.fourth[i % size_t(cells)] += d * d * d * d / double(m.paths);
  }
  return m;
}

double mean_error(const Moments& m, size_t i) { return std::sqrt(m.variance[i] / double(m.paths)); }
double variance_error(const Moments& m, size_t i) {
  return std::sqrt((m.fourth[i] - m.variance[i] * m.variance[i]) / double(m.paths));
}

TEST(HawkesBranching, OneNodesMeanIsTheClosedForm) {
  for (const double s : {14.0, 0.0, 40.0}) {
    const Future f = one_node(s);
    const double gap = 8.0 - 5.6, limit = 5.6 * 6.0 / gap;
    for (const HawkesMode mode : {HawkesMode::kBranching, HawkesMode::kThinning}) {
      const auto r = f.simulate(mode, 20000);
      const Moments m = moments_of(r.counts, 4);
      for (size_t k = 0; k < 4; ++k) {
        const double want =
            6.0 + limit +
            (s - limit) * (std::exp(-gap * double(k)) - std::exp(-gap * double(k + 1))) / gap;
        EXPECT_NEAR(m.mean[k], want, 4.0 * mean_error(m, k)) << "period " << k;
      }
      EXPECT_EQ(*std::max_element(r.failed.begin(), r.failed.end()), 0);
    }
  }
}

// Events have no children within their own period, so the mean follows a recursion.
TEST(HawkesBranching, PaperModesMeanIsItsRecursion) {
  const Future f = one_node();
  const Moments m = moments_of(f.simulate(HawkesMode::kPaper, 20000).counts, 4);
  double s = 14.0;
  for (size_t k = 0; k < 4; ++k) {
    const double want = 6.0 + s * (1.0 - std::exp(-8.0)) / 8.0;
    s = s * std::exp(-8.0) + 5.6 * want;
    EXPECT_NEAR(m.mean[k], want, 4.0 * mean_error(m, k)) << "period " << k;
  }
}

// Mean counts of the network by Runge-Kutta on dS/dt = (K - D) S + K mu.
TEST(HawkesBranching, NetworksMeanSolvesItsEquation) {
  const Future f = network();
  const Case& c = f.c;
  const size_t n = size_t(c.nodes()), size = size_t(c.parameters());
  std::vector<double> jump(n * n);
  for (size_t u = 0; u < n; ++u)
    for (size_t v = 0; v < n; ++v) {
      double sum = 0.0;
      for (int64_t i = f.pool_start[v]; i < f.pool_start[v + 1]; ++i)
        sum += c.jump(f.pool[size_t(i)], int64_t(u), f.z.data() + u * size);
      jump[u * n + v] = c.theta(c.blocks() - 1, int64_t(u), int64_t(v)) * sum /
                        double(f.pool_start[v + 1] - f.pool_start[v]);
    }
  const Moments branching = moments_of(f.simulate(HawkesMode::kBranching, 40000).counts, 12);
  const Moments thinning = moments_of(f.simulate(HawkesMode::kThinning, 40000).counts, 12);
  std::vector<double> s = f.excitation;
  for (size_t k = 0; k < 3; ++k) {
    const double* mu = f.base.data() + k * n;
    const auto slope = [&](const std::vector<double>& x) {
      std::vector<double> d(n);
      for (size_t u = 0; u < n; ++u) {
        d[u] = -f.z[(u + 1) * size - 1] * x[u];
        for (size_t v = 0; v < n; ++v) d[u] += jump[u * n + v] * (mu[v] + x[v]);
      }
      return d;
    };
    const auto plus = [&](const std::vector<double>& x, const std::vector<double>& d, double h) {
      std::vector<double> y(n);
      for (size_t u = 0; u < n; ++u) y[u] = x[u] + h * d[u];
      return y;
    };
    constexpr int steps = 400;
    const double h = (f.edge[k + 1] - f.edge[k]) / steps;
    std::vector<double> count(n, 0.0);
    for (int i = 0; i < steps; ++i) {
      const auto a = slope(s), b = slope(plus(s, a, h / 2)), e = slope(plus(s, b, h / 2)),
                 g = slope(plus(s, e, h));
      for (size_t u = 0; u < n; ++u) {
        const double middle = s[u] + h / 2 * b[u],
                     next = s[u] + h / 6 * (a[u] + 2 * b[u] + 2 * e[u] + g[u]);
        count[u] += h * mu[u] + h / 6 * (s[u] + 4 * middle + next);
        s[u] = next;
      }
    }
    for (size_t u = 0; u < n; ++u) {
      const size_t i = k * n + u;
      EXPECT_NEAR(branching.mean[i], count[u], 4.0 * mean_error(branching, i)) << k << ", " << u;
      EXPECT_NEAR(thinning.mean[i], count[u], 4.0 * mean_error(thinning, i)) << k << ", " << u;
      EXPECT_NEAR(branching.variance[i], thinning.variance[i],
                  4.0 * std::hypot(variance_error(branching, i), variance_error(thinning, i)));
    }
  }
}

TEST(HawkesBranching, BitsDependOnThePathAlone) {
  const Future f = network();
  for (const HawkesMode mode :
       {HawkesMode::kBranching, HawkesMode::kThinning, HawkesMode::kPaper}) {
    const auto all = f.simulate(mode, 60);
    EXPECT_EQ(all.counts, f.simulate(mode, 60, 1).counts);
    EXPECT_EQ(all.counts, f.simulate(mode, 60, 7).counts);
  }
}

TEST(HawkesBranching, SaysWhereAPathExplodes) {
  Future f = one_node();
  f.z[1] = std::log(12.0);  // 1.5 children per event
  f.most_events = 200;
  for (const HawkesMode mode :
       {HawkesMode::kBranching, HawkesMode::kThinning, HawkesMode::kPaper}) {
    const auto r = f.simulate(mode, 50);
    EXPECT_EQ(*std::max_element(r.failed.begin(), r.failed.end()), 1);
  }
}

TEST(HawkesBranching, ExcitationIsWhatThePathEndsWith) {
  const Future f = network();
  const HawkesProblem problem = f.c.problem();
  for (int64_t u = 0; u < f.c.nodes(); ++u) {
    const double* z = f.z.data() + u * f.c.parameters();
    std::vector<double> state(4);
    topreach::kernels::hawkes_path(problem, u, z, {}, state.data());
    double want = 0.0;
    for (int64_t v = 0; v < 4; ++v) want += f.c.theta(f.c.blocks() - 1, u, v) * state[size_t(v)];
    EXPECT_NEAR(f.excitation[size_t(u)], want, 1e-12 * want);
  }
}

TEST(HawkesBranching, AliasTablesHaveTheirWeights) {
  const std::vector<double> weight{0.0, 1.0, 5.0, 0.25, 0.0, 3.75};
  std::vector<uint32_t> keep(6);
  std::vector<int32_t> alias(6), work(6);
  std::vector<double> scaled(6), chance(6, 0.0);
  topreach::kernels::alias_table(weight.data(), 6, 10.0, keep.data(), alias.data(), scaled.data(),
                                 work.data());
  for (size_t i = 0; i < 6; ++i) {
    const double stays = (double(keep[i]) + 1.0) * 0x1p-32;
    chance[i] += stays / 6.0;
    chance[size_t(alias[i])] += (1.0 - stays) / 6.0;
  }
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(chance[i], weight[i] / 10.0, 1e-9);
}

}  // namespace
