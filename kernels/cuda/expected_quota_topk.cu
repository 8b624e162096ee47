// Expected top-K under quotas on CUDA; ../programs/expected_quota_topk.h has the equations, and
// ../programs/quota_nodes.h the nodes of the integral over the threshold t.
//
// Kernels, for as many rows at a time as kWaveBytes hold:
//   plan_rows     one block a row: the pool's threshold; rows without chance are done at once
//   integrate     one block for each share of a row's nodes: sums over its nodes, odd and even
//   agree         one block a row: the blocks' sums in order; done if the two rules agree
// The last two once for each refinement of the steps; rows that are done cost nothing more.
//
// At a node (quota_node.cuh): laws of the groups, a warp each, lanes over counts; laws of the pools of
// the groups before one, and distribution functions of those from it on, threads over counts. Then one
// thread for each site divides the site's Bernoulli variable out of its group's law, in the direction in
// which errors do not grow (up for P <= 1/2, else down). The CPU carries laws site by site instead. Both
// are right to some 1e-13, apart from the error of the integration rule, and differ by as much.
//
// No atomics; sums have a fixed order, whatever the other rows.
#include "quota_node.cuh"

namespace topreach::kernels::cuda {
namespace {

constexpr int kMostNodeBlocks = 32;  // of a row

// The data of a row that all its blocks use.
struct ExpectedRow {
  QuotaNodes nodes;
  double mean_v;   // of the free sites: J 1 = 0
  int64_t closed;  // entries of `sorted` before the first free site
  int32_t done;
};

// Depends on the shape of the problem alone, so that a row's sums do not depend on the other rows.
template <typename T>
int64_t node_blocks(const ExpectedQuotaProblem<T>& p) {
  const int64_t fit = 4 * kWaveBytes / node_bytes(p.steps, p.v != nullptr);
  return fit > kMostNodeBlocks ? kMostNodeBlocks : (fit < 4 ? 4 : fit);
}

template <typename T>
int64_t rows_together(const ExpectedQuotaProblem<T>& p) {
  const int64_t fit = 4 * kWaveBytes / (node_blocks(p) * node_bytes(p.steps, p.v != nullptr));
  return fit > p.rows ? p.rows : (fit < 1 ? 1 : fit);
}

template <typename T>
__global__ void __launch_bounds__(kNodeThreads)
    plan_rows(ExpectedQuotaProblem<T> p, int64_t first, int64_t rows, ExpectedRow* plans, T* out) {
  auto& shared = shared_memory<NodeShared>();
  const QuotaSteps& steps = p.steps;
  for (int64_t i = blockIdx.x; i < rows; i += gridDim.x) {
    const int64_t at = (first + i) * steps.sites;
    const T *scores = p.scores + at, *mask = p.mask + at;
    const double* sorted = p.sorted + at;
    double free = 0, sum = 0;
    for (int64_t place = threadIdx.x; place < steps.count; place += blockDim.x) {
      const int32_t s = steps.order[place];
      if (!is_free(steps, scores, s)) continue;
      free += 1;
      if (p.v != nullptr) sum += double(p.v[at + s]);
    }
    const ThreeSums all = block_sums({free, sum, 0}, shared);
    const bool refused = mask[0] != mask[0];
    if (refused || steps.free_k == 0 || steps.free_k == int64_t(all.a)) {
      for (int64_t s = threadIdx.x; s < steps.sites; s += blockDim.x)
        out[at + s] = p.v != nullptr && !refused ? T(0) : mask[s];
      if (threadIdx.x == 0) plans[i].done = 1;
      continue;
    }
    const auto pool_at = [&](double t) { return pool_moments(steps, scores, t, p.sigma, shared); };
    const int64_t closed = steps.sites - int64_t(all.a);
    const QuotaNodes nodes(sorted[closed], sorted[steps.sites - 1], steps.rest, p.sigma, pool_at);
    if (threadIdx.x == 0) plans[i] = {nodes, all.b / all.a, closed, 0};
  }
}

template <typename T>
__global__ void __launch_bounds__(kNodeThreads)
    integrate(ExpectedQuotaProblem<T> p, int64_t first, int64_t rows, int64_t blocks,
              double refinement, const ExpectedRow* plans, char* memory, int64_t bytes) {
  auto& shared = shared_memory<NodeShared>();
  const QuotaSteps& steps = p.steps;
  const bool tangents = p.v != nullptr;
  for (int64_t item = blockIdx.x; item < rows * blocks; item += gridDim.x) {
    const int64_t i = item / blocks, own = item - i * blocks, at = (first + i) * steps.sites;
    if (plans[i].done != 0) continue;
    QuotaNode<T> node{
        steps,           p.scores + at, tangents ? p.v + at : nullptr,
        plans[i].mean_v, p.sigma,       NodeMemory(steps, tangents, memory + item * bytes),
        shared};
    node.clear();
    int64_t count = 0;
    const QuotaNodes nodes = plans[i].nodes.refined(refinement);
    nodes.visit(p.sorted + at + plans[i].closed, steps.sites - plans[i].closed,
                [&](double t, double weight, int64_t n) {
                  if (count++ % blocks == own) node.add(t, weight, int(n & 1));
                });
  }
}

template <typename T>
__global__ void __launch_bounds__(kNodeThreads)
    agree(ExpectedQuotaProblem<T> p, int64_t first, int64_t rows, int64_t blocks, bool last,
          ExpectedRow* plans, char* memory, int64_t bytes, T* out) {
  const QuotaSteps& steps = p.steps;
  const bool tangents = p.v != nullptr;
  for (int64_t i = blockIdx.x; i < rows; i += gridDim.x) {
    if (plans[i].done != 0) continue;
    const int64_t at = (first + i) * steps.sites;
    for (int64_t s = threadIdx.x; s < steps.sites; s += blockDim.x)
      out[at + s] = tangents ? T(0) : p.mask[at + s];
    __syncthreads();
    bool apart = false;
    for (int64_t place = threadIdx.x; place < steps.count; place += blockDim.x) {
      const int32_t s = steps.order[place];
      if (!is_free(steps, p.scores + at, s)) continue;
      double sum[2] = {0, 0}, product[2] = {0, 0};
      for (int64_t b = 0; b < blocks; ++b) {
        const NodeMemory m(steps, tangents, memory + (i * blocks + b) * bytes);
        for (int odd = 0; odd < 2; ++odd) {
          sum[odd] += m.sum[odd][place];
          if (tangents) product[odd] += m.product[odd][place];
        }
      }
      const double difference = sum[0] - sum[1], size = difference < 0 ? -difference : difference;
      apart |= !(size < 0.5 * kQuotaAgreement);
      const double value = sum[0] + sum[1];
      out[at + s] =
          tangents ? T(product[0] + product[1]) : T(value < 0 ? 0.0 : (value > 1 ? 1.0 : value));
    }
    apart = __syncthreads_or(apart) != 0;
    if (threadIdx.x == 0 && (!apart || last)) plans[i].done = 1;
  }
}

}  // namespace

template <typename T>
int64_t expected_quota_topk_workspace(const ExpectedQuotaProblem<T>& p) {
  return rows_together(p) * (aligned_bytes(sizeof(ExpectedRow)) +
                             node_blocks(p) * node_bytes(p.steps, p.v != nullptr));
}

template <typename T>
cudaError_t expected_quota_topk(const ExpectedQuotaProblem<T>& p, T* out, void* workspace,
                                cudaStream_t stream) {
  const int64_t blocks = node_blocks(p), bytes = node_bytes(p.steps, p.v != nullptr);
  const int64_t most = rows_together(p), shared = int64_t(sizeof(NodeShared));
  const int threads = threads_for(p.steps.count, kNodeThreads);
  char* const memory = static_cast<char*>(workspace);
  auto* const plans = reinterpret_cast<ExpectedRow*>(memory + most * blocks * bytes);
  for (int64_t first = 0; first < p.rows; first += most) {
    const int64_t rows = most < p.rows - first ? most : p.rows - first;
    cudaError_t error =
        launch(plan_rows<T>, blocks_for(rows), threads, shared, stream, p, first, rows, plans, out);
    double refinement = 1;
    for (int i = 0; i < kQuotaAttempts && error == cudaSuccess; ++i, refinement *= 0.5) {
      error = launch(integrate<T>, blocks_for(rows * blocks), threads, shared, stream, p, first,
                     rows, blocks, refinement, plans, memory, bytes);
      if (error != cudaSuccess) return error;
      error = launch(agree<T>, blocks_for(rows), threads, 0, stream, p, first, rows, blocks,
                     i + 1 == kQuotaAttempts, plans, memory, bytes, out);
    }
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

#define TR_INSTANTIATE(T)                                                                \
  template int64_t expected_quota_topk_workspace<T>(const ExpectedQuotaProblem<T>&);     \
  template cudaError_t expected_quota_topk<T>(const ExpectedQuotaProblem<T>&, T*, void*, \
                                              cudaStream_t);
TR_INSTANTIATE(float)
TR_INSTANTIATE(double)
#undef TR_INSTANTIATE

}  // namespace topreach::kernels::cuda
