// The CUDA kernel of the networked Hawkes likelihood, run by the host emulation, against the CPU's.
#include "../../kernels/cuda/hawkes.cu"

#include <gtest/gtest.h>

#include <cstring>

#include "hawkes_cases.h"

namespace {

using namespace hawkes_cases;
namespace cuda = topreach::kernels::cuda;
using cuda_emulation::Order;

Results evaluate_on_cuda(const Case& c, const std::vector<int32_t>& node,
                         const std::vector<double>& z, int order, int64_t blocks) {
  cuda::HawkesBatch b{};
  b.problem = c.problem();
  const int64_t items = int64_t(node.size());
  Results r;
  r.value.assign(size_t(items), NAN);
  r.failed.assign(size_t(items), -2);
  if (order >= 1) r.gradient.assign(size_t(items * c.parameters()), NAN);
  if (order >= 2) r.hessian.assign(size_t(items * c.parameters() * c.parameters()), NAN);
  b.items = {node.data(),
             z.data(),
             r.value.data(),
             order >= 1 ? r.gradient.data() : nullptr,
             order >= 2 ? r.hessian.data() : nullptr,
             r.failed.data()};
  b.count = items;
  std::vector<int64_t> start{0}, own;
  for (int64_t v = 0; v < c.nodes(); ++v) {
    for (int64_t x = 0; x < c.events(); ++x)
      if (c.node[size_t(x)] == v) own.push_back(x);
    start.push_back(int64_t(own.size()));
  }
  b.own_start = start.data(), b.own = own.data();
  const int64_t bytes = cuda::hawkes_scratch(b.problem, order >= 2) * blocks;
  const AlignedMemory scratch(bytes);
  std::memset(scratch.get(), 0xFF, size_t(bytes));
  b.scratch = scratch.get(), b.blocks = blocks;
  EXPECT_EQ(cuda::hawkes(b, nullptr), cudaSuccess);
  return r;
}

void expect_near(const std::vector<double>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(got[i], want[i], 1e-12 * (1.0 + std::fabs(want[i]))) << "at " << i;
}

class HawkesCuda : public testing::Test {
 protected:
  void TearDown() override { cuda_emulation::schedule(Order::kForward); }

  // All nodes and some twice, with three kinds of decay, in any order of threads: near the CPU, and equal bits.
  static void expect_as_cpu(const Case& c) {
    std::vector<int32_t> node;
    std::vector<double> z;
    for (int64_t i = 0; i < c.nodes() + 2; ++i) {
      node.push_back(int32_t(i % c.nodes()));
      std::vector<double> zi = parameters_of(c, i);
      if (i % 3 != 0) zi.back() = i % 3 == 1 ? 0.01 : 12.0;
      z.insert(z.end(), zi.begin(), zi.end());
    }
    const Results want = evaluate(c, node, z, 2), got = evaluate_on_cuda(c, node, z, 2, 2);
    expect_near(got.value, want.value);
    expect_near(got.gradient, want.gradient);
    // Entries cancel: rounding is in proportion to the item's largest.
    const size_t entries = size_t(c.parameters() * c.parameters());
    for (size_t i = 0; i < want.hessian.size(); ++i) {
      const auto from = want.hessian.begin() + long(i / entries * entries);
      double most = 1.0;
      for (auto h = from; h != from + long(entries); ++h) most = std::max(most, std::fabs(*h));
      EXPECT_NEAR(got.hessian[i], want.hessian[i], 1e-12 * most) << "at " << i;
    }
    EXPECT_EQ(got.failed, want.failed);
    EXPECT_EQ(evaluate_on_cuda(c, node, z, 0, 3).value, got.value);
    EXPECT_EQ(evaluate_on_cuda(c, node, z, 1, 3).gradient, got.gradient);
    for (const Order order : {Order::kReverse, Order::kRandom}) {
      cuda_emulation::schedule(order, 5);
      const Results again = evaluate_on_cuda(c, node, z, 2, 5);
      EXPECT_EQ(again.value, got.value);
      EXPECT_EQ(again.gradient, got.gradient);
      EXPECT_EQ(again.hessian, got.hessian);
    }
    cuda_emulation::schedule(Order::kForward);
  }
};

TEST_F(HawkesCuda, IsTheCpus) {
  expect_as_cpu(random_case(7));
  expect_as_cpu(random_case(8, 3, 1, 450, 3, 1, 5));  // several rounds of a block's threads
}

TEST_F(HawkesCuda, OneNode) { expect_as_cpu(random_case(9, 1, 1, 300, 2, 0, 0)); }

TEST_F(HawkesCuda, NoEvents) { expect_as_cpu(random_case(10, 2, 1, 0, 3)); }

TEST_F(HawkesCuda, ThetaFromTablesAndNodesWithoutEvents) {
  Case c = random_case(11, 3, 2, 150, 5);
  c.dense.clear();
  c.refresh = {0, 0, 1, 2, 2};
  std::mt19937_64 random(5);
  for (int64_t i = 0; i < 3 * 2 * 2 * 3; ++i) {
    c.either.push_back(float(random() % 30));
    c.joint.push_back(float(random() % uint64_t(c.either.back() + 1)));
  }
  c.prior.assign(12, 0.4);
  for (int32_t& v : c.node) v = v == 2 ? 1 : v;
  expect_as_cpu(c);
}

TEST_F(HawkesCuda, NamesTheEventWithoutRate) {
  Case c = random_case(53, 2, 1, 40, 1, 0, 0);
  c.dense = {0.0, 0.0, 0.0, 0.0};
  std::vector<double> z = parameters_of(c, 0);
  z[0] = -std::numeric_limits<double>::infinity();
  const Results r = evaluate_on_cuda(c, {0}, z, 2, 1), want = evaluate_one(c, 0, z);
  EXPECT_EQ(r.failed, want.failed);
  expect_near(r.gradient, want.gradient);
  expect_near(r.hessian, want.hessian);
  EXPECT_EQ(r.value[0], -std::numeric_limits<double>::infinity());
}

}  // namespace
