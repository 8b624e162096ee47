// The CUDA kernels of the expected top-K, run by the host emulation, against the CPU's: the same
// method with sums in another order, so equal up to rounding; and equal bits whatever the order in
// which threads run.
#include "../../kernels/cuda/expected_topk.cu"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "../../kernels/perturbed_topk.h"

namespace {

namespace cuda = topreach::kernels::cuda;
using cuda_emulation::Order;
using topreach::kernels::frame_of;
using topreach::kernels::kGridSize;

template <typename T>
struct Case {
  int64_t sites, k;
  double sigma;
  std::vector<T> scores, v;

  Case(int64_t sites, int64_t k, double sigma, int levels = 0) : sites(sites), k(k), sigma(sigma) {
    std::mt19937 random(7);
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < sites; ++i) {
      const double score = normal(random);
      scores.push_back(T(levels > 0 ? std::floor(score * levels) / levels : score));
      v.push_back(T(normal(random)));
    }
  }
};

struct Results {
  std::vector<double> value, product, mean, mean_product;
};

template <typename T>
std::vector<double> widened(const std::vector<T>& a) {
  return std::vector<double>(a.begin(), a.end());
}

template <typename T>
Results on_cpu(const Case<T>& c) {
  const auto& cpu = topreach::kernels::expected_topk_cpu<T>();
  const auto memory = [](int64_t bytes) { return std::vector<double>(size_t(bytes / 8 + 8)); };
  auto select = memory(topreach::kernels::TopKScratch<T>::bytes(c.sites));
  T bound[2];
  int32_t last_tied;
  for (int i = 0; i < 2; ++i)
    topreach::kernels::topk_cpu<T>().threshold(c.scores.data(), c.sites, c.k + i, &bound[i],
                                               &last_tied, select.data());
  const auto frame = frame_of(double(bound[0]), double(bound[1]), c.sigma);
  const auto run = [&](const T* v) {
    std::vector<double> grid(2 * kGridSize, 0.0);
    std::vector<T> out(c.scores.size(), T(0));
    auto scratch = memory(cpu.scratch_bytes(c.sites));
    topreach::kernels::TopKTable table;
    const auto spread = cpu.spread(c.scores.data(), v, c.sites, frame, grid.data());
    cpu.solve(c.scores.data(), v, c.sites, c.k, frame, spread, grid.data(), &table, out.data(),
              scratch.data());
    cpu.interpolate(c.scores.data(), v, c.sites, frame, &table, out.data());
    return widened(out);
  };
  Results r{run(nullptr), run(c.v.data()), {}, {}};
  std::vector<double> grid(2 * kGridSize, 0.0);
  auto scratch = memory(cpu.scratch_bytes(0));
  const auto spread =
      cpu.spread(c.scores.data(), static_cast<const T*>(nullptr), c.sites, frame, grid.data());
  const double tau = cpu.mean_field_threshold(c.k, frame, spread, grid.data(), scratch.data());
  std::vector<T> out(c.scores.size());
  cpu.mean_field(c.scores.data(), c.sites, tau, c.sigma, out.data());
  r.mean = widened(out);
  double density, weighted;
  cpu.mean_field_sums(c.scores.data(), c.v.data(), c.sites, tau, c.sigma, &density, &weighted);
  cpu.mean_field_jvp(c.scores.data(), c.v.data(), c.sites, tau, c.sigma, weighted / density,
                     out.data());
  r.mean_product = widened(out);
  return r;
}

template <typename T>
Results on_cuda(const Case<T>& c) {
  std::vector<double> bounds(2),
      workspace(size_t(cuda::expected_topk_workspace(1, c.sites) / 8 + 8));
  std::vector<T> out(c.scores.size(), T(0));
  cuda::ExpectedTopKProblem<T> p{c.scores.data(), nullptr, 1, c.sites, c.k, c.sigma};
  Results r;
  EXPECT_EQ(cuda::expected_topk_bounds(p, bounds.data(), nullptr), cudaSuccess);
  EXPECT_EQ(cuda::expected_topk_exact(p, bounds.data(), out.data(), workspace.data(), nullptr),
            cudaSuccess);
  r.value = widened(out);
  p.v = c.v.data();
  EXPECT_EQ(cuda::expected_topk_exact(p, bounds.data(), out.data(), workspace.data(), nullptr),
            cudaSuccess);
  r.product = widened(out);
  p.v = nullptr;
  EXPECT_EQ(cuda::expected_topk_mean_field(p, bounds.data(), out.data(), nullptr), cudaSuccess);
  r.mean = widened(out);
  p.v = c.v.data();
  EXPECT_EQ(cuda::expected_topk_mean_field(p, bounds.data(), out.data(), nullptr), cudaSuccess);
  r.mean_product = widened(out);
  return r;
}

void expect_near(const std::vector<double>& a, const std::vector<double>& b, double bound) {
  ASSERT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::fabs(a[i] - b[i]));
  EXPECT_LT(worst, bound);
}

template <typename T>
void compare(const Case<T>& c) {
  SCOPED_TRACE(::testing::Message() << c.sites << " sites, k " << c.k << ", sigma " << c.sigma);
  const Results cpu = on_cpu(c), gpu = on_cuda(c);
  // Spreading in units of 2^-38 moves a site's weight by 4e-12; float results round by 6e-8.
  const double rounding = sizeof(T) == 4 ? 1.2e-7 : 1e-9;
  double largest = 0;
  for (T v : c.v) largest = std::max(largest, std::fabs(double(v)));
  expect_near(cpu.value, gpu.value, rounding);
  expect_near(cpu.mean, gpu.mean, rounding);
  expect_near(cpu.product, gpu.product, 4 * rounding * largest / c.sigma);
  expect_near(cpu.mean_product, gpu.mean_product, 4 * rounding * largest / c.sigma);
}

TEST(ExpectedTopKCuda, EqualsCpu) {
  compare(Case<double>(2, 1, 0.5));
  compare(Case<double>(12, 4, 0.3));
  compare(Case<float>(12, 11, 0.1));
  compare(Case<double>(300, 60, 1.0));  // on the grid
  compare(Case<float>(200, 20, 0.2));   // some on the grid, some direct
  compare(Case<double>(90, 7, 0.02, 3));
}

TEST(ExpectedTopKCuda, CertainRowsAndNaN) {
  const double infinity = std::numeric_limits<double>::infinity();
  std::vector<double> scores{5, 1, 0, -1, 1, -infinity, -infinity, -infinity, 0, NAN, 0, 1};
  const std::vector<double> v(12, 1.0);
  cuda::ExpectedTopKProblem<double> p{scores.data(), nullptr, 3, 4, 1, 0.1};
  std::vector<double> bounds(6), out(12, 7.0),
      workspace(size_t(cuda::expected_topk_workspace(3, 4) / 8 + 8));
  ASSERT_EQ(cuda::expected_topk_bounds(p, bounds.data(), nullptr), cudaSuccess);
  ASSERT_EQ(cuda::expected_topk_exact(p, bounds.data(), out.data(), workspace.data(), nullptr),
            cudaSuccess);
  for (double value : out) EXPECT_EQ(value, 7.0);  // left to the mask
  p.v = v.data();
  ASSERT_EQ(cuda::expected_topk_exact(p, bounds.data(), out.data(), workspace.data(), nullptr),
            cudaSuccess);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(out[size_t(i)], 0.0);
  for (int i = 8; i < 12; ++i) EXPECT_TRUE(std::isnan(out[size_t(i)]));
}

TEST(ExpectedTopKCuda, OrderOfThreadsDoesNotMatter) {
  const Case<double> c(40, 8, 0.5);
  const Results forward = on_cuda(c);
  cuda_emulation::schedule(Order::kRandom, 3);
  const Results random = on_cuda(c);
  cuda_emulation::schedule(Order::kForward);
  EXPECT_EQ(forward.value, random.value);
  EXPECT_EQ(forward.product, random.product);
  EXPECT_EQ(forward.mean, random.mean);
  EXPECT_EQ(forward.mean_product, random.mean_product);
}

}  // namespace
