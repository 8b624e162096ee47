// CPU loops of the negative binomial sampler and log-probability; see ../negbin.h for the method.
#include "../negbin.h"

#include "isa.h"

namespace topreach::kernels::TR_ISA {
namespace {

constexpr int kLanes = kTableLanes;
constexpr int kLinearSearch = 96;  // tables up to this length are searched entry by entry
constexpr int32_t kNever = INT32_MAX;

#if defined(__AVX512F__)
constexpr int kVector = 16;
#elif defined(__AVX2__)
constexpr int kVector = 8;
#else
constexpr int kVector = 4;
#endif
using Vector = int32_t __attribute__((vector_size(4 * kVector)));

struct Table {
  alignas(64) double n[kLanes], z[kLanes], first[kLanes];
  int32_t tabulated[kLanes];  // 0 or 1
  int entries;                // of the longest lane
};

// Fills thresholds[entry][lane]; lanes beyond `width` are point masses.
template <typename T>
TR_INLINE void tabulate(const T* total_count, const T* logits, int64_t width, Table& t,
                        double* cumulative, int32_t* thresholds) {
  alignas(64) double n[kLanes], p[kLanes], k[kLanes], mass[kLanes], total[kLanes];
#pragma omp simd
  for (int lane = 0; lane < kLanes; ++lane) {
    t.n[lane] = lane < width ? double(total_count[lane]) : 0.0;
    t.z[lane] = lane < width ? double(logits[lane]) : 0.0;
  }
#pragma omp simd
  for (int lane = 0; lane < kLanes; ++lane) {
    const NegBinRecurrence r = negbin_start(t.n[lane], t.z[lane]);
    n[lane] = r.n;
    p[lane] = r.p;
    k[lane] = r.k;
    mass[lane] = r.mass;
    total[lane] = r.total;
    t.first[lane] = r.first;
    t.tabulated[lane] = r.tabulated ? 1 : 0;
    cumulative[lane] = r.total;
  }
  int entries = 1, done = 0;
  int32_t stopped[kLanes] = {};
  do {
    for (int e = 0; e < kTableBlock; ++e, ++entries) {
      double* out = cumulative + entries * kLanes;
#pragma omp simd
      for (int lane = 0; lane < kLanes; ++lane) {
        NegBinRecurrence r{n[lane], p[lane], k[lane], mass[lane], total[lane], 0.0, true};
        negbin_advance(r);
        k[lane] = r.k;
        mass[lane] = r.mass;
        total[lane] = r.total;
        out[lane] = r.total;
      }
    }
    done = 0;
#pragma omp simd reduction(+ : done)
    for (int lane = 0; lane < kLanes; ++lane) {
      NegBinRecurrence r{n[lane], p[lane], k[lane], mass[lane], total[lane], 0.0, true};
      stopped[lane] = negbin_stop(r) ? 1 : 0;
      mass[lane] = r.mass;
      done += stopped[lane];
    }
  } while (done < kLanes && entries + kTableBlock <= kTableEntries);

  alignas(64) double scale[kLanes];
#pragma omp simd
  for (int lane = 0; lane < kLanes; ++lane) {
    t.tabulated[lane] = t.tabulated[lane] & stopped[lane];
    scale[lane] = 0x1p32 / total[lane];
  }
  t.entries = 0;
  for (int e = 0; e < entries; ++e) {
    int32_t* out = thresholds + e * kLanes;
    int open = 0;
#pragma omp simd reduction(+ : open)
    for (int lane = 0; lane < kLanes; ++lane) {
      const int32_t threshold = negbin_threshold(cumulative[e * kLanes + lane], scale[lane]);
      out[lane] = threshold;
      open += threshold != kNever ? 1 : 0;
    }
    if (open == 0) break;  // thresholds grow with the entry
    t.entries = e + 1;
  }
}

// How many thresholds of each lane lie below its four words.
TR_INLINE void search_linear(const int32_t* thresholds, int entries, const int32_t (*word)[kLanes],
                             int32_t (*below)[kLanes]) {
  for (int at = 0; at < kLanes; at += kVector) {
    Vector u[4], c0{}, c1{}, c2{}, c3{};
    for (int w = 0; w < 4; ++w) __builtin_memcpy(&u[w], word[w] + at, sizeof(Vector));
    for (int e = 0; e < entries; ++e) {
      Vector t;
      __builtin_memcpy(&t, thresholds + e * kLanes + at, sizeof t);
      c0 -= Vector(u[0] > t);
      c1 -= Vector(u[1] > t);
      c2 -= Vector(u[2] > t);
      c3 -= Vector(u[3] > t);
    }
    __builtin_memcpy(below[0] + at, &c0, sizeof c0);
    __builtin_memcpy(below[1] + at, &c1, sizeof c1);
    __builtin_memcpy(below[2] + at, &c2, sizeof c2);
    __builtin_memcpy(below[3] + at, &c3, sizeof c3);
  }
}

TR_INLINE void search_bisecting(const int32_t* thresholds, int padded,
                                const int32_t (*word)[kLanes], int32_t (*below)[kLanes]) {
  for (int w = 0; w < 4; ++w) {
    alignas(64) int32_t count[kLanes] = {};
    for (int step = padded / 2; step > 0; step /= 2) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const int32_t t = thresholds[(count[lane] + step - 1) * kLanes + lane];
        count[lane] += word[w][lane] > t ? step : 0;
      }
    }
    __builtin_memcpy(below[w], count, sizeof count);
  }
}

template <typename T>
void sample(const NegBinSampling<T>& p, int64_t begin, int64_t end, void* scratch) {
  double* cumulative = static_cast<double*>(scratch);
  int32_t* thresholds = reinterpret_cast<int32_t*>(cumulative + kTableEntries * kLanes);
  const int64_t tiles = negbin_tiles(p.sites), stride = p.rows * p.sites;
  Table table;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t row = tile / tiles, site = tile % tiles * kLanes;
    const int64_t width = p.sites - site < kLanes ? p.sites - site : kLanes;
    const int64_t at = row * p.sites + site;
    const uint32_t global_row = uint32_t(p.row_offset + row);
    tabulate(p.total_count + at, p.logits + at, width, table, cumulative, thresholds);
    const bool linear = table.entries <= kLinearSearch;
    int padded = 1;
    if (!linear) {
      while (padded <= table.entries) padded *= 2;
      for (int i = table.entries * kLanes; i < (padded - 1) * kLanes; ++i) thresholds[i] = kNever;
    }
    for (int64_t m = 0; m < p.samples; m += 4) {
      alignas(64) int32_t words[4][kLanes];
#pragma omp simd
      for (int lane = 0; lane < kLanes; ++lane) {
        const PhiloxWords w =
            negbin_words(p.key, uint32_t(site + lane), uint32_t(m / 4), global_row);
        words[0][lane] = flipped(w.x);
        words[1][lane] = flipped(w.y);
        words[2][lane] = flipped(w.z);
        words[3][lane] = flipped(w.w);
      }
      alignas(64) int32_t counts[4][kLanes];
      if (linear) {
        search_linear(thresholds, table.entries, words, counts);
      } else {
        search_bisecting(thresholds, padded, words, counts);
      }
      const int64_t draws = p.samples - m < 4 ? p.samples - m : 4;
      for (int64_t w = 0; w < draws; ++w) {
        T* out = p.counts + (m + w) * stride + at;
        if (width == kLanes) {
#pragma omp simd
          for (int lane = 0; lane < kLanes; ++lane)
            out[lane] = T(table.first[lane] + double(counts[w][lane]));
        } else {
          for (int lane = 0; lane < width; ++lane)
            out[lane] = T(table.first[lane] + double(counts[w][lane]));
        }
      }
    }
    for (int lane = 0; lane < width; ++lane) {
      if (table.tabulated[lane]) continue;
      for (int64_t m = 0; m < p.samples; ++m) {
        const NegBinCounter counter{p.key, uint32_t(site + lane), uint32_t(m), global_row};
        p.counts[m * stride + at + lane] =
            T(negbin_by_rejection(counter, table.n[lane], table.z[lane]));
      }
    }
  }
}

// The parameters of one tile, lane by lane.
struct Sites {
  alignas(64) double n[kLanes], z[kLanes], p[kLanes], q[kLanes], log_p[kLanes], log_q[kLanes];
  TR_INLINE NegBinSite at(int lane) const {
    return {n[lane], z[lane], p[lane], q[lane], log_p[lane], log_q[lane]};
  }
};

template <typename T>
TR_INLINE void load_sites(const NegBinLikelihood<T>& p, int64_t at, int64_t width, Sites& sites) {
#pragma omp simd
  for (int lane = 0; lane < kLanes; ++lane) {
    sites.n[lane] = lane < width ? double(p.total_count[at + lane]) : 1.0;
    sites.z[lane] = lane < width ? double(p.logits[at + lane]) : 0.0;
  }
#pragma omp simd
  for (int lane = 0; lane < kLanes; ++lane) {
    const NegBinSite s = negbin_site(sites.n[lane], sites.z[lane]);
    sites.p[lane] = s.p;
    sites.q[lane] = s.q;
    sites.log_p[lane] = s.log_p;
    sites.log_q[lane] = s.log_q;
  }
}

// The tile's values of one outer index, as doubles; `whole` says which are in the table.
template <typename T>
TR_INLINE bool load_values(const T* value, int64_t width, double* y, int32_t* index) {
  if (width == kLanes) {
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) y[lane] = double(value[lane]);
  } else {
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) y[lane] = lane < width ? double(value[lane]) : 0.0;
  }
  int other = 0;
#pragma omp simd reduction(+ : other)
  for (int lane = 0; lane < kLanes; ++lane) {
    const double v = y[lane];
    const bool small = (v >= 0.0) & (v < double(kTableValues));
    const int32_t whole = int32_t(small ? v : 0.0);
    const bool tabled = small & (double(whole) == v);
    index[lane] = tabled ? whole : -1;
    other += tabled ? 0 : 1;
  }
  return other == 0;
}

// Largest tabled value of the tile.
template <typename T>
TR_INLINE int32_t largest_tabled(const NegBinLikelihood<T>& p, int64_t at, int64_t width) {
  alignas(64) double y[kLanes];
  alignas(64) int32_t index[kLanes], most[kLanes] = {};
  for (int64_t m = 0; m < p.outer; ++m) {
    load_values(p.value + m * p.inner + at, width, y, index);
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane)
      most[lane] = index[lane] > most[lane] ? index[lane] : most[lane];
  }
  int32_t result = 0;
  for (int lane = 0; lane < kLanes; ++lane) result = most[lane] > result ? most[lane] : result;
  return result;
}

template <typename T>
void log_prob(const NegBinLikelihood<T>& p, int64_t begin, int64_t end, T* out, void* scratch) {
  double* table = static_cast<double*>(scratch);  // [value][lane]
  Sites sites;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t at = tile * kLanes;
    const int64_t width = p.inner - at < kLanes ? p.inner - at : kLanes;
    load_sites(p, at, width, sites);
    const int32_t most = largest_tabled(p, at, width);
    alignas(64) double sum[kLanes];
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      sum[lane] = negbin_log_zero(sites.at(lane));
      table[lane] = sum[lane];
    }
    for (int32_t k = 0; k < most; ++k) {
#pragma omp simd
      for (int lane = 0; lane < kLanes; ++lane) {
        sum[lane] += negbin_log_ratio(sites.at(lane), double(k));
        table[(k + 1) * kLanes + lane] = sum[lane];
      }
    }
    for (int64_t m = 0; m < p.outer; ++m) {
      alignas(64) double y[kLanes], result[kLanes];
      alignas(64) int32_t index[kLanes];
      const bool all_tabled = load_values(p.value + m * p.inner + at, width, y, index);
      if (all_tabled) {
#pragma omp simd
        for (int lane = 0; lane < kLanes; ++lane) result[lane] = table[index[lane] * kLanes + lane];
      } else {
#pragma omp simd
        for (int lane = 0; lane < kLanes; ++lane)
          result[lane] = negbin_log_prob_of(sites.at(lane), y[lane]);
#pragma omp simd
        for (int lane = 0; lane < kLanes; ++lane) {
          const double tabled = table[(index[lane] < 0 ? 0 : index[lane]) * kLanes + lane];
          result[lane] = index[lane] < 0 ? result[lane] : tabled;
        }
      }
      T* to = out + m * p.inner + at;
      if (width == kLanes) {
#pragma omp simd
        for (int lane = 0; lane < kLanes; ++lane) to[lane] = T(result[lane]);
      } else {
        for (int lane = 0; lane < width; ++lane) to[lane] = T(result[lane]);
      }
    }
  }
}

template <typename T>
void backward(const NegBinLikelihood<T>& p, int64_t begin, int64_t end, const T* grad,
              T* d_total_count, T* d_logits, void* scratch) {
  double* table = static_cast<double*>(scratch);  // digamma(n + y) - digamma(n), [value][lane]
  Sites sites;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t at = tile * kLanes;
    const int64_t width = p.inner - at < kLanes ? p.inner - at : kLanes;
    load_sites(p, at, width, sites);
    const int32_t most = largest_tabled(p, at, width);
    alignas(64) double sum[kLanes] = {};
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) table[lane] = 0.0;
    for (int32_t k = 0; k < most; ++k) {
#pragma omp simd
      for (int lane = 0; lane < kLanes; ++lane) {
        sum[lane] += 1.0 / (sites.n[lane] + double(k));
        table[(k + 1) * kLanes + lane] = sum[lane];
      }
    }
    alignas(64) double g_sum[kLanes] = {}, gy_sum[kLanes] = {}, slope_sum[kLanes] = {};
    for (int64_t m = 0; m < p.outer; ++m) {
      alignas(64) double y[kLanes], slope[kLanes], g[kLanes];
      alignas(64) int32_t index[kLanes];
      const bool all_tabled = load_values(p.value + m * p.inner + at, width, y, index);
      const T* from = grad + m * p.inner + at;
      if (width == kLanes) {
#pragma omp simd
        for (int lane = 0; lane < kLanes; ++lane) g[lane] = double(from[lane]);
      } else {
#pragma omp simd
        for (int lane = 0; lane < kLanes; ++lane) g[lane] = lane < width ? double(from[lane]) : 0.0;
      }
      if (all_tabled) {
#pragma omp simd
        for (int lane = 0; lane < kLanes; ++lane) slope[lane] = table[index[lane] * kLanes + lane];
      } else {
#pragma omp simd
        for (int lane = 0; lane < kLanes; ++lane)
          slope[lane] = negbin_slope_of(sites.at(lane), y[lane]);
#pragma omp simd
        for (int lane = 0; lane < kLanes; ++lane) {
          const double tabled = table[(index[lane] < 0 ? 0 : index[lane]) * kLanes + lane];
          slope[lane] = index[lane] < 0 ? slope[lane] : tabled;
        }
      }
#pragma omp simd
      for (int lane = 0; lane < kLanes; ++lane) {
        g_sum[lane] += g[lane];
        gy_sum[lane] += g[lane] * y[lane];
        slope_sum[lane] += g[lane] * slope[lane];
      }
    }
    for (int lane = 0; lane < width; ++lane) {
      const NegBinSite s = sites.at(lane);
      d_total_count[at + lane] = T(slope_sum[lane] + g_sum[lane] * s.log_q);
      d_logits[at + lane] = T(gy_sum[lane] * s.q - g_sum[lane] * s.n * s.p);
    }
  }
}

}  // namespace

extern const NegBinCpu<float> negbin_float;
extern const NegBinCpu<double> negbin_double;
const NegBinCpu<float> negbin_float{sample<float>, log_prob<float>, backward<float>};
const NegBinCpu<double> negbin_double{sample<double>, log_prob<double>, backward<double>};

}  // namespace topreach::kernels::TR_ISA
