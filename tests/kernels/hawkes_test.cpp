// The networked Hawkes likelihood (kernels/hawkes.h) against its definition by brute force, quadrature,
// finite differences, tick's published value and its invariants.
#include "../../kernels/hawkes.h"

#include <gtest/gtest.h>

#include <cstring>

#include "../../kernels/hawkes_path.h"
#include "hawkes_cases.h"

namespace {

using namespace hawkes_cases;

std::vector<double> moved(std::vector<double> z, int64_t at, double by) {
  z[size_t(at)] += by;
  return z;
}

// Value against brute force, gradient and Hessian against differences of brute force and gradient.
void expect_consistent(const Case& c, int64_t u, const std::vector<double>& z) {
  const Results r = evaluate_one(c, u, z);
  const double want = c.log_likelihood(u, z.data());
  EXPECT_NEAR(r.value[0], want, 1e-12 * (1.0 + std::fabs(want)));
  EXPECT_EQ(r.failed[0], -1);
  const int64_t size = c.parameters();
  for (int64_t a = 0; a < size; ++a) {
    const double h = 1e-5 * (a == size - 1 ? std::max(1e-2, z.back()) : 1.0);
    const Results up = evaluate_one(c, u, moved(z, a, h), 1),
                  down = evaluate_one(c, u, moved(z, a, -h), 1);
    const double slope =
        (c.log_likelihood(u, moved(z, a, h).data()) - c.log_likelihood(u, moved(z, a, -h).data())) /
        (2.0 * h);
    EXPECT_NEAR(r.gradient[size_t(a)], slope, 2e-7 * (1.0 + std::fabs(slope))) << "parameter " << a;
    for (int64_t b = 0; b < size; ++b) {
      const double bend = (up.gradient[size_t(b)] - down.gradient[size_t(b)]) / (2.0 * h);
      EXPECT_NEAR(r.hessian[size_t(a * size + b)], bend, 1e-6 * (1.0 + std::fabs(bend)))
          << "parameters " << a << ", " << b;
      EXPECT_EQ(r.hessian[size_t(a * size + b)], r.hessian[size_t(b * size + a)]);
    }
  }
}

TEST(Hawkes, ValueGradientAndHessianAreTheDefinitions) {
  const Case c = random_case(7);
  for (int64_t u = 0; u < c.nodes(); ++u) {
    SCOPED_TRACE(testing::Message() << "node " << u);
    expect_consistent(c, u, parameters_of(c, u));
  }
}

TEST(Hawkes, TicksPublishedValue) {
  const double t[] = {.31, .93, 1.29, 2.32, 4.25, .12, 1.19, 2.12, 2.41, 3.35, 4.21};
  std::vector<std::pair<double, int32_t>> events;
  for (int x = 0; x < 11; ++x) events.push_back({t[x], x < 5 ? 0 : 1});
  std::sort(events.begin(), events.end());
  Case c;
  c.places = 1, c.types = 2, c.p = 0, c.q = 0;
  for (const auto& [time, node] : events) c.time.push_back(time), c.node.push_back(node);
  c.edge = {0.0, 4.25};
  c.weight = {1.0};
  c.distance = {0.0};
  c.dense = {2.0, 3.0, 4.0, 1.0};
  double loss = -2.0 * 4.25;
  for (int32_t u = 0; u < 2; ++u)
    loss -= evaluate_one(c, u, {std::log(u == 0 ? 1.0 : 3.0), std::log(2.0), 0.0, 2.0}, 0).value[0];
  EXPECT_NEAR(loss / 11.0, 2.9434509731246283, 1e-12);
}

// Simpson's rule between all edges and events, where lambda is smooth.
TEST(Hawkes, CompensatorIsTheIntegralOfTheIntensity) {
  Case c = random_case(3, 2, 2, 60, 4, 1, 1, 10.0);
  const std::vector<double> z = parameters_of(c, 1);
  std::vector<double> cut = c.edge;
  for (const double t : c.time)
    if (t > 0.0 && t < 10.0) cut.push_back(t);
  std::sort(cut.begin(), cut.end());
  double integral = 0.0, logs = 0.0;
  for (size_t i = 0; i + 1 < cut.size(); ++i) {
    const double a = cut[i], width = cut[i + 1] - a;
    if (width <= 0.0) continue;
    constexpr int steps = 64;
    double sum = 0.0;
    for (int j = 0; j <= steps; ++j) {
      const double t = j == 0 ? std::nextafter(a, 11.0) : a + width * double(j) / steps;
      sum += (j == 0 || j == steps ? 1.0 : (j % 2 == 1 ? 4.0 : 2.0)) * c.intensity(t, 1, z.data());
    }
    integral += c.weight[size_t(c.block_of(cut[i + 1]))] * sum * width / (3.0 * steps);
  }
  for (int64_t x = 0; x < c.events(); ++x)
    if (c.own(x, 1))
      logs += c.weight[size_t(c.block_of(c.time[size_t(x)]))] *
              std::log(c.intensity(c.time[size_t(x)], 1, z.data()));
  EXPECT_NEAR(evaluate_one(c, 1, z, 0).value[0], logs - integral, 1e-8);
}

TEST(Hawkes, ThetaFromTablesOfDeaths) {
  Case c = random_case(11, 3, 2, 150, 5);
  c.dense.clear();
  c.refresh = {0, 0, 1, 2, 2};
  std::mt19937_64 random(5);
  for (int64_t i = 0; i < 3 * 2 * 2 * 3; ++i) {
    c.either.push_back(float(random() % 30));
    c.joint.push_back(float(random() % uint64_t(c.either.back() + 1)));
  }
  for (int i = 0; i < 12; ++i) c.prior.push_back(0.1 * double(1 + i % 9));
  for (int64_t u = 0; u < c.nodes(); ++u) expect_consistent(c, u, parameters_of(c, u));
  c.prior_weight = 0.0;
  for (size_t i = 0; i < c.either.size(); ++i) c.either[i] += 1.0f;
  expect_consistent(c, 2, parameters_of(c, 2));
}

// Without theta, distance and marks all sources are alike: one exponential kernel for each receiver.
TEST(Hawkes, ReducesToTheMutuallyExcitingProcess) {
  Case c = random_case(13, 2, 1, 80, 3, 0, 0, 12.0);
  c.dense.clear();
  c.weight.assign(3, 1.0);
  const std::vector<double> z{std::log(0.7), std::log(0.4), 0.0, 1.3};
  double want = 0.0;
  for (int64_t x = 0; x < c.events(); ++x) {
    double rate = 0.7;
    for (int64_t y = 0; y < c.events() && c.time[size_t(y)] < c.time[size_t(x)]; ++y)
      rate += 0.4 * std::exp(-1.3 * (c.time[size_t(x)] - c.time[size_t(y)]));
    if (c.own(x, 0)) want += std::log(rate);
  }
  want -= 0.7 * 12.0;
  for (int64_t x = 0; x < c.events(); ++x) {
    const double from = std::max(0.0, c.time[size_t(x)]) - c.time[size_t(x)];
    want -= 0.4 / 1.3 * (std::exp(-1.3 * from) - std::exp(-1.3 * (12.0 - c.time[size_t(x)])));
  }
  EXPECT_NEAR(evaluate_one(c, 0, z, 0).value[0], want, 1e-11);
}

TEST(Hawkes, WithoutExcitationIsPoissonRegression) {
  Case c = random_case(17);
  std::vector<double> z = parameters_of(c, 2);
  z[size_t(c.p + 1)] = -std::numeric_limits<double>::infinity();
  const Results r = evaluate_one(c, 2, z);
  double value = 0.0;
  std::vector<double> gradient(3, 0.0), hessian(9, 0.0);
  for (int64_t k = 0; k < c.blocks(); ++k) {
    double count = 0.0;
    for (int64_t x = 0; x < c.events(); ++x)
      count += c.own(x, 2) && c.block_of(c.time[size_t(x)]) == k ? 1.0 : 0.0;
    const double rate = c.mu(k, 2, z.data()), w = c.weight[size_t(k)];
    const double mean = rate * (c.edge[size_t(k + 1)] - c.edge[size_t(k)]);
    const double y[3] = {1.0, c.y[size_t((k * 4 + 2) * 2)], c.y[size_t((k * 4 + 2) * 2 + 1)]};
    value += w * (count * std::log(rate) - mean);
    for (int a = 0; a < 3; ++a) {
      gradient[size_t(a)] += w * (count - mean) * y[a];
      for (int b = 0; b < 3; ++b) hessian[size_t(3 * a + b)] -= w * mean * y[a] * y[b];
    }
  }
  EXPECT_NEAR(r.value[0], value, 1e-11);
  for (size_t a = 0; a < 3; ++a) {
    EXPECT_NEAR(r.gradient[a], gradient[a], 1e-11);
    for (size_t b = 0; b < 3; ++b)
      EXPECT_NEAR(r.hessian[a * size_t(c.parameters()) + b], hessian[3 * a + b], 1e-11);
  }
  for (int64_t a = c.p + 1; a < c.parameters(); ++a) EXPECT_EQ(r.gradient[size_t(a)], 0.0);
}

TEST(Hawkes, AnotherUnitOfTimeShiftsTheValue) {
  Case c = random_case(19);
  c.weight.assign(6, 1.0);
  const std::vector<double> z = parameters_of(c, 1);
  std::vector<double> scaled = z;
  scaled[0] -= std::log(3.0);
  scaled[size_t(c.p + 1)] -= std::log(3.0);
  scaled.back() /= 3.0;
  Case longer = c;
  for (double& t : longer.time) t *= 3.0;
  for (double& t : longer.edge) t *= 3.0;
  double own = 0.0;
  for (int64_t x = 0; x < c.events(); ++x) own += c.own(x, 1) ? 1.0 : 0.0;
  EXPECT_NEAR(evaluate_one(longer, 1, scaled, 0).value[0],
              evaluate_one(c, 1, z, 0).value[0] - own * std::log(3.0), 1e-10);
}

TEST(Hawkes, SplittingBlocksChangesNothing) {
  const Case c = random_case(23);
  Case split = c;
  split.edge.clear(), split.weight.clear(), split.y.clear(), split.dense.clear();
  const auto copy_block = [&](int64_t k) {
    split.weight.push_back(c.weight[size_t(k)]);
    split.y.insert(split.y.end(), c.y.begin() + k * 8, c.y.begin() + (k + 1) * 8);
    split.dense.insert(split.dense.end(), c.dense.begin() + k * 16, c.dense.begin() + (k + 1) * 16);
  };
  for (int64_t k = 0; k < c.blocks(); ++k) {
    const double lo = c.edge[size_t(k)], hi = c.edge[size_t(k + 1)];
    split.edge.push_back(lo);
    copy_block(k);
    split.edge.push_back(k == 1 ? *std::upper_bound(c.time.begin(), c.time.end(), lo)
                                : lo + 0.3 * (hi - lo));
    copy_block(k);
  }
  split.edge.push_back(c.edge.back());
  const std::vector<double> z = parameters_of(c, 3);
  const Results a = evaluate_one(c, 3, z), b = evaluate_one(split, 3, z);
  EXPECT_NEAR(a.value[0], b.value[0], 1e-11);
  for (size_t i = 0; i < a.gradient.size(); ++i) EXPECT_NEAR(a.gradient[i], b.gradient[i], 1e-10);
  for (size_t i = 0; i < a.hessian.size(); ++i) EXPECT_NEAR(a.hessian[i], b.hessian[i], 1e-9);
}

// delta_k |b| from 1e-6, where only the series are accurate, to far beyond kHawkesLongest.
TEST(Hawkes, AnyDecay) {
  for (const double delta_k : {1e-7, 1e-4, 0.02, 0.3, 9.0, 60.0, 700.0, 2e5}) {
    SCOPED_TRACE(testing::Message() << "delta_k " << delta_k);
    const Case c = random_case(29, 2, 2, 120, 3);
    std::vector<double> z = parameters_of(c, 0);
    z.back() = delta_k;
    const Results r = evaluate_one(c, 0, z);
    const double want = c.log_likelihood(0, z.data());
    EXPECT_NEAR(r.value[0], want, 2e-12 * (1.0 + std::fabs(want)));
    const double h = 1e-4 * delta_k;  // differences of the exact gradient
    const int64_t last = c.parameters() - 1, size = c.parameters();
    const Results up = evaluate_one(c, 0, moved(z, last, h), 1),
                  down = evaluate_one(c, 0, moved(z, last, -h), 1);
    double largest = 0.0;
    for (int64_t a = 0; a < size; ++a)
      largest = std::max(largest, std::fabs(r.hessian[size_t(last * size + a)]) * h);
    for (int64_t a = 0; a < size; ++a) {
      const double bend = up.gradient[size_t(a)] - down.gradient[size_t(a)];
      EXPECT_NEAR(2.0 * h * r.hessian[size_t(last * size + a)], bend,
                  1e-6 * std::fabs(bend) + 1e-12 * (1.0 + std::fabs(r.gradient[size_t(a)])))
          << "parameter " << a;
    }
    const double slope = (evaluate_one(c, 0, moved(z, last, h), 0).value[0] -
                          evaluate_one(c, 0, moved(z, last, -h), 0).value[0]);
    EXPECT_NEAR(2.0 * h * r.gradient[size_t(last)], slope,
                1e-6 * std::fabs(slope) + 1e-11 * std::fabs(want));
  }
}

TEST(Hawkes, NodesWithFewEvents) {
  for (const int64_t own : {0, 1, 2}) {
    Case c = random_case(31, 2, 2, 100, 4);
    int64_t left = own;
    for (int32_t& v : c.node)
      if (v == 3 && left-- <= 0) v = 1;
    expect_consistent(c, 3, parameters_of(c, 3));
  }
  Case empty = random_case(31, 2, 2, 0, 4);
  expect_consistent(empty, 1, parameters_of(empty, 1));
}

TEST(Hawkes, CovariatesByPlace) {
  Case c = random_case(37);
  c.y_by_place = true;
  expect_consistent(c, 3, parameters_of(c, 3));
}

TEST(Hawkes, ManyMarks) {
  for (const int64_t q : {1, 3, 4, 5, 6, 7, 8, 9, 13}) {
    SCOPED_TRACE(testing::Message() << q << " marks");
    expect_consistent(random_case(41 + unsigned(q), 2, 2, 130, 3, 1, q), 2,
                      parameters_of(random_case(41 + unsigned(q), 2, 2, 130, 3, 1, q), 2));
  }
}

TEST(Hawkes, PermutedNodes) {
  const Case c = random_case(43, 4, 1);
  const int32_t to[] = {2, 0, 3, 1};
  Case d = c;
  for (int32_t& v : d.node) v = to[v];
  const int64_t n = 4;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      d.distance[size_t(to[i] * n + to[j])] = c.distance[size_t(i * n + j)];
  for (int64_t k = 0; k < c.blocks(); ++k)
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t a = 0; a < c.p; ++a)
        d.y[size_t((k * n + to[i]) * c.p + a)] = c.y[size_t((k * n + i) * c.p + a)];
      for (int64_t j = 0; j < n; ++j)
        d.dense[size_t((k * n + to[i]) * n + to[j])] = c.dense[size_t((k * n + i) * n + j)];
    }
  const std::vector<double> z = parameters_of(c, 1);
  const Results a = evaluate_one(c, 1, z), b = evaluate_one(d, to[1], z);
  EXPECT_NEAR(a.value[0], b.value[0], 1e-11);
  for (size_t i = 0; i < a.hessian.size(); ++i) EXPECT_NEAR(a.hessian[i], b.hessian[i], 1e-9);
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

// The caller's threads take ranges of items, so this also covers any number of threads.
TEST(Hawkes, BitsDependOnTheItemAlone) {
  const Case c = random_case(47, 3, 3, 260, 5);
  std::vector<int32_t> node;
  std::vector<double> z;
  for (int64_t i = 0; i < 23; ++i) {
    node.push_back(int32_t(i * 5 % 9));
    std::vector<double> zi = parameters_of(c, i);
    zi.back() =
        i % 6 == 4 ? 40.0 : (i % 6 == 1 ? 0.01 : zi.back());  // some are cut, some by series
    z.insert(z.end(), zi.begin(), zi.end());
  }
  const Results all = evaluate(c, node, z);
  for (const int64_t batch : {1, 2, 3, 7}) {
    const Results some = evaluate(c, node, z, 2, batch);
    EXPECT_TRUE(same_bits(all.value, some.value));
    EXPECT_TRUE(same_bits(all.gradient, some.gradient));
    EXPECT_TRUE(same_bits(all.hessian, some.hessian));
  }
  EXPECT_TRUE(same_bits(all.value, evaluate(c, node, z, 0, 4).value));
  EXPECT_TRUE(same_bits(all.gradient, evaluate(c, node, z, 1, 4).gradient));
}

TEST(Hawkes, NamesTheEventWithoutRate) {
  Case c = random_case(53, 2, 1, 40, 1, 0, 0);
  c.dense = {0.0, 0.0, 0.0, 0.0};
  std::vector<double> z = parameters_of(c, 0);
  z[0] = -std::numeric_limits<double>::infinity();
  int64_t first = 0;
  while (!c.own(first, 0)) ++first;
  const Results r = evaluate_one(c, 0, z);
  EXPECT_EQ(r.failed[0], first);
  EXPECT_EQ(r.value[0], -std::numeric_limits<double>::infinity());
}

TEST(Hawkes, PathIsTheDefinitionAndItsRecordsCanBeCorrected) {
  const Case c = random_case(59);
  const HawkesProblem problem = c.problem();
  const int64_t u = 1, blocks = c.blocks();
  const std::vector<double> z = parameters_of(c, u);
  std::vector<double> intensity(300), immigrant(300), compensator(300),
      total(static_cast<size_t>(blocks)), base(static_cast<size_t>(blocks)), state(4);
  const int64_t own = topreach::kernels::hawkes_path(
      problem, u, z.data(),
      {intensity.data(), immigrant.data(), compensator.data(), total.data(), base.data()},
      state.data());
  int64_t n = 0;
  for (int64_t x = 0; x < c.events(); ++x) {
    if (!c.own(x, u)) continue;
    const double t = c.time[size_t(x)];
    const int64_t k = c.block_of(t);
    double before = c.mass(k, t, u, z.data());
    for (int64_t j = 0; j < k; ++j) before += c.mass(j, c.edge[size_t(j + 1)], u, z.data());
    EXPECT_NEAR(intensity[size_t(n)], c.intensity(t, u, z.data()), 1e-12 * intensity[size_t(n)]);
    EXPECT_NEAR(immigrant[size_t(n)], c.mu(k, u, z.data()), 1e-13);
    EXPECT_NEAR(compensator[size_t(n)], before, 1e-12 * before);
    ++n;
  }
  EXPECT_EQ(own, n);
  double value = 0.0;
  for (int64_t k = 0; k < blocks; ++k) {
    EXPECT_NEAR(total[size_t(k)], c.mass(k, c.edge[size_t(k + 1)], u, z.data()), 1e-11);
    EXPECT_NEAR(base[size_t(k)], c.mu(k, u, z.data()) * (c.edge[size_t(k + 1)] - c.edge[size_t(k)]),
                1e-12);
    value -= c.weight[size_t(k)] * total[size_t(k)];
  }
  std::vector<double> sum(4, 0.0);
  for (int64_t x = 0; x < c.events(); ++x)
    sum[size_t(c.node[size_t(x)])] +=
        c.jump(x, u, z.data()) * std::exp(-z.back() * (30.0 - c.time[size_t(x)]));
  for (size_t v = 0; v < 4; ++v) EXPECT_NEAR(state[v], sum[v], 1e-12 * sum[v]);

  // If a record is deleted, the state some time later is the same as if it had never been there.
  Case without = c;
  without.time.erase(without.time.begin() + 200);
  without.node.erase(without.node.begin() + 200);
  without.marks.erase(without.marks.begin() + 400, without.marks.begin() + 402);
  const double lag = 30.0 - c.time[200];
  topreach::kernels::hawkes_add_event(problem, z.data(), u, c.node[200], c.marks.data() + 400, lag,
                                      -1.0, state.data());
  std::vector<double> want(4);
  topreach::kernels::hawkes_path(without.problem(), u, z.data(), {}, want.data());
  topreach::kernels::hawkes_let_decay(z.back(), 0.1, 4, state.data());
  for (size_t v = 0; v < 4; ++v) EXPECT_NEAR(state[v], want[v] * std::exp(-0.1 * z.back()), 1e-12);
}

TEST(Hawkes, WorkingCoordinates) {
  const Case c = random_case(61);
  const int64_t size = c.parameters();
  std::vector<double> z = parameters_of(c, 1), working(z.size()), back(z.size());
  topreach::kernels::hawkes_working(c.p, c.q, z.data(), working.data());
  topreach::kernels::hawkes_natural(c.p, c.q, working.data(), back.data());
  for (size_t a = 0; a < z.size(); ++a) EXPECT_NEAR(back[a], z[a], 1e-14);
  EXPECT_NEAR(working[size_t(c.p + 1)], std::log(0.9 / z.back()), 1e-15);
  const auto at = [&](const std::vector<double>& w, int order) {
    std::vector<double> natural(w.size());
    topreach::kernels::hawkes_natural(c.p, c.q, w.data(), natural.data());
    Results r = evaluate_one(c, 1, natural, order);
    if (order > 0)
      topreach::kernels::hawkes_chain(c.p, c.q, w.data(), r.gradient.data(),
                                      order > 1 ? r.hessian.data() : nullptr);
    return r;
  };
  const Results r = at(working, 2);
  for (int64_t a = 0; a < size; ++a) {
    const double h = 1e-5;
    const Results up = at(moved(working, a, h), 1), down = at(moved(working, a, -h), 1);
    EXPECT_NEAR(r.gradient[size_t(a)], (up.value[0] - down.value[0]) / (2 * h), 1e-6);
    for (int64_t b = 0; b < size; ++b)
      EXPECT_NEAR(r.hessian[size_t(a * size + b)],
                  (up.gradient[size_t(b)] - down.gradient[size_t(b)]) / (2 * h), 2e-6);
  }
}

TEST(Hawkes, DecayAgainstTheMathematicsLibrary) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> unit(-700.0, 700.0);
  for (int i = 0; i < 100000; ++i) {
    const double x = i % 2 == 0 ? unit(random) : unit(random) * 1e-3;
    EXPECT_NEAR(topreach::kernels::exponential_lane(x) / std::exp(x), 1.0, 4e-16);
  }
  EXPECT_EQ(topreach::kernels::exponential_lane(0.0), 1.0);
  EXPECT_EQ(topreach::kernels::exponential_lane(-INFINITY), 0.0);
  EXPECT_EQ(topreach::kernels::exponential_lane(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(topreach::kernels::exponential_lane(NAN)));
  for (const double x : {1e-9, 1e-3, 0.3, 0.4999, 0.5, 0.6, 3.0, 50.0}) {
    const auto e = topreach::kernels::decay_integrals(x / 2.0, 2.0);
    long double want[3] = {0.0L, 0.0L, 0.0L};  // Simpson
    constexpr int steps = 4000;
    for (int i = 0; i <= steps; ++i) {
      const long double s = 2.0L * i / steps,
                        f = std::exp(-static_cast<long double>(x) / 2.0L * s) *
                            (i == 0 || i == steps ? 1.0L : (i % 2 ? 4.0L : 2.0L));
      want[0] += f, want[1] += s * f, want[2] += s * s * f;
    }
    const double tolerance = x > 10.0 ? 1e-8 : 2e-13;  // of the rule, then of the closed forms
    EXPECT_NEAR(e.e0 / double(want[0] * 2.0L / (3.0L * steps)), 1.0, tolerance) << x;
    EXPECT_NEAR(e.e1 / double(want[1] * 2.0L / (3.0L * steps)), 1.0, tolerance) << x;
    EXPECT_NEAR(e.e2 / double(want[2] * 2.0L / (3.0L * steps)), 1.0, tolerance) << x;
  }
}

}  // namespace
