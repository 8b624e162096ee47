// The mask of the best plan under quotas on CUDA: one block a row (quota_plan.cuh). While a plan is
// made, the mask holds the fate of each site; no other memory is needed.
#include "quota_topk.h"

#include "quota_plan.cuh"

namespace topreach::kernels::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    quota_mask_rows(QuotaSteps steps, const T* scores, int64_t rows, bool finite, T* mask) {
  auto& shared = shared_memory<SelectShared>();
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const PlainRow<T> visit{scores + row * steps.sites, steps.sites};
    T* out = mask + row * steps.sites;
    bool refused = false;
    visit([&](T r, int32_t) { refused |= r != r || (finite && r == T(kInfinity)); });
    if (__syncthreads_or(refused) == 0) {
      best_plan(steps, visit.scores, out, shared);
      visit([&](T r, int32_t s) { refused |= out[s] == T(kChosen) && r == -T(kInfinity); });
      refused = __syncthreads_or(refused) != 0;
    } else {
      refused = true;
    }
    visit([&](T, int32_t s) {
      out[s] = refused ? not_a_number<T>() : (out[s] == T(kChosen) ? T(1) : T(0));
    });
  }
}

}  // namespace

template <typename T>
cudaError_t quota_topk(const QuotaSteps& steps, const T* scores, int64_t rows, bool finite, T* mask,
                       cudaStream_t stream) {
  return launch(quota_mask_rows<T>, blocks_for(rows), threads_for(steps.sites, kRowThreads),
                sizeof(SelectShared), stream, steps, scores, rows, finite, mask);
}

#define TR_INSTANTIATE(T) \
  template cudaError_t quota_topk<T>(const QuotaSteps&, const T*, int64_t, bool, T*, cudaStream_t);
TR_INSTANTIATE(float)
TR_INSTANTIATE(double)
#undef TR_INSTANTIATE

}  // namespace topreach::kernels::cuda
