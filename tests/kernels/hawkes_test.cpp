// The networked Hawkes likelihood (kernels/hawkes.h) against its definition by brute force, quadrature,
// finite differences, tick's published value and the laws it must obey.
#include "../../kernels/hawkes.h"

#include <gtest/gtest.h>

#include <cstring>

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
    const Results up = evaluate_one(c, u, moved(z, a, h), 1), down = evaluate_one(c, u, moved(z, a, -h), 1);
    const double slope = (c.log_likelihood(u, moved(z, a, h).data()) -
                          c.log_likelihood(u, moved(z, a, -h).data())) /
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

}  // namespace
