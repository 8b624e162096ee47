// Times of the allocation programs' algorithms, on one core. Build and run:
//   cmake -S . -B build/bench -DTOPREACH_BENCHMARKS=ON && cmake --build build/bench --target programs_kernels
//   build/bench/programs_kernels quota|expected|coverage|tours GAINS EDGES|edges FILE N
// Graphs are simulated: a triangulated lattice with random diagonals (planar), and one made by preferential
// attachment (hubs).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <random>
#include <string>

#include "../kernels/programs/coverage.h"
#include "../kernels/programs/expected_quota_topk.h"
#include "../kernels/programs/quota_topk.h"
#include "../kernels/programs/tours.h"

namespace {

using namespace topreach::kernels;

// The least of `repeats` times, in seconds.
template <typename Work>
double seconds(int repeats, const Work& work) {
  double least = 1e300;
  for (int r = 0; r < repeats; ++r) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    least = std::min(
        least, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return least;
}

void quota() {
  const int64_t sites = 1000000, k = 50000;
  std::mt19937_64 random(0);
  std::normal_distribution<float> normal;
  std::vector<float> score(sites);
  for (float& r : score) r = normal(random);
  std::vector<int32_t> order(sites), chosen(k);
  const double sort = seconds(5, [&] {
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return score[size_t(a)] > score[size_t(b)] || (score[size_t(a)] == score[size_t(b)] && a < b);
    });
  });
  auto keys = score;
  const double plain = seconds(5, [&] {
    keys = score;
    std::sort(keys.begin(), keys.end());
  });
  std::printf("sort of 1e6 scores: places %.1f ms, values alone %.1f ms\n", 1e3 * sort,
              1e3 * plain);
  for (const int32_t groups : {0, 39, 3000}) {
    const int32_t regions = groups > 100 ? 50 : 0;
    std::vector<int32_t> group(sites), parent(size_t(groups + regions), -1);
    for (int64_t s = 0; s < sites; ++s)
      group[size_t(s)] = groups ? int32_t(s * groups / sites) : -1;
    for (int32_t g = 0; g < groups && regions; ++g)
      parent[size_t(g)] = groups + int32_t(int64_t(g) * regions / groups);
    std::vector<int64_t> lower(parent.size(), 1), upper(parent.size(), sites);
    QuotaTree tree(QuotaGroups{sites, k});
    const double make = seconds(3, [&] {
      tree = QuotaTree({sites, k, groups + regions, group.data(), parent.data(), lower.data(),
                        upper.data(), nullptr});
    });
    QuotaScratch<float> scratch;
    const double best = seconds(5, [&] { tree.best(score.data(), scratch, chosen.data()); });
    std::printf("quota top-K, %d groups, %d regions: tree %.1f ms, a row %.1f ms\n", groups,
                regions, 1e3 * make, 1e3 * best);
  }
}

void expected() {
  const int64_t sites = 809, k = 162;
  const int32_t groups = 39;
  std::mt19937_64 random(0);
  std::normal_distribution<double> normal;
  std::vector<double> score(sites), v(sites), value(sites), product(sites);
  std::vector<int32_t> group(sites);
  for (size_t s = 0; s < size_t(sites); ++s) {
    score[s] = normal(random);
    v[s] = normal(random);
    group[s] = s < size_t(groups) ? int32_t(s) : int32_t(random() % unsigned(groups));
  }
  const std::vector<int64_t> lower(size_t(groups), 1), upper(size_t(groups), sites);
  for (const double sigma : {0.03, 0.1, 0.3, 1.0}) {
    ExpectedQuotaTopK op(sites, k, groups, group.data(), lower.data(), upper.data());
    const double one =
        seconds(5, [&] { op.run(score.data(), sigma, nullptr, value.data(), nullptr); });
    const double both =
        seconds(5, [&] { op.run(score.data(), sigma, v.data(), value.data(), product.data()); });
    const double sum = std::accumulate(value.begin(), value.end(), 0.0);
    std::printf(
        "expected quotas 809/39/162, sigma %.2f: value %.1f ms, with J v %.1f ms, sum - K %.0e\n",
        sigma, 1e3 * one, 1e3 * both, sum - double(k));
  }
}

Graph lattice(int32_t side, std::mt19937_64& random) {
  std::vector<int32_t> a, b;
  for (int32_t i = 0; i < side; ++i)
    for (int32_t j = 0; j < side; ++j) {
      const int32_t node = i * side + j;
      if (i + 1 < side) a.push_back(node), b.push_back(node + side);
      if (j + 1 < side) a.push_back(node), b.push_back(node + 1);
      if (i + 1 == side || j + 1 == side) continue;
      const bool down = random() & 1;
      a.push_back(down ? node : node + 1);
      b.push_back(down ? node + side + 1 : node + side);
    }
  return make_graph(side * side, a, b);
}

Graph attachment(int32_t nodes, int32_t each, std::mt19937_64& random) {
  std::vector<int32_t> a, b, ends;
  for (int32_t node = each; node < nodes; ++node)
    for (int32_t e = 0; e < each; ++e) {
      const int32_t to = ends.empty() ? e : ends[random() % ends.size()];
      a.push_back(node);
      b.push_back(to);
      ends.push_back(node);
      ends.push_back(to);
    }
  return make_graph(nodes, a, b);
}

void coverage(const char* name, const Graph& graph, int64_t k, std::mt19937_64& random) {
  const auto n = size_t(graph.nodes());
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<double> treated(n), spilled(n), comes(n), passes(n);
  for (size_t i = 0; i < n; ++i) {
    const double p = uniform(random);
    treated[i] = .5 * p;
    spilled[i] = .2 * p;
    comes[i] = .2 + .6 * uniform(random);
    passes[i] = .3 + .6 * uniform(random);
  }
  const QuotaTree tree(QuotaGroups{graph.nodes(), k});
  const auto report = [&](const char* form, const Coverage& c, const CoverageOptions& options) {
    CoveragePlan plan;
    const double time = seconds(1, [&] { plan = solve_coverage(c, tree, options); });
    std::printf("coverage, %s, %s: value %.4f bound %.4f gap %.4f %%, %d steps, %.2f s\n", name,
                form, plan.value, plan.bound, 100 * plan.gap, int(plan.steps), time);
  };
  const Coverage spill = spillover(graph, treated, spilled), call = call_in(graph, comes, passes);
  CoverageOptions options;
  options.steps = 100000;
  for (const double limit : {2.0, 12.0}) {
    options.time_limit = limit;
    report("spillover", spill, options);
  }
  options.time_limit = 6;
  report("call-in exact", call, options);
  options.time_limit = 2;
  options.capped = true;
  report("call-in capped", call, options);
}

// GAINS: one number on each line. EDGES: "a b" on each line, numbered from 0.
void tours(const char* gains, const char* edges) {
  std::vector<double> gain;
  std::ifstream gain_file(gains), edge_file(edges);
  for (double g; gain_file >> g;) gain.push_back(g);
  std::vector<int32_t> a, b;
  for (int32_t x, y; edge_file >> x >> y;) a.push_back(x), b.push_back(y);
  const Graph graph = make_graph(int32_t(gain.size()), a, b);
  struct Case {
    int64_t k;
    double areas;
  };
  for (const Case c : {Case{4, 6}, {4, 12}, {8, 12}, {4, 15}}) {
    TourOptions options;
    options.k = c.k;
    options.max_size = c.areas;
    options.time_limit = 60;
    TourPlan plan;
    const double time = seconds(1, [&] { plan = solve_tours(graph, gain, options); });
    std::printf(
        "tours, k = %d, <= %d areas: value %.5f bound %.5f (beam %.5f), %d columns, %.1e branches, "
        "%.2f s\n",
        int(c.k), int(c.areas), plan.value, plan.bound, plan.heuristic, int(plan.columns),
        double(plan.branches), time);
  }
}

}  // namespace

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "";
  std::mt19937_64 random(0);
  if (what.empty() || what == "quota") quota();
  if (what.empty() || what == "expected") expected();
  if (what.empty() || what == "coverage") {
    coverage("planar, n = 99,856, K = 2,000", lattice(316, random), 2000, random);
    coverage("hubs, n = 100,000, K = 2,000", attachment(100000, 3, random), 2000, random);
  }
  if (what == "tours") tours(arguments[2], arguments[3]);
  if (what == "edges") {  // edges FILE NODES: "a b" on each line
    std::vector<int32_t> a, b;
    std::ifstream file(arguments[2]);
    for (int32_t x, y; file >> x >> y;) a.push_back(x), b.push_back(y);
    coverage("file", make_graph(std::stoi(arguments[3]), a, b), 2000, random);
  }
}
