// Perturbed top-K on CUDA: b(r) = (1/J) sum_j TopKMask(r + sigma z_j, K) and its score-function
// vector-Jacobian product g = scale sum_j (b_j . v - centre) score(z_j); see ../perturbed_topk.h.
//
// Kernels: those of perturbed_draws.cuh, and
//   draw_reach         one block a (row, draw): b_j . v, in the order of the CPU: 16 running sums
//
// Cost: forward and backward draw J S noise values twice each, some 50 instructions a value; memory
// traffic is O(rows (S + J)), with scores from cache, so arithmetic is the bound. At J = 100, S =
// 1620, T = 10 that is 1e8 instructions a pass: some microseconds, near the cost of the launches.
// Memory: brackets; thresholds and reaches, rows x J. Nothing of size J x S.
//
// Bits: thresholds, counts and the gradient of estimator "score" equal the CPU's. With
// `leave_one_out` the gradient equals the CPU's up to the rounding of the centre b . v (row_dot.cuh).
#include "perturbed_draws.cuh"

namespace topreach::kernels::cuda {
namespace {

// The terms that sum_over_draws adds up for a site, and the result that it makes of the sum; `first` is
// the row's draw 0.
template <typename T>
struct Membership {
  using Sum = int32_t;
  using Draw = Threshold<T>;
  using Site = T;
  const T* value;
  const int32_t* last_tied;
  T sigma, draws;

  template <Noise kind>
  __device__ static FourNoises values(PhiloxWords words) {
    return noise_of_words<kind>(words);
  }
  __device__ Draw draw(int64_t, int64_t item) const { return {value[item], last_tied[item]}; }
  __device__ Site site(T score, int64_t) const { return score; }
  template <Noise kind>
  __device__ Sum add(Sum sum, const Draw& t, float z, Site score, int64_t site) const {
    return sum + (chosen(fused(sigma, T(z), score), site, t) ? 1 : 0);
  }
  __device__ T finish(Sum sum, T, int64_t, int64_t) const { return T(sum) / draws; }
};

template <typename T>
struct Gradient {
  using Sum = T;
  using Draw = T;
  using Site = T;
  const T* value;
  const T* reach;
  const T* centre;  // null: zero
  T scale;

  template <Noise kind>
  __device__ static FourNoises values(PhiloxWords words) {
    return score_of_words<kind>(words);
  }
  __device__ Draw draw(int64_t row, int64_t item) const {
    return centre != nullptr ? reach[item] - centre[row] : reach[item];
  }
  __device__ Site site(T score, int64_t) const { return score; }
  template <Noise kind>
  __device__ Sum add(Sum sum, Draw weight, float z, Site, int64_t) const {
    return fused(weight, T(z), sum);
  }
  __device__ T finish(Sum sum, T score, int64_t, int64_t) const {
    return is_finite(score) ? sum * scale : T(0);
  }
};

// Warps draw noise into one half of `part` while lanes 0 to 15 add the other half, sites ascending.
template <typename T>
struct ReachShared {
  T part[2][kDrawThreads * 4];
};

template <typename T, Noise kind>
__global__ void __launch_bounds__(kDrawThreads)
    draw_reach(TopKProblem<T> p, const T* v, const T* value, const int32_t* last_tied, T* reach) {
  auto& shared = shared_memory<ReachShared<T>>();
  const PhiloxKey key = load_key(p.key);
  const int lane = int(threadIdx.x) % kTileLanes, group = int(threadIdx.x) / kTileLanes;
  const int64_t counters = counters_of(p.sites);
  int half = 0;
  for (int64_t item = blockIdx.x; item < p.rows * p.draws; item += gridDim.x) {
    const int64_t row = item / p.draws;
    const uint32_t draw = uint32_t(item - row * p.draws);
    const T* scores = p.scores + row * p.sites;
    const Threshold<T> threshold{value[item], last_tied[item]};
    T sum = T(0);
    for (int64_t first = 0; first < counters; first += blockDim.x, half ^= 1) {
      const int64_t c = first + threadIdx.x;
      T part[4] = {};
      if (c < counters) {
        const FourNoises n =
            noise_of_counter<kind>(key, uint32_t(c), draw, uint32_t(p.row_offset + row));
        const float z[4] = {n.z0, n.z1, n.z2, n.z3};
        int64_t s = first_site(c);
        for (int w = 0; w < 4; ++w, s += kTileLanes)
          if (s < p.sites && chosen(fused(p.sigma, T(z[w]), scores[s]), s, threshold))
            part[w] = v[row * p.sites + s];
      }
      for (int w = 0; w < 4; ++w) shared.part[half][(4 * group + w) * kTileLanes + lane] = part[w];
      __syncthreads();
      if (threadIdx.x < kTileLanes)
        for (int i = lane; i < 4 * int(blockDim.x); i += kTileLanes) sum += shared.part[half][i];
    }
    if (threadIdx.x < 32) {
      for (int width = kTileLanes / 2; width > 0; width /= 2)
        sum += __shfl_down_sync(0xFFFFFFFFu, sum, unsigned(width), kTileLanes);
      if (threadIdx.x == 0) reach[item] = sum;
    }
  }
}

template <typename T, Noise kind>
cudaError_t forward_of(const TopKProblem<T>& p, T* membership, T* value, int32_t* last_tied,
                       void* workspace, cudaStream_t stream) {
  const Workspace<T> work(workspace, p.rows, p.draws);
  const cudaError_t error = launch_thresholds<T, kind>(p, work.brackets, value, last_tied,
                                                       static_cast<int32_t*>(nullptr), stream);
  if (error != cudaSuccess) return error;
  return launch_sum<T, kind>(p, Membership<T>{value, last_tied, p.sigma, T(p.draws)}, membership,
                             stream);
}

template <typename T, Noise kind>
cudaError_t backward_of(const TopKProblem<T>& p, const T* v, const T* membership, const T* value,
                        const int32_t* last_tied, bool leave_one_out, T scale, T* grad,
                        void* workspace, cudaStream_t stream) {
  const Workspace<T> work(workspace, p.rows, p.draws);
  cudaError_t error =
      launch(draw_reach<T, kind>, blocks_for(p.rows * p.draws), draw_threads(p.sites, kDrawThreads),
             sizeof(ReachShared<T>), stream, p, v, value, last_tied, work.reach);
  if (error != cudaSuccess) return error;
  if (leave_one_out) {
    error = launch_row_dot(membership, v, p.rows, p.sites, work.centre, stream);
    if (error != cudaSuccess) return error;
  }
  return launch_sum<T, kind>(
      p, Gradient<T>{value, work.reach, leave_one_out ? work.centre : nullptr, scale}, grad,
      stream);
}

}  // namespace

template <typename T>
int64_t perturbed_topk_workspace(int64_t rows, int64_t draws) {
  const int64_t forward = rows * int64_t(sizeof(Bracket<T>));
  const int64_t conditional = rows * draws * int64_t(sizeof(RivalsOfDraw<T>));
  const int64_t backward = rows * (draws + 1) * int64_t(sizeof(T));
  const int64_t most = forward > backward ? forward : backward;
  return most > conditional ? most : conditional;
}

template <typename T>
cudaError_t perturbed_topk(const TopKProblem<T>& problem, Noise noise, T* membership, T* value,
                           int32_t* last_tied, void* workspace, cudaStream_t stream) {
  return with_noise(noise, [&](auto of) {
    return forward_of<T, of.kind>(problem, membership, value, last_tied, workspace, stream);
  });
}

template <typename T>
cudaError_t perturbed_topk_backward(const TopKProblem<T>& problem, Noise noise, const T* v,
                                    const T* membership, const T* value, const int32_t* last_tied,
                                    bool leave_one_out, T scale, T* grad, void* workspace,
                                    cudaStream_t stream) {
  return with_noise(noise, [&](auto of) {
    return backward_of<T, of.kind>(problem, v, membership, value, last_tied, leave_one_out, scale,
                                   grad, workspace, stream);
  });
}

#define TR_INSTANTIATE(T)                                                                          \
  template int64_t perturbed_topk_workspace<T>(int64_t, int64_t);                                  \
  template cudaError_t perturbed_topk<T>(const TopKProblem<T>&, Noise, T*, T*, int32_t*, void*,    \
                                         cudaStream_t);                                            \
  template cudaError_t perturbed_topk_backward<T>(const TopKProblem<T>&, Noise, const T*,          \
                                                  const T*, const T*, const int32_t*, bool, T, T*, \
                                                  void*, cudaStream_t);
TR_INSTANTIATE(float)
TR_INSTANTIATE(double)
#undef TR_INSTANTIATE

}  // namespace topreach::kernels::cuda
