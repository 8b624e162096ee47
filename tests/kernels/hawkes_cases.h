// Problems for the tests of the networked Hawkes kernels, and their definitions by brute force.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "../../kernels/hawkes.h"

namespace hawkes_cases {

using topreach::kernels::HawkesItems;
using topreach::kernels::HawkesProblem;

struct AlignedMemory {
  explicit AlignedMemory(int64_t bytes)
      : memory(std::aligned_alloc(64, size_t((bytes + 63) / 64 * 64)), &std::free) {}
  void* get() const { return memory.get(); }
  std::unique_ptr<void, void (*)(void*)> memory;
};

struct Case {
  int64_t places = 2, types = 2, p = 2, q = 2;
  std::vector<double> time, marks, edge, weight, y, distance, dense, prior;
  std::vector<int32_t> node, refresh;
  std::vector<float> joint, either;
  bool y_by_place = false;
  double prior_weight = 5.0;

  int64_t nodes() const { return places * types; }
  int64_t blocks() const { return int64_t(edge.size()) - 1; }
  int64_t events() const { return int64_t(time.size()); }
  int64_t parameters() const { return p + q + 4; }

  HawkesProblem problem() const {
    HawkesProblem h{};
    h.time = time.data();
    h.node = node.data();
    h.marks = marks.data();
    h.events = events();
    h.marks_per_event = q;
    h.edge = edge.data();
    h.weight = weight.data();
    h.covariates = y.data();
    h.covariates_by_place = y_by_place;
    h.blocks = blocks();
    h.covariates_per_node = p;
    h.places = places;
    h.types = types;
    h.distance = distance.data();
    h.refresh = refresh.empty() ? nullptr : refresh.data();
    h.theta.dense = dense.empty() ? nullptr : dense.data();
    h.theta.joint = joint.empty() ? nullptr : joint.data();
    h.theta.either = either.data();
    h.theta.prior = prior.data();
    h.theta.prior_weight = prior_weight;
    h.theta.refreshes = refresh.empty() ? blocks() : refresh.back() + 1;
    return h;
  }

  // theta by its formula, without the kernels' code.
  double theta(int64_t k, int64_t u, int64_t v) const {
    const int64_t r = refresh.empty() ? k : refresh[size_t(k)];
    if (!dense.empty()) return dense[size_t((r * nodes() + u) * nodes() + v)];
    if (joint.empty()) return 1.0;
    const int64_t i = u / types, s = u % types, j = v / types, t = v % types;
    const auto at = [&](const std::vector<float>& table, int64_t place) {
      return double(table[size_t(((r * types + s) * types + t) * places + place)]);
    };
    double a = at(joint, i), b = at(either, i);
    if (i != j) a += at(joint, j), b += at(either, j);
    return (a + prior_weight * prior[size_t((r * types + s) * types + t)]) / (b + prior_weight);
  }

  double mu(int64_t k, int64_t u, const double* z) const {
    const int64_t row = y_by_place ? k * places + u / types : k * nodes() + u;
    double linear = z[0];
    for (int64_t a = 0; a < p; ++a) linear += z[1 + a] * y[size_t(row * p + a)];
    return std::exp(linear);
  }

  double jump(int64_t x, int64_t u, const double* z) const {  // without theta
    const double* exciting = z + 1 + p;
    double linear =
        exciting[0] - exciting[1] * distance[size_t(u / types * places + node[size_t(x)] / types)];
    for (int64_t r = 0; r < q; ++r) linear += exciting[2 + r] * marks[size_t(x * q + r)];
    return std::exp(linear);
  }

  int64_t block_of(double t) const {
    int64_t k = 0;
    while (k + 1 < blocks() && !(t <= edge[size_t(k + 1)])) ++k;
    return k;
  }

  double intensity(double t, int64_t u, const double* z) const {
    const int64_t k = block_of(t);
    double sum = 0.0;
    for (int64_t x = 0; x < events() && time[size_t(x)] < t; ++x)
      sum += theta(k, u, node[size_t(x)]) * jump(x, u, z) *
             std::exp(-z[parameters() - 1] * (t - time[size_t(x)]));
    return mu(k, u, z) + sum;
  }

  // The integral of lambda from edge[k] to `to` within block k, event by event.
  double mass(int64_t k, double to, int64_t u, const double* z) const {
    const double lo = edge[size_t(k)], d = z[parameters() - 1];
    double sum = mu(k, u, z) * (to - lo);
    for (int64_t x = 0; x < events() && time[size_t(x)] < to; ++x) {
      const double t = time[size_t(x)], from = std::max(lo, t);
      sum += theta(k, u, node[size_t(x)]) * jump(x, u, z) * std::exp(-d * (from - t)) *
             -std::expm1(-d * (to - from)) / d;
    }
    return sum;
  }

  bool own(int64_t x, int64_t u) const {
    return node[size_t(x)] == u && time[size_t(x)] > edge.front() && time[size_t(x)] <= edge.back();
  }

  double log_likelihood(int64_t u, const double* z) const {
    double sum = 0.0;
    for (int64_t x = 0; x < events(); ++x)
      if (own(x, u))
        sum +=
            weight[size_t(block_of(time[size_t(x)]))] * std::log(intensity(time[size_t(x)], u, z));
    for (int64_t k = 0; k < blocks(); ++k)
      sum -= weight[size_t(k)] * mass(k, edge[size_t(k + 1)], u, z);
    return sum;
  }
};

inline void sort_events(Case& c) { std::sort(c.time.begin(), c.time.end()); }

// Random places, marks, covariates and theta; history before 0, a tie of several nodes, an event on an
// edge and one at T.
inline Case random_case(unsigned seed, int64_t places = 2, int64_t types = 2, int64_t events = 220,
                        int64_t blocks = 6, int64_t p = 2, int64_t q = 2, double horizon = 30.0) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> unit(0.0, 1.0);
  Case c;
  c.places = places, c.types = types, c.p = p, c.q = q;
  for (int64_t x = 0; x < events; ++x) c.time.push_back((unit(random) * 1.05 - 0.05) * horizon);
  sort_events(c);
  if (events > 30) {
    for (int64_t x = 21; x < 25; ++x) c.time[size_t(x)] = c.time[20];
    c.time.back() = horizon;
  }
  c.edge.push_back(0.0);
  for (int64_t k = 1; k < blocks; ++k) c.edge.push_back(horizon * unit(random));
  c.edge.push_back(horizon);
  std::sort(c.edge.begin(), c.edge.end());
  if (blocks > 2 && events > 100)
    c.edge[2] = *std::lower_bound(c.time.begin(), c.time.end(), c.edge[2]);
  for (int64_t x = 0; x < events; ++x) c.node.push_back(int32_t(random() % uint64_t(c.nodes())));
  for (int64_t i = 0; i < events * q; ++i) c.marks.push_back(unit(random));
  for (int64_t k = 0; k < blocks; ++k) c.weight.push_back(0.5 + unit(random));
  for (int64_t i = 0; i < blocks * c.nodes() * p; ++i) c.y.push_back(unit(random));
  for (int64_t i = 0; i < blocks * c.nodes() * c.nodes(); ++i) c.dense.push_back(unit(random));
  std::vector<double> place;
  for (int64_t i = 0; i < 2 * places; ++i) place.push_back(2.0 * unit(random));
  for (int64_t i = 0; i < places; ++i)
    for (int64_t j = 0; j < places; ++j)
      c.distance.push_back(std::hypot(place[size_t(2 * i)] - place[size_t(2 * j)],
                                      place[size_t(2 * i + 1)] - place[size_t(2 * j + 1)]));
  return c;
}

// Natural parameters of node u; all effects are large enough to matter.
inline std::vector<double> parameters_of(const Case& c, int64_t u, double delta_k = 2.0) {
  std::vector<double> z{std::log(0.5)};
  for (int64_t a = 0; a < c.p; ++a) z.push_back(0.4 - 0.1 * double(a));
  z.push_back(std::log(0.9));
  z.push_back(0.8);
  for (int64_t a = 0; a < c.q; ++a) z.push_back(0.3 - 0.1 * double(a % 4));
  z.push_back(delta_k + 0.7 * double(u % 5));
  return z;
}

struct Results {
  std::vector<double> value, gradient, hessian;
  std::vector<int64_t> failed;
};

// All items in calls of `batch` items each.
inline Results evaluate(const Case& c, const std::vector<int32_t>& node,
                        const std::vector<double>& z, int order = 2, int64_t batch = 1 << 20) {
  const HawkesProblem problem = c.problem();
  const auto& cpu = topreach::kernels::hawkes_cpu();
  const AlignedMemory scratch(cpu.scratch(problem));
  const int64_t items = int64_t(node.size()), size = c.parameters();
  Results r;
  r.value.assign(size_t(items), NAN);
  r.failed.assign(size_t(items), -2);
  if (order >= 1) r.gradient.assign(size_t(items * size), NAN);
  if (order >= 2) r.hessian.assign(size_t(items * size * size), NAN);
  const HawkesItems out{node.data(),
                        z.data(),
                        r.value.data(),
                        order >= 1 ? r.gradient.data() : nullptr,
                        order >= 2 ? r.hessian.data() : nullptr,
                        r.failed.data()};
  for (int64_t i = 0; i < items; i += batch)
    cpu.evaluate(problem, out, i, std::min(items, i + batch), scratch.get());
  return r;
}

inline Results evaluate_one(const Case& c, int64_t u, const std::vector<double>& z, int order = 2) {
  return evaluate(c, {int32_t(u)}, z, order);
}

}  // namespace hawkes_cases
