// Times the networked Hawkes kernels against a plain scalar program for the same likelihood, on one core and
// on two. Events, marks, covariates and theta are simulated: 79 blocks, 5 types, 3 covariates, 7 marks.
//
//   cmake -S . -B build/bench -DTOPREACH_BENCHMARKS=ON && cmake --build build/bench --target hawkes_kernels
//   build/bench/hawkes_kernels [repeats]
//
// Prints one line for each size: milliseconds for all nodes (processor time of the thread, the least of the
// repeats; the programs run in turn), and ratios. The plain program reads theta from a table [B, M, M]; the
// kernels compute it from counts of events as they go ("jaccard"), as in the model.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "../kernels/hawkes.h"
#include "../kernels/hawkes_branching.h"

namespace {

using namespace topreach::kernels;

constexpr int64_t kTypes = 5, kBlocks = 79, kCovariates = 3, kMarks = 7;

struct Data {
  int64_t places, nodes, events;
  double horizon = 79.0;
  std::vector<double> time, marks, edge, weight, y, distance, prior;
  std::vector<int32_t> node;
  std::vector<float> joint, either;
  std::vector<double> theta;  // [B, M, M], for the plain program
  std::vector<double> z;      // [M, P]
};

Data simulate(int64_t places, int64_t events) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> unit(0.0, 1.0);
  Data d;
  d.places = places, d.nodes = places * kTypes, d.events = events;
  for (int64_t x = 0; x < events; ++x) d.time.push_back(unit(random) * d.horizon);
  std::sort(d.time.begin(), d.time.end());
  for (int64_t x = 0; x < events; ++x) d.node.push_back(int32_t(random() % uint64_t(d.nodes)));
  for (int64_t i = 0; i < events * kMarks; ++i) d.marks.push_back(unit(random));
  for (int64_t k = 0; k <= kBlocks; ++k) d.edge.push_back(d.horizon * double(k) / double(kBlocks));
  d.weight.assign(size_t(kBlocks), 1.0);
  for (int64_t i = 0; i < kBlocks * d.nodes * kCovariates; ++i) d.y.push_back(unit(random));
  d.distance.assign(size_t(places * places), 0.0);
  for (int64_t i = 0; i < places; ++i)
    for (int64_t j = 0; j < i; ++j)
      d.distance[size_t(i * places + j)] = d.distance[size_t(j * places + i)] = 2.0 * unit(random);
  d.prior.assign(size_t(kBlocks * kTypes * kTypes), 0.5);
  d.joint.resize(size_t(kBlocks * kTypes * d.nodes));
  d.either.resize(d.joint.size());
  for (size_t i = 0; i < d.joint.size(); ++i) {
    d.either[i] = float(random() % 40);
    d.joint[i] = float(random() % uint64_t(d.either[i] + 1));
  }
  for (int64_t u = 0; u < d.nodes; ++u) {
    d.z.insert(d.z.end(), {std::log(0.5), 0.3, 0.2, 0.5, std::log(2.0), 1.5});
    d.z.insert(d.z.end(), size_t(kMarks), 0.2);
    d.z.push_back(8.0);
  }
  return d;
}

HawkesProblem problem_of(const Data& d) {
  HawkesProblem p{};
  p.time = d.time.data(), p.node = d.node.data(), p.marks = d.marks.data();
  p.events = d.events, p.marks_per_event = kMarks;
  p.edge = d.edge.data(), p.weight = d.weight.data(), p.covariates = d.y.data();
  p.blocks = kBlocks, p.covariates_per_node = kCovariates;
  p.places = d.places, p.types = kTypes, p.distance = d.distance.data();
  p.theta.joint = d.joint.data(), p.theta.either = d.either.data(), p.theta.prior = d.prior.data();
  p.theta.prior_weight = 5.0, p.theta.refreshes = kBlocks;
  return p;
}

// The plain program: a loop over nodes and over events, with std::exp. It keeps the sum of each source at the
// start of each block. The gradient runs the same steps backwards.
class Plain {
 public:
  explicit Plain(const Data& data) : d(data) {}

  double evaluate(int64_t u, const double* z, double* gradient) {
    const int64_t nodes = d.nodes;
    const double* beta = z + 1;
    const double *omega = z + kCovariates + 3, rate = z[kCovariates + kMarks + 3];
    const double* distance = d.distance.data() + u / kTypes * d.places;
    const auto theta = [&](int64_t k, int64_t v) {
      return d.theta[size_t((k * nodes + u) * nodes + v)];
    };
    std::vector<double> reach(static_cast<size_t>(d.places));
    for (int64_t j = 0; j < d.places; ++j)
      reach[size_t(j)] = std::exp(z[kCovariates + 1] - z[kCovariates + 2] * distance[j]);
    weight.resize(size_t(d.events));
    decay.resize(size_t(d.events));
    for (int64_t x = 0; x < d.events; ++x) {
      double linear = 0.0;
      for (int64_t r = 0; r < kMarks; ++r) linear += omega[r] * d.marks[size_t(x * kMarks + r)];
      weight[size_t(x)] = reach[size_t(d.node[size_t(x)] / kTypes)] * std::exp(linear);
    }
    // Stops: own events and the blocks' ends.
    stops.clear();
    int64_t own = 0;
    for (int64_t k = 0; k < kBlocks; ++k) {
      for (; own < d.events && d.time[size_t(own)] <= d.edge[size_t(k + 1)]; ++own)
        if (d.node[size_t(own)] == u) stops.push_back({d.time[size_t(own)], k, true, 0, 0.0, 0.0});
      stops.push_back({d.edge[size_t(k + 1)], k, false, 0, 0.0, 0.0});
    }
    std::vector<double> mu(static_cast<size_t>(kBlocks));
    std::vector<double> state(static_cast<size_t>((kBlocks + 1) * nodes), 0.0);
    std::vector<double> joined(static_cast<size_t>(nodes), 0.0);
    std::vector<double> started(static_cast<size_t>(kBlocks), 0.0);
    for (int64_t k = 0; k < kBlocks; ++k) {
      double linear = z[0];
      for (int64_t a = 0; a < kCovariates; ++a)
        linear += beta[a] * d.y[size_t((k * nodes + u) * kCovariates + a)];
      mu[size_t(k)] = std::exp(linear);
    }
    double value = 0.0, sum = 0.0, at = 0.0;
    int64_t x = 0, block = -1;
    for (Stop& s : stops) {
      double* now = state.data() + s.block * nodes;
      const double end = d.edge[size_t(s.block + 1)];
      if (s.block != block) {
        block = s.block;
        sum = 0.0;
        for (int64_t v = 0; v < nodes; ++v) sum += theta(block, v) * now[v];
        started[size_t(block)] = sum;
        std::fill(joined.begin(), joined.end(), 0.0);
      }
      const double lost = -std::expm1(-rate * (s.time - at)),
                   rest = std::exp(-rate * (end - s.time));
      double integral = sum * lost / rate;
      sum *= 1.0 - lost;
      s.first = x;
      for (; x < d.events && d.time[size_t(x)] < s.time; ++x) {
        const double e = std::exp(-rate * (s.time - d.time[size_t(x)]));
        const double w = theta(block, d.node[size_t(x)]) * weight[size_t(x)];
        decay[size_t(x)] = e;
        sum += w * e;
        integral += w * (1.0 - e) / rate;
        joined[size_t(d.node[size_t(x)])] += weight[size_t(x)] * e * rest;
      }
      value -= mu[size_t(block)] * (s.time - at) + integral;
      s.sum = sum;
      if (s.own) {
        s.intensity = mu[size_t(block)] + sum;
        value += std::log(s.intensity);
      } else {
        const double shift = std::exp(-rate * (end - d.edge[size_t(block)]));
        for (int64_t v = 0; v < nodes; ++v) now[nodes + v] = now[v] * shift + joined[size_t(v)];
      }
      at = s.time;
    }
    if (gradient == nullptr) return value;

    std::fill(gradient, gradient + kCovariates + kMarks + 4, 0.0);
    std::vector<double> later(static_cast<size_t>(nodes), 0.0), next(static_cast<size_t>(nodes));
    double slope = 0.0;
    int64_t last = d.events, stop = int64_t(stops.size()) - 1;
    while (last > 0 && d.time[size_t(last - 1)] >= d.horizon) --last;
    for (int64_t k = kBlocks - 1; k >= 0; --k) {
      const double length = d.edge[size_t(k + 1)] - d.edge[size_t(k)],
                   shift = std::exp(-rate * length);
      const double* y = d.y.data() + (k * nodes + u) * kCovariates;
      next = later;
      for (int64_t v = 0; v < nodes; ++v) {
        slope -= next[size_t(v)] * state[size_t(k * nodes + v)] * length * shift;
        later[size_t(v)] = next[size_t(v)] * shift;
      }
      double back = 0.0;
      for (; stop >= 0 && stops[size_t(stop)].block == k; --stop) {
        const Stop& s = stops[size_t(stop)];
        const bool starts = stop == 0 || stops[size_t(stop - 1)].block != k;
        const double from = starts ? d.edge[size_t(k)] : stops[size_t(stop - 1)].time;
        const double before = starts ? started[size_t(k)] : stops[size_t(stop - 1)].sum;
        const double gap = s.time - from, to_end = d.edge[size_t(k + 1)] - s.time;
        double base = -mu[size_t(k)] * gap;
        if (s.own) back += 1.0 / s.intensity, base += mu[size_t(k)] / s.intensity;
        gradient[0] += base;
        for (int64_t a = 0; a < kCovariates; ++a) gradient[1 + a] += base * y[a];
        const double rest = std::exp(-rate * to_end);
        for (int64_t e = s.first; e < last; ++e) {
          const int64_t v = d.node[size_t(e)];
          const double f = decay[size_t(e)], w = weight[size_t(e)],
                       lag = s.time - d.time[size_t(e)];
          const double t = theta(k, v), carried = next[size_t(v)] * f * rest;
          const double c = w * (t * (back * f - (1.0 - f) / rate) + carried);
          slope += w * t * (-back * lag * f - (lag * f / rate - (1.0 - f) / (rate * rate))) -
                   w * carried * (lag + to_end);
          gradient[kCovariates + 1] += c;
          gradient[kCovariates + 2] -= c * distance[v / kTypes];
          for (int64_t r = 0; r < kMarks; ++r)
            gradient[kCovariates + 3 + r] += c * d.marks[size_t(e * kMarks + r)];
        }
        last = s.first;
        const double f = std::exp(-rate * gap);
        slope += before * (-back * gap * f - (gap * f / rate - (1.0 - f) / (rate * rate)));
        back = back * f - (1.0 - f) / rate;
      }
      for (int64_t v = 0; v < nodes; ++v) later[size_t(v)] += back * theta(k, v);
    }
    gradient[kCovariates + kMarks + 3] = slope;
    return value;
  }

 private:
  struct Stop {
    double time;
    int64_t block;
    bool own;
    int64_t first;
    double sum, intensity;
  };
  const Data& d;
  std::vector<double> weight, decay;
  std::vector<Stop> stops;
};

double processor_ms(const std::function<void()>& f) {
  timespec a, b;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
  f();
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
  return 1e3 * double(b.tv_sec - a.tv_sec) + 1e-6 * double(b.tv_nsec - a.tv_nsec);
}

double wall_ms(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

void compare(int64_t places, int64_t events, int repeats, bool plain_too) {
  Data d = simulate(places, events);
  const HawkesProblem p = problem_of(d);
  const int64_t size = hawkes_parameters(p), nodes = d.nodes;
  if (plain_too) {
    d.theta.resize(size_t(kBlocks * nodes * nodes));
    for (int64_t k = 0; k < kBlocks; ++k)
      for (int64_t u = 0; u < nodes; ++u)
        for (int64_t v = 0; v < nodes; ++v)
          d.theta[size_t((k * nodes + u) * nodes + v)] = hawkes_theta_of(p, k, u, v);
  }
  const auto& cpu = hawkes_cpu();
  const int64_t bytes = (cpu.scratch(p) + 63) / 64 * 64;
  void* scratch[2] = {std::aligned_alloc(64, size_t(bytes)), std::aligned_alloc(64, size_t(bytes))};
  std::vector<int32_t> node;
  for (int64_t u = 0; u < nodes; ++u) node.push_back(int32_t(u));
  std::vector<double> value(static_cast<size_t>(nodes)),
      gradient(static_cast<size_t>(nodes * size)),
      hessian(static_cast<size_t>(nodes * size * size)),
      plain_gradient(static_cast<size_t>(nodes * size)), plain_value(static_cast<size_t>(nodes));
  const HawkesItems order0{node.data(), d.z.data(), value.data(), nullptr, nullptr, nullptr};
  HawkesItems order1 = order0, order2 = order0;
  order1.gradient = order2.gradient = gradient.data();
  order2.hessian = hessian.data();
  Plain plain(d);
  double best[6];
  std::fill(best, best + 6, std::numeric_limits<double>::infinity());
  for (int i = 0; i < repeats; ++i) {
    if (plain_too) {
      best[0] = std::min(best[0], processor_ms([&] {
                           for (int64_t u = 0; u < nodes; ++u)
                             plain_value[size_t(u)] = plain.evaluate(
                                 u, d.z.data() + u * size, plain_gradient.data() + u * size);
                         }));
    }
    best[1] =
        std::min(best[1], processor_ms([&] { cpu.evaluate(p, order0, 0, nodes, scratch[0]); }));
    best[3] =
        std::min(best[3], processor_ms([&] { cpu.evaluate(p, order2, 0, nodes, scratch[0]); }));
    best[2] =
        std::min(best[2], processor_ms([&] { cpu.evaluate(p, order1, 0, nodes, scratch[0]); }));
    best[4] = std::min(best[4], wall_ms([&] { cpu.evaluate(p, order1, 0, nodes, scratch[0]); }));
    best[5] = std::min(
        best[5], wall_ms([&] {
          std::thread other([&] { cpu.evaluate(p, order1, nodes / 2, nodes, scratch[1]); });
          cpu.evaluate(p, order1, 0, nodes / 2, scratch[0]);
          other.join();
        }));
  }
  double apart = 0.0;
  if (plain_too) {
    for (size_t i = 0; i < value.size(); ++i)
      apart = std::max(apart, std::fabs(value[i] - plain_value[i]) / (1.0 + std::fabs(value[i])));
    for (size_t i = 0; i < gradient.size(); ++i)
      apart = std::max(apart,
                       std::fabs(gradient[i] - plain_gradient[i]) / (1.0 + std::fabs(gradient[i])));
  }
  std::printf(
      "N=%lld M=%lld: value %.1f ms, +gradient %.1f, +Hessian %.1f (x%.2f); two threads x%.2f; "
      "%.1f MB a thread",
      (long long)events, (long long)nodes, best[1], best[2], best[3], best[3] / best[2],
      best[4] / best[5], double(bytes) / 1e6);
  if (plain_too)
    std::printf("; plain with gradient %.1f ms, %.2f times ours (apart by %.0e)", best[0],
                best[0] / best[2], apart);
  std::printf("\n");
  std::fflush(stdout);
  std::free(scratch[0]);
  std::free(scratch[1]);
}

// Plain thinning: a scalar loop over the nodes at each step, std::exp and std::mt19937.
int64_t plain_thinning(const HawkesFuture& f, const std::vector<double>& network, uint64_t seed) {
  const HawkesProblem& p = *f.problem;
  const int64_t nodes = p.places * p.types, size = hawkes_parameters(p);
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> wait(1.0);
  std::uniform_real_distribution<double> unit(0.0, 1.0);
  std::vector<double> state(f.excitation, f.excitation + nodes);
  const auto at = [&](int64_t u) { return f.parameters + u * size; };
  int64_t events = 0;
  for (int64_t k = 0; k < f.periods; ++k) {
    const double* base = f.base + k * nodes;
    for (double time = f.edge[k]; time < f.edge[k + 1];) {
      double bound = 0.0;
      for (int64_t u = 0; u < nodes; ++u) bound += base[u] + state[size_t(u)];
      const double step = std::min(wait(random) / bound, f.edge[k + 1] - time);
      time += step;
      for (int64_t u = 0; u < nodes; ++u) state[size_t(u)] *= std::exp(-at(u)[size - 1] * step);
      if (time >= f.edge[k + 1]) break;
      double left = unit(random) * bound;
      int64_t v = 0;
      for (; v < nodes; ++v)
        if ((left -= base[v] + state[size_t(v)]) < 0.0) break;
      if (v == nodes) continue;
      ++events;
      const int64_t pool = f.pool_start[v + 1] - f.pool_start[v];
      const double* marks =
          p.marks +
          f.pool[f.pool_start[v] + int64_t(unit(random) * double(pool))] * p.marks_per_event;
      for (int64_t u = 0; u < nodes; ++u) {
        const double* omega = at(u) + p.covariates_per_node + 3;
        double linear = 0.0;
        for (int64_t r = 0; r < p.marks_per_event; ++r) linear += omega[r] * marks[r];
        state[size_t(u)] += network[size_t(v * nodes + u)] * std::exp(linear);
      }
    }
  }
  return events;
}

// Paths of 12 periods, in milliseconds of processor time, with each method.
void compare_futures(int64_t places, int repeats) {
  Data d = simulate(places, 10'000);
  const HawkesProblem p = problem_of(d);
  const int64_t size = hawkes_parameters(p), nodes = d.nodes, periods = 12;
  HawkesFuture f{};
  std::vector<double> edge,
      base(static_cast<size_t>(periods * nodes), 0.05 * 300.0 / double(nodes)),
      excitation(static_cast<size_t>(nodes), 0.1);
  for (int64_t k = 0; k <= periods; ++k) edge.push_back(double(k));
  for (int64_t u = 0; u < nodes; ++u)  // about half of all events are children
    d.z[size_t(u * size + kCovariates + 1)] = std::log(8.0 / double(nodes));
  std::vector<int64_t> start{0}, pool;
  for (int64_t v = 0; v < nodes; ++v) {
    for (int64_t x = 0; x < d.events; ++x)
      if (d.node[size_t(x)] == v) pool.push_back(x);
    start.push_back(int64_t(pool.size()));
  }
  constexpr int64_t fast = 1000, slow = 50;
  std::vector<int32_t> counts(static_cast<size_t>(fast * periods * nodes));
  std::vector<uint8_t> failed(static_cast<size_t>(fast));
  f.problem = &p, f.key = {1, 2}, f.sets = 1, f.paths_per_set = 1;
  f.parameters = d.z.data(), f.excitation = excitation.data(), f.base = base.data();
  f.edge = edge.data(), f.periods = periods, f.pool_start = start.data(), f.pool = pool.data();
  f.most_events = 100'000, f.counts = counts.data(), f.failed = failed.data();
  const auto& cpu = hawkes_branching_cpu();
  void* scratch = std::aligned_alloc(64, size_t((cpu.scratch(f) + 63) / 64 * 64));
  const auto best = [&](HawkesMode mode, int64_t paths) {
    f.mode = mode;
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < repeats; ++i)
      least = std::min(least, processor_ms([&] { cpu.simulate(f, 0, paths, scratch); }));
    double events = 0.0;
    for (int64_t i = 0; i < paths * periods * nodes; ++i) events += counts[size_t(i)];
    std::printf("  %.2f ms a path, %.0f events in it;", least / double(paths),
                events / double(paths));
    return least / double(paths);
  };
  std::printf("futures, M=%lld: branching", (long long)nodes);
  const double branching = best(HawkesMode::kBranching, fast);
  std::printf(" thinning");
  const double thinning = best(HawkesMode::kThinning, slow);
  std::vector<double> network;
  for (int64_t v = 0; v < nodes; ++v)
    for (int64_t u = 0; u < nodes; ++u) {
      const double* z = d.z.data() + u * size + kCovariates + 1;
      network.push_back(
          std::exp(z[0] - z[1] * d.distance[size_t(u / kTypes * d.places + v / kTypes)]) *
          hawkes_theta_of(p, kBlocks - 1, u, v));
    }
  int64_t events = 0;
  const double plain = processor_ms([&] {
                         for (uint64_t i = 0; i < uint64_t(slow); ++i)
                           events += plain_thinning(f, network, i);
                       }) /
                       double(slow);
  std::printf(
      " %.1f times branching; plain thinning %.2f ms a path, %.0f events in it; %.1f times "
      "branching\n",
      thinning / branching, plain, double(events) / double(slow), plain / branching);
  std::free(scratch);
}

}  // namespace

int main(int count, char** arguments) {
  const int repeats = count > 1 ? std::atoi(arguments[1]) : 7;
  compare(9, 10'000, repeats, true);
  compare(60, 10'000, repeats, true);
  compare(9, 100'000, repeats, true);
  compare(60, 100'000, std::max(1, repeats / 4), false);
  compare_futures(9, repeats);
  compare_futures(60, repeats);
}
