// Negative binomial counts on CUDA: sampling and log-probability; see ../negbin.h for the method.
//
//   sample             one block for kSampleSites sites of a row: a thread a site tabulates the cdf
//                      into shared memory (the recurrence runs twice, for the total and for the
//                      thresholds), then all threads draw, four at a time, by bisection
//   log_prob           one block for 32 sites: a thread a site tabulates log P(y) for the small whole
//                      y that occur, then all threads look up, or take the saddle-point form
//   log_prob_gradient  the same with slopes; sums over `outer` by one thread a site, in order
//
// Cost: double precision in the tables and the rare cases only, about 60 operations an entry, since
// most GPUs are slow at it: some 20 to 100 entries a site, whatever the number of draws. Memory: none
// beyond arguments and results. Bits: those of the CPU.
#include "negbin.h"

#include "launch.cuh"

namespace topreach::kernels::cuda {
namespace {

constexpr int kSampleSites = 8, kSampleThreads = 128;
constexpr int kSites = 32, kThreads = 256;

TR_HD double not_a_number() { return double(float_of(0x7FC00000u)); }
TR_HD bool valid_count(double y) { return y >= 0.0 && y < kInfinity; }

// ------------------------------------------------------------------------------- sampling

struct SampleShared {
  int32_t thresholds[kTableEntries][kSampleSites];
  double n[kSampleSites], z[kSampleSites], first[kSampleSites];
  int32_t entries[kSampleSites];  // kByRejection, kInvalid, or the table's length
};
constexpr int32_t kByRejection = -1, kInvalid = -2;

// Fills column `at` of the tables, as kernels/cpu/negbin.cpp does a lane.
__device__ inline void tabulate(double n, double z, int at, SampleShared& shared) {
  shared.n[at] = n;
  shared.z[at] = z;
  if (!valid_count(n) || !(z < kInfinity)) {
    shared.entries[at] = kInvalid;
    return;
  }
  const NegBinRecurrence start = negbin_start(n, z);
  NegBinRecurrence r = start;
  int entries = 1;
  bool stopped = !start.tabulated;
  while (!stopped && entries + kTableBlock <= kTableEntries) {
    for (int e = 0; e < kTableBlock; ++e, ++entries) negbin_advance(r);
    stopped = negbin_stop(r);
  }
  shared.first[at] = start.first;
  shared.entries[at] = kByRejection;
  if (!start.tabulated || !stopped) return;
  const double scale = 0x1p32 / r.total;
  r = start;
  int e = 0;
  for (; e < entries; ++e) {
    const int32_t threshold = negbin_threshold(r.total, scale);
    if (threshold == INT32_MAX) break;  // no draw exceeds it, nor those that follow
    shared.thresholds[e][at] = threshold;
    negbin_advance(r);
  }
  shared.entries[at] = e;
}

template <typename T>
__global__ void __launch_bounds__(kSampleThreads) sample(NegBinSampling<T> p) {
  auto& shared = shared_memory<SampleShared>();
  const PhiloxKey key{uint32_t(p.key[0]), uint32_t(p.key[1])};
  const int64_t tiles = (p.sites + kSampleSites - 1) / kSampleSites;
  const int64_t stride = p.rows * p.sites, counters = (p.samples + 3) / 4;
  for (int64_t item = blockIdx.x; item < p.rows * tiles; item += gridDim.x) {
    const int64_t row = item / tiles, first_site = (item - row * tiles) * kSampleSites;
    const int width =
        int(p.sites - first_site < kSampleSites ? p.sites - first_site : kSampleSites);
    const int64_t from = row * p.sites + first_site;
    const uint32_t global_row = uint32_t(p.row_offset + row);
    if (int(threadIdx.x) < width)
      tabulate(double(p.total_count[from + threadIdx.x]), double(p.logits[from + threadIdx.x]),
               int(threadIdx.x), shared);
    __syncthreads();
    for (int64_t i = threadIdx.x; i < counters * kSampleSites; i += blockDim.x) {
      const int at = int(i % kSampleSites);
      if (at >= width) continue;
      const int64_t counter = i / kSampleSites;
      const uint32_t site = uint32_t(first_site + at);
      const int32_t entries = shared.entries[at];
      const PhiloxWords words = negbin_words(key, site, uint32_t(counter), global_row);
      const uint32_t word[4] = {words.x, words.y, words.z, words.w};
      for (int w = 0; w < 4; ++w) {
        const int64_t m = 4 * counter + w;
        if (m >= p.samples) break;
        double count = not_a_number();
        if (entries == kByRejection) {
          count =
              negbin_by_rejection({key, site, uint32_t(m), global_row}, shared.n[at], shared.z[at]);
        } else if (entries >= 0) {
          int32_t below = 0, end = entries;  // thresholds grow with the entry
          while (below < end) {
            const int32_t middle = (below + end) / 2;
            if (flipped(word[w]) > shared.thresholds[middle][at]) {
              below = middle + 1;
            } else {
              end = middle;
            }
          }
          count = shared.first[at] + double(below);
        }
        p.counts[m * stride + from + at] = T(count);
      }
    }
    __syncthreads();
  }
}

// ------------------------------------------------------------------------------- log-probability

// The table's entry for y, or -1.
TR_HD int32_t tabled(double y) {
  const bool small = y >= 0.0 && y < double(kTableValues);
  const int32_t whole = int32_t(small ? y : 0.0);
  return small && double(whole) == y ? whole : -1;
}

struct TableShared {
  double table[kTableValues][kSites];
  int32_t most[kSites];  // largest tabled value of each site
};

// Finds shared.most; to be called by the whole block.
template <typename T>
__device__ void find_most(const NegBinLikelihood<T>& p, int64_t site, TableShared& shared) {
  const int at = int(threadIdx.x) % kSites;
  if (int(threadIdx.x) < kSites) shared.most[at] = 0;
  __syncthreads();
  int32_t most = 0;
  if (site < p.inner) {
    for (int64_t m = threadIdx.x / kSites; m < p.outer; m += blockDim.x / kSites) {
      const int32_t entry = tabled(double(p.value[m * p.inner + site]));
      most = entry > most ? entry : most;
    }
  }
  if (most > 0) atomicMax(&shared.most[at], most);
  __syncthreads();
}

template <typename T>
__global__ void __launch_bounds__(kThreads) log_prob(NegBinLikelihood<T> p, T* out) {
  auto& shared = shared_memory<TableShared>();
  const int at = int(threadIdx.x) % kSites;
  const int64_t tiles = (p.inner + kSites - 1) / kSites;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t i = tile * kSites + at;
    find_most(p, i, shared);
    const NegBinSite site =
        i < p.inner ? negbin_site(double(p.total_count[i]), double(p.logits[i])) : NegBinSite{};
    if (int(threadIdx.x) < kSites && i < p.inner) {
      double sum = negbin_log_zero(site);
      shared.table[0][at] = sum;
      for (int32_t k = 0; k < shared.most[at]; ++k) {
        sum += negbin_log_ratio(site, double(k));
        shared.table[k + 1][at] = sum;
      }
    }
    __syncthreads();
    if (i < p.inner) {
      for (int64_t m = threadIdx.x / kSites; m < p.outer; m += blockDim.x / kSites) {
        const double y = double(p.value[m * p.inner + i]);
        const int32_t entry = tabled(y);
        double result = not_a_number();
        if (valid_count(y) && !(site.n < 0.0))
          result = entry >= 0 ? shared.table[entry][at] : negbin_log_prob_of(site, y);
        out[m * p.inner + i] = T(result);
      }
    }
    __syncthreads();
  }
}

template <typename T>
__global__ void __launch_bounds__(kSites)
    log_prob_gradient(NegBinLikelihood<T> p, const T* grad, T* d_total_count, T* d_logits) {
  auto& shared = shared_memory<TableShared>();
  const int at = int(threadIdx.x);
  const int64_t tiles = (p.inner + kSites - 1) / kSites;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t i = tile * kSites + at;
    find_most(p, i, shared);
    if (i < p.inner) {  // a thread reads its own column of the table alone
      const NegBinSite site = negbin_site(double(p.total_count[i]), double(p.logits[i]));
      double sum = 0.0;
      shared.table[0][at] = 0.0;
      for (int32_t k = 0; k < shared.most[at]; ++k) {
        sum += 1.0 / (site.n + double(k));
        shared.table[k + 1][at] = sum;
      }
      double g_sum = 0.0, gy_sum = 0.0, slope_sum = 0.0;
      bool valid = !(site.n < 0.0);
      for (int64_t m = 0; m < p.outer; ++m) {
        const double y = double(p.value[m * p.inner + i]), g = double(grad[m * p.inner + i]);
        const int32_t entry = tabled(y);
        valid &= valid_count(y);
        g_sum += g;
        gy_sum += g * y;
        slope_sum += g * (entry >= 0 ? shared.table[entry][at] : negbin_slope_of(site, y));
      }
      d_total_count[i] = valid ? T(slope_sum + g_sum * site.log_q) : T(not_a_number());
      d_logits[i] = valid ? T(gy_sum * site.q - g_sum * site.n * site.p) : T(not_a_number());
    }
    __syncthreads();
  }
}

int64_t site_blocks(int64_t inner) { return blocks_for((inner + kSites - 1) / kSites); }

}  // namespace

template <typename T>
cudaError_t negbin_sample(const NegBinSampling<T>& problem, cudaStream_t stream) {
  const int64_t tiles = (problem.sites + kSampleSites - 1) / kSampleSites;
  return launch(sample<T>, blocks_for(problem.rows * tiles), kSampleThreads, sizeof(SampleShared),
                stream, problem);
}

template <typename T>
cudaError_t negbin_log_prob(const NegBinLikelihood<T>& problem, T* log_prob, cudaStream_t stream) {
  return launch(topreach::kernels::cuda::log_prob<T>, site_blocks(problem.inner),
                threads_for(problem.outer * kSites, kThreads), sizeof(TableShared), stream, problem,
                log_prob);
}

template <typename T>
cudaError_t negbin_log_prob_backward(const NegBinLikelihood<T>& problem, const T* grad,
                                     T* d_total_count, T* d_logits, cudaStream_t stream) {
  return launch(log_prob_gradient<T>, site_blocks(problem.inner), kSites, sizeof(TableShared),
                stream, problem, grad, d_total_count, d_logits);
}

#define TR_INSTANTIATE(T)                                                                        \
  template cudaError_t negbin_sample<T>(const NegBinSampling<T>&, cudaStream_t);                 \
  template cudaError_t negbin_log_prob<T>(const NegBinLikelihood<T>&, T*, cudaStream_t);         \
  template cudaError_t negbin_log_prob_backward<T>(const NegBinLikelihood<T>&, const T*, T*, T*, \
                                                   cudaStream_t);
TR_INSTANTIATE(float)
TR_INSTANTIATE(double)
#undef TR_INSTANTIATE

}  // namespace topreach::kernels::cuda
