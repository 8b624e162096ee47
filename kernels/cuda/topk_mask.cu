// The hard top-K mask on CUDA: one block a row, an exact order statistic (select.cuh).
#include "perturbed_row.cuh"

namespace topreach::kernels::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    mask_rows(const T* scores, int64_t rows, int64_t sites, int64_t same_k, const int64_t* row_k,
              T* mask) {
  auto& shared = shared_memory<SelectShared>();
  using Image = decltype(image_of(T()));
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const PlainRow<T> visit{scores + row * sites, sites};
    T* out = mask + row * sites;
    const int64_t k = row_k != nullptr ? row_k[row] : same_k;
    if (visit.has_nan() || k < 0 || k > sites) {
      visit([&](T, int32_t s) { out[s] = not_a_number<T>(); });
    } else if (k == 0 || k == sites) {
      visit([&](T, int32_t s) { out[s] = k == 0 ? T(0) : T(1); });
    } else {
      const auto threshold = threshold_of<T>(visit, uint32_t(k) - 1, Image{0}, ~Image{0}, shared);
      visit([&](T r, int32_t s) { out[s] = chosen(r, s, threshold) ? T(1) : T(0); });
    }
  }
}

}  // namespace

template <typename T>
cudaError_t topk_mask(const T* scores, int64_t rows, int64_t sites, int64_t k, const int64_t* row_k,
                      T* mask, cudaStream_t stream) {
  return launch(mask_rows<T>, blocks_for(rows), threads_for(sites, kRowThreads),
                sizeof(SelectShared), stream, scores, rows, sites, k, row_k, mask);
}

#define TR_INSTANTIATE(T)                                                                    \
  template cudaError_t topk_mask<T>(const T*, int64_t, int64_t, int64_t, const int64_t*, T*, \
                                    cudaStream_t);
TR_INSTANTIATE(float)
TR_INSTANTIATE(double)
#undef TR_INSTANTIATE

}  // namespace topreach::kernels::cuda
