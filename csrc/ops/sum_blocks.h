// Sums over blocks whose rounding does not depend on the number of threads.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>

#include "scratch.h"

namespace topreach {

// total[row, :] += sum over blocks b = 0, 1, ... of what part(row, b, sums, scratch) adds to its
// zeroed sums[sites]. Blocks are formed separately, a wave of tasks at a time, and added in order; so
// memory is O(threads x sites), or a megabyte. `grain` is the least number of blocks for a worker.
template <typename T, typename Part>
void sum_blocks(int64_t rows, int64_t sites, int64_t blocks, int64_t grain, int64_t scratch_bytes,
                T* total, const Part& part) {
  const int64_t count = rows * blocks;
  if (count == 0 || sites == 0) return;
  const int64_t wave =
      std::min(count, std::max<int64_t>(4 * at::get_num_threads(), (int64_t{1} << 18) / sites));
  const at::Tensor parts_tensor =
      at::empty({wave, sites}, at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value));
  T* parts = parts_tensor.mutable_data_ptr<T>();
  for (int64_t start = 0; start < count; start += wave) {
    const int64_t stop = std::min(count, start + wave);
    at::parallel_for(start, stop, grain, [&](int64_t begin, int64_t end) {
      Scratch scratch(scratch_bytes);
      for (int64_t task = begin; task < end; ++task) {
        T* sums = parts + (task - start) * sites;
        std::fill(sums, sums + sites, T(0));
        part(task / blocks, task % blocks, sums, scratch.get());
      }
    });
    const int64_t first_row = start / blocks, last_row = (stop - 1) / blocks;
    at::parallel_for(
        first_row * sites, (last_row + 1) * sites, 1 << 13, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end;) {
            const int64_t row = i / sites, s0 = i - row * sites;
            const int64_t s1 = std::min(sites, s0 + end - i);
            const int64_t last_task = std::min(stop, (row + 1) * blocks);
            for (int64_t task = std::max(start, row * blocks); task < last_task; ++task) {
              const T* sums = parts + (task - start) * sites;
              for (int64_t s = s0; s < s1; ++s) total[row * sites + s] += sums[s];
            }
            i += s1 - s0;
          }
        });
  }
}

}  // namespace topreach
