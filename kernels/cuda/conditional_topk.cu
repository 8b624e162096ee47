// The conditional estimator of perturbed top-K on CUDA: b_i = (1/J) sum_j 1 - F(x_ij) and
// g_i = scale sum_j f(x_ij) (v_i - v of the rival); see ../perturbed_topk.h.
//
// Kernels: those of perturbed_draws.cuh, whose thresholds come with their boundaries here, and
//   find_rivals        one thread a (row, draw): scores, noise and v of the boundary's two sites
//
// Cost: forward draws J S noise values twice, backward once; f or F adds 20 to 40 instructions a
// value. Memory: brackets; thresholds, boundaries and rivals, rows x J. Value and gradient have the
// CPU's bits.
#include "perturbed_draws.cuh"

namespace topreach::kernels::cuda {
namespace {

template <typename T>
struct ConditionalDraw {
  Threshold<T> threshold;
  RivalsOfDraw<T> at;
};

template <typename T>
struct ConditionalMembership {
  using Sum = T;
  using Draw = ConditionalDraw<T>;
  using Site = T;
  const T* value;
  const int32_t* last_tied;
  const RivalsOfDraw<T>* rivals;
  T sigma, inverse_sigma, draws;

  template <Noise kind>
  __device__ static FourNoises values(PhiloxWords words) {
    return noise_of_words<kind>(words);
  }
  __device__ Draw draw(int64_t, int64_t item) const {
    return {{value[item], last_tied[item]}, rivals[item]};
  }
  __device__ Site site(T score, int64_t) const { return score; }
  template <Noise kind>
  __device__ Sum add(Sum sum, const Draw& draw, float z, Site score, int64_t site) const {
    const bool in = chosen(fused(sigma, T(z), score), site, draw.threshold);
    return sum + upper_tail<kind>(draw.at.rivals.gap(in, score, inverse_sigma));
  }
  __device__ T finish(Sum sum, T score, int64_t site, int64_t first) const {
    if (is_finite(score)) return sum / draws;
    return chosen(score, site, {value[first], last_tied[first]}) ? T(1) : T(0);
  }
};

template <typename T>
struct ConditionalGradient {
  using Sum = T;
  using Draw = ConditionalDraw<T>;
  struct Site {
    T score, v;
  };
  const T* value;
  const int32_t* last_tied;
  const RivalsOfDraw<T>* rivals;
  const T* v;
  T sigma, inverse_sigma, scale;

  template <Noise kind>
  __device__ static FourNoises values(PhiloxWords words) {
    return noise_of_words<kind>(words);
  }
  __device__ Draw draw(int64_t, int64_t item) const {
    return {{value[item], last_tied[item]}, rivals[item]};
  }
  __device__ Site site(T score, int64_t at) const { return {score, v[at]}; }
  template <Noise kind>
  __device__ Sum add(Sum sum, const Draw& draw, float z, Site own, int64_t site) const {
    const bool in = chosen(fused(sigma, T(z), own.score), site, draw.threshold);
    const T x = draw.at.rivals.gap(in, own.score, inverse_sigma);
    return fused(density<kind>(x), own.v - (in ? draw.at.inside_v : draw.at.outside_v), sum);
  }
  __device__ T finish(Sum sum, T score, int64_t, int64_t) const {
    return is_finite(score) ? sum * scale : T(0);
  }
};

// v is null in forward. The boundary is checked as it is read: callers of backward may pass any.
template <typename T, Noise kind>
__global__ void __launch_bounds__(kDrawThreads)
    find_rivals(TopKProblem<T> p, const T* v, const int32_t* boundary, RivalsOfDraw<T>* rivals) {
  const PhiloxKey key = load_key(p.key);
  const int64_t items = p.rows * p.draws, step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t item = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; item < items; item += step) {
    const int64_t row = item / p.draws;
    const int32_t pair[2] = {boundary[2 * item], boundary[2 * item + 1]};
    const T nan = not_a_number<T>();
    RivalsOfDraw<T> at{{nan, nan, nan, nan}, nan, nan};
    if (pair[0] >= 0 && pair[0] < p.sites && pair[1] >= 0 && pair[1] < p.sites) {
      at.rivals = rivals_of<kind>(p.scores + row * p.sites, pair, key,
                                  uint32_t(item - row * p.draws), uint32_t(p.row_offset + row));
      if (v != nullptr) {
        at.outside_v = v[row * p.sites + pair[0]];
        at.inside_v = v[row * p.sites + pair[1]];
      }
    }
    rivals[item] = at;
  }
}

template <typename T, Noise kind>
cudaError_t launch_rivals(const TopKProblem<T>& p, const T* v, const int32_t* boundary,
                          RivalsOfDraw<T>* rivals, cudaStream_t stream) {
  const int64_t blocks = (p.rows * p.draws + kDrawThreads - 1) / kDrawThreads;
  return launch(find_rivals<T, kind>, blocks_for(blocks), kDrawThreads, 0, stream, p, v, boundary,
                rivals);
}

template <typename T, Noise kind>
cudaError_t conditional_forward_of(const TopKProblem<T>& p, T* membership, T* value,
                                   int32_t* last_tied, int32_t* boundary, void* workspace,
                                   cudaStream_t stream) {
  const Workspace<T> work(workspace, p.rows, p.draws);
  cudaError_t error =
      launch_thresholds<T, kind>(p, work.brackets, value, last_tied, boundary, stream);
  if (error != cudaSuccess) return error;
  error = launch_rivals<T, kind>(p, static_cast<const T*>(nullptr), boundary, work.rivals, stream);
  if (error != cudaSuccess) return error;
  const ConditionalMembership<T> term{value,   last_tied,      work.rivals,
                                      p.sigma, T(1) / p.sigma, T(p.draws)};
  return launch_sum<T, kind>(p, term, membership, stream);
}

template <typename T, Noise kind>
cudaError_t conditional_backward_of(const TopKProblem<T>& p, const T* v, const T* value,
                                    const int32_t* last_tied, const int32_t* boundary, T scale,
                                    T* grad, void* workspace, cudaStream_t stream) {
  const Workspace<T> work(workspace, p.rows, p.draws);
  const cudaError_t error = launch_rivals<T, kind>(p, v, boundary, work.rivals, stream);
  if (error != cudaSuccess) return error;
  const ConditionalGradient<T> term{value,   last_tied,      work.rivals, v,
                                    p.sigma, T(1) / p.sigma, scale};
  return launch_sum<T, kind>(p, term, grad, stream);
}

}  // namespace

template <typename T>
cudaError_t conditional_topk(const TopKProblem<T>& problem, Noise noise, T* membership, T* value,
                             int32_t* last_tied, int32_t* boundary, void* workspace,
                             cudaStream_t stream) {
  return with_noise(noise, [&](auto of) {
    return conditional_forward_of<T, of.kind>(problem, membership, value, last_tied, boundary,
                                              workspace, stream);
  });
}

template <typename T>
cudaError_t conditional_topk_backward(const TopKProblem<T>& problem, Noise noise, const T* v,
                                      const T* value, const int32_t* last_tied,
                                      const int32_t* boundary, T scale, T* grad, void* workspace,
                                      cudaStream_t stream) {
  return with_noise(noise, [&](auto of) {
    return conditional_backward_of<T, of.kind>(problem, v, value, last_tied, boundary, scale, grad,
                                               workspace, stream);
  });
}

#define TR_INSTANTIATE(T)                                                                        \
  template cudaError_t conditional_topk<T>(const TopKProblem<T>&, Noise, T*, T*, int32_t*,       \
                                           int32_t*, void*, cudaStream_t);                       \
  template cudaError_t conditional_topk_backward<T>(const TopKProblem<T>&, Noise, const T*,      \
                                                    const T*, const int32_t*, const int32_t*, T, \
                                                    T*, void*, cudaStream_t);
TR_INSTANTIATE(float)
TR_INSTANTIATE(double)
#undef TR_INSTANTIATE

}  // namespace topreach::kernels::cuda
