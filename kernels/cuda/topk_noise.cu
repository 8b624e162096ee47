// The noise of perturbed top-K on CUDA, and the XOR of its bits: for references, and as a lower bound
// on the cost of any sampled estimator.
#include "perturbed_row.cuh"

namespace topreach::kernels::cuda {
namespace {

// An item is one counter of one (draw, row).
template <Noise kind>
__global__ void __launch_bounds__(kDrawThreads)
    noise_values(const int64_t* key, int64_t draws, int64_t rows, int64_t sites, int64_t row_offset,
                 float* z) {
  const int64_t counters = counters_of(sites), items = draws * rows * counters;
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < items; i += step) {
    const int64_t line = i / counters, c = i - line * counters;
    const int64_t draw = line / rows, row = line - draw * rows;
    const FourNoises n = noise_of_counter<kind>(load_key(key), uint32_t(c), uint32_t(draw),
                                                uint32_t(row_offset + row));
    const float values[4] = {n.z0, n.z1, n.z2, n.z3};
    int64_t s = first_site(c);
    for (int w = 0; w < 4; ++w, s += kTileLanes)
      if (s < sites) z[line * sites + s] = values[w];
  }
}

// One block a (row, draw); checksum is zero before.
template <Noise kind>
__global__ void __launch_bounds__(kDrawThreads)
    noise_checksums(const int64_t* key, int64_t draws, int64_t rows, int64_t sites,
                    int64_t row_offset, Word64* checksum) {
  auto& shared = shared_memory<uint32_t>();
  const int64_t counters = counters_of(sites);
  for (int64_t item = blockIdx.x; item < rows * draws; item += gridDim.x) {
    const int64_t row = item / draws;
    if (threadIdx.x == 0) shared = 0;
    __syncthreads();
    uint32_t sum = 0;
    for (int64_t c = threadIdx.x; c < counters; c += blockDim.x) {
      const FourNoises n = noise_of_counter<kind>(
          load_key(key), uint32_t(c), uint32_t(item - row * draws), uint32_t(row_offset + row));
      const float values[4] = {n.z0, n.z1, n.z2, n.z3};
      int64_t s = first_site(c);
      for (int w = 0; w < 4; ++w, s += kTileLanes)
        if (s < sites) sum ^= bits_of(values[w]);
    }
    atomicXor(&shared, sum);
    __syncthreads();
    if (threadIdx.x == 0) atomicXor(checksum + row, Word64{shared});
    __syncthreads();
  }
}

}  // namespace

cudaError_t topk_noise(const int64_t* key, Noise noise, int64_t draws, int64_t rows, int64_t sites,
                       int64_t row_offset, float* z, cudaStream_t stream) {
  const int64_t blocks = (draws * rows * counters_of(sites) + kDrawThreads - 1) / kDrawThreads;
  return with_noise(noise, [&](auto of) {
    return launch(noise_values<of.kind>, blocks_for(blocks), kDrawThreads, 0, stream, key, draws,
                  rows, sites, row_offset, z);
  });
}

cudaError_t topk_noise_checksum(const int64_t* key, Noise noise, int64_t draws, int64_t rows,
                                int64_t sites, int64_t row_offset, int64_t* checksum,
                                cudaStream_t stream) {
  const cudaError_t error = cudaMemsetAsync(checksum, 0, size_t(rows) * sizeof(int64_t), stream);
  if (error != cudaSuccess) return error;
  return with_noise(noise, [&](auto of) {
    return launch(noise_checksums<of.kind>, blocks_for(rows * draws),
                  draw_threads(sites, kDrawThreads), sizeof(uint32_t), stream, key, draws, rows,
                  sites, row_offset, reinterpret_cast<Word64*>(checksum));
  });
}

}  // namespace topreach::kernels::cuda
