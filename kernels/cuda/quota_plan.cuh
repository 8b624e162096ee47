// The best plan under quotas for one row of numbers, by a block: the steps of ../programs/quota_steps.h.
//
// A small step has a thread for each site, which counts the better ones in its group; all small steps
// run together. A large step selects by select.cuh, with two order statistics at most. Ties go to the
// lowest site, so the plan equals the CPU's, whatever the order of threads.
#pragma once

#include "../programs/quota_steps.h"
#include "perturbed_row.cuh"

namespace topreach::kernels::cuda {

// The fate of a site while the plan is made; afterwards a site is chosen or not.
constexpr int kOptional = 0, kChosen = 1, kDropped = 2;

// u and fate [S], fate being the block's own. The whole block calls it, and may read fate afterwards:
// kChosen for the K sites of the plan.
template <typename T, typename Fate>
__device__ void best_plan(const QuotaSteps& steps, const T* u, Fate* fate, SelectShared& shared) {
  using Image = decltype(image_of(T()));
  for (int64_t s = threadIdx.x; s < steps.sites; s += blockDim.x) fate[s] = Fate(kDropped);
  __syncthreads();
  for (int64_t p = threadIdx.x; p < steps.count; p += blockDim.x) {
    const int32_t site = steps.order[p], role = steps.role[p];
    int own = role == kQuotaLockedIn ? kChosen : kOptional;
    if (role >= 0) {
      const QuotaStep step = steps.small[role];
      const T own_value = u[site];
      int32_t rank = 0;
      for (int32_t i = step.begin; i < step.end; ++i) {
        const int32_t other = steps.order[i];
        rank += u[other] > own_value || (u[other] == own_value && other < site) ? 1 : 0;
      }
      own = rank < step.force ? kChosen : (rank < step.keep ? kOptional : kDropped);
    }
    fate[site] = Fate(own);
  }
  __syncthreads();
  for (int64_t i = 0; i < steps.large_count; ++i) {
    const QuotaStep step = steps.large[i];
    const auto visit = [&](const auto& f) {
      for (int64_t p = step.begin + int32_t(threadIdx.x); p < step.end; p += blockDim.x) {
        const int32_t site = steps.order[p];
        if (fate[site] == Fate(kOptional)) f(u[site], site);
      }
    };
    const auto best = [&](int32_t rank) {
      return threshold_of<T>(visit, uint32_t(rank) - 1, Image{0}, ~Image{0}, shared);
    };
    // If all or none are forced or kept, no threshold is needed.
    const Threshold<T> all{-T(kInfinity), kNoSplitTie}, none{T(kInfinity), -1};
    const auto at = [&](int32_t rank) {
      return rank == step.count ? all : (rank == 0 ? none : best(rank));
    };
    const Threshold<T> force = at(step.force);
    const Threshold<T> keep = step.keep == step.force ? force : at(step.keep);
    visit([&](T value, int32_t site) {
      if (chosen(value, site, force))
        fate[site] = Fate(kChosen);
      else if (!chosen(value, site, keep))
        fate[site] = Fate(kDropped);
    });
    __syncthreads();
  }
}

}  // namespace topreach::kernels::cuda
