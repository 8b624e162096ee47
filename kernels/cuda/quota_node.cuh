// One node of the integral of the expected plan under quotas, by a block: see expected_quota_topk.cu.
//
// Windows. A sum of parts of the pool changes by at most one with any of the n sites near t, so it lies
// within kWindow sqrt(n) of its mean except with probability 1e-17 (McDiarmid). Laws (distributions) of
// pools have no other entries.
#pragma once

#include <cmath>

#include "../programs/quota_nodes.h"
#include "../programs/quota_steps.h"
#include "perturbed_row.cuh"
#include "quota_topk.h"

namespace topreach::kernels::cuda {
namespace {

constexpr int kNodeThreads = 256, kNodeWarps = kNodeThreads / 32;
constexpr unsigned kWarp = 0xFFFFFFFFu;
constexpr double kWindow = 4.5;           // 2 exp(-2 x^2) = 5e-18
constexpr double kNegligibleLaw = 1e-17;  // of a chance
constexpr double kFar = -1;               // density of a site that is not near t

struct NodeShared {
  double sum[3][kNodeWarps];
};

struct ThreeSums {
  double a, b, c;
};

__device__ inline double warp_sum(double x) {  // in lane 0
  for (int width = 16; width > 0; width /= 2) x += __shfl_down_sync(kWarp, x, unsigned(width));
  return x;
}

// The block's sums; every thread gets them.
__device__ inline ThreeSums block_sums(ThreeSums own, NodeShared& shared) {
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  own = {warp_sum(own.a), warp_sum(own.b), warp_sum(own.c)};
  if (lane == 0) {
    shared.sum[0][warp] = own.a;
    shared.sum[1][warp] = own.b;
    shared.sum[2][warp] = own.c;
  }
  __syncthreads();
  ThreeSums all{0, 0, 0};
  for (int w = 0; w < int(blockDim.x) / 32; ++w) {
    all.a += shared.sum[0][w];
    all.b += shared.sum[1][w];
    all.c += shared.sum[2][w];
  }
  __syncthreads();
  return all;
}

template <typename T>
__device__ bool is_free(const QuotaSteps& steps, const T* scores, int32_t site) {
  return steps.lock[site] == 0 && is_finite(scores[site]);
}

// Each warp takes one group in every so many.
template <typename T>
__device__ QuotaMoments pool_moments(const QuotaSteps& steps, const T* scores, double t,
                                     double sigma, NodeShared& shared) {
  const int lane = int(threadIdx.x) % 32;
  QuotaMoments pool;
  for (int64_t g = threadIdx.x / 32; g < steps.groups_count; g += blockDim.x / 32) {
    const QuotaFreeGroup group = steps.groups[g];
    QuotaMoments own;
    for (int32_t place = group.begin + lane; place < group.end; place += 32) {
      const int32_t s = steps.order[place];
      if (is_free(steps, scores, s)) own.add_site(double(scores[s]), t, sigma);
    }
    own.mean = warp_sum(own.mean);
    own.variance = warp_sum(own.variance);
    own.density = warp_sum(own.density);
    if (lane == 0) pool.add_group(own, group.lower, group.upper);
  }
  const ThreeSums all = block_sums({pool.mean, pool.variance, pool.density}, shared);
  QuotaMoments result;
  result.mean = all.a;
  result.variance = all.b;
  result.density = all.c;
  return result;
}

// A group at the node: sites above t for certain, sites near t, the range in which the law of how many of
// these lie above t is not negligible, and the part in the pool.
struct GroupAtNode {
  double mean;  // of the part
  int32_t above, near;
  int32_t first, end;          // of the law
  int32_t least, most;         // the part
  int32_t before, before_end;  // window of the sum of the parts of the groups before
  int32_t from, from_end;      // and of the groups from this one on
};

TR_HD int64_t aligned_bytes(int64_t bytes) { return (bytes + 15) / 16 * 16; }

// The most entries that a law of a sum of parts needs.
TR_HD int64_t window_size(const QuotaSteps& steps) {
  const auto wide = int64_t(2 * kWindow * std::sqrt(double(steps.count))) + 4;
  return wide < steps.rest + 1 ? wide : steps.rest + 1;
}

// A block's memory. Laws of a group and of alpha have one entry more than the group has sites.
struct NodeMemory {
  double *sum[2], *product[2];        // [count]: results of odd and even nodes
  double *p, *f;                      // [count]
  double *law, *law_tangent;          // [count + groups]
  double *alpha, *alpha_tangent;      // [count + groups]
  double *before, *before_tangent;    // [groups, window]
  double *from[2], *from_tangent[2];  // [window]: distribution functions
  GroupAtNode* group;                 // [groups]
  int64_t bytes;

  TR_HD NodeMemory(const QuotaSteps& steps, bool tangents, char* memory) {
    int64_t used = 0;
    const auto take = [&](int64_t count) {
      double* const at = memory == nullptr ? nullptr : reinterpret_cast<double*>(memory + used);
      used += aligned_bytes(count * int64_t(sizeof(double)));
      return at;
    };
    const int64_t count = steps.count, laws = count + steps.groups_count;
    const int64_t window = window_size(steps), tangent = tangents ? 1 : 0;
    for (int odd = 0; odd < 2; ++odd) {
      sum[odd] = take(count);
      product[odd] = take(tangent * count);
      from[odd] = take(window);
      from_tangent[odd] = take(tangent * window);
    }
    p = take(count);
    f = take(count);
    law = take(laws);
    law_tangent = take(tangent * laws);
    alpha = take(laws);
    alpha_tangent = take(tangent * laws);
    before = take(steps.groups_count * window);
    before_tangent = take(tangent * steps.groups_count * window);
    group = reinterpret_cast<GroupAtNode*>(memory == nullptr ? nullptr : memory + used);
    bytes = used + aligned_bytes(steps.groups_count * int64_t(sizeof(GroupAtNode)));
  }
};

TR_HD int64_t node_bytes(const QuotaSteps& steps, bool tangents) {
  return NodeMemory(steps, tangents, nullptr).bytes;
}

template <typename T>
struct QuotaNode {
  const QuotaSteps& steps;
  const T* scores;
  const T* v;  // null: no tangents
  double mean_v, sigma;
  NodeMemory m;
  NodeShared& shared;

  __device__ int64_t law_of(int64_t g) const { return steps.groups[g].begin + g; }
  __device__ double v_of(int32_t site) const { return double(v[site]) - mean_v; }
  // The part in the pool of a group with `near` of its near sites above t.
  __device__ int32_t part(int64_t g, int32_t near) const {
    const QuotaFreeGroup& q = steps.groups[g];
    const int32_t n = m.group[g].above + near;
    return (n < q.lower ? q.lower : (n > q.upper ? q.upper : n)) - q.lower;
  }

  __device__ void clear() {
    for (int64_t place = threadIdx.x; place < steps.count; place += blockDim.x)
      for (int odd = 0; odd < 2; ++odd) {
        m.sum[odd][place] = 0;
        if (v != nullptr) m.product[odd][place] = 0;
      }
  }

  __device__ void add(double t, double weight, int odd) {
    for (int64_t place = threadIdx.x; place < steps.count; place += blockDim.x) {
      const int32_t s = steps.order[place];
      const double z = (double(scores[s]) - t) / sigma;
      const bool is_near = is_free(steps, scores, s) && z <= kQuotaNear && z >= -kQuotaNear;
      m.p[place] = is_near ? normal_cdf(z) : (is_free(steps, scores, s) && z > 0 ? 1 : 0);
      m.f[place] = is_near ? normal_pdf(z) / sigma : kFar;
    }
    __syncthreads();
    for (int64_t g = threadIdx.x / 32; g < steps.groups_count; g += blockDim.x / 32) find_law(g);
    __syncthreads();
    if (threadIdx.x == 0) find_windows();
    __syncthreads();
    int64_t least = 0;
    for (int64_t g = 0; g < steps.groups_count; ++g) least += m.group[g].least;
    const bool full = least >= steps.rest;
    if (!full) find_before();
    find_alpha(full);
    for (int64_t place = threadIdx.x; place < steps.count; place += blockDim.x)
      if (m.f[place] != kFar) add_site(place, t, weight, odd);
    __syncthreads();
  }

  // A warp: the law, site by site. A new entry needs the old one and the one below, so chunks go down.
  __device__ void find_law(int64_t g) {
    const int lane = int(threadIdx.x) % 32;
    const QuotaFreeGroup q = steps.groups[g];
    double* const law = m.law + law_of(g);
    double* const tangent = v != nullptr ? m.law_tangent + law_of(g) : nullptr;
    int32_t above = 0, near = 0, first = 0, end = 1;
    if (lane == 0) law[0] = 1;
    if (lane == 0 && tangent != nullptr) tangent[0] = 0;
    __syncwarp();
    for (int32_t place = q.begin; place < q.end; ++place) {
      const double f = m.f[place], p = m.p[place];
      if (f == kFar) {
        above += p != 0 ? 1 : 0;
        continue;
      }
      ++near;
      const double dp = tangent != nullptr ? f * v_of(steps.order[place]) : 0.0;
      for (int32_t top = end; top >= first; top -= 32) {
        const int32_t i = top - lane;
        const bool own = i >= first && i<end, lower = i> first && i - 1 < end;
        const double a = own ? law[i] : 0.0, b = lower ? law[i - 1] : 0.0;
        double da = 0, db = 0;
        if (tangent != nullptr) {
          da = own ? tangent[i] : 0.0;
          db = lower ? tangent[i - 1] : 0.0;
        }
        __syncwarp();
        if (i >= first) {
          law[i] = (1 - p) * a + p * b;
          if (tangent != nullptr) tangent[i] = (1 - p) * da + p * db + dp * (b - a);
        }
      }
      ++end;
      __syncwarp();
      while (end > first && law[end - 1] < kNegligibleLaw) --end;
      while (first < end && law[first] < kNegligibleLaw) ++first;
    }
    if (lane == 0) m.group[g] = {0, above, near, first, end, 0, 0, 0, 0, 0, 0};
    __syncwarp();
    double mean = 0;
    for (int32_t i = first + lane; i < end; i += 32) mean += law[i] * double(part(g, i));
    mean = warp_sum(mean);
    if (lane != 0) return;
    m.group[g].mean = mean;
    m.group[g].least = part(g, 0);
    m.group[g].most = part(g, near);
  }

  // The window of a sum of parts with that mean, of groups with so many near sites.
  __device__ void window(double mean, int64_t near, int64_t least, int64_t most, int32_t* first,
                         int32_t* end) const {
    const double away = kWindow * std::sqrt(double(near));
    const double low = mean - away, high = mean + away + 1;
    const int64_t last = high < double(most) ? int64_t(high) : most;
    *first = int32_t(low > double(least) ? int64_t(low) : least);
    *end = int32_t(last < steps.rest - 1 ? last + 1 : steps.rest);
    if (*end < *first) *end = *first;
  }

  // One thread.
  __device__ void find_windows() {
    double mean = 0;
    int64_t near = 0, least = 0, most = 0;
    const auto add = [&](const GroupAtNode& g) {
      mean += g.mean;
      near += g.near;
      least += g.least;
      most += g.most;
    };
    for (int64_t g = 0; g < steps.groups_count; ++g) {
      GroupAtNode& at = m.group[g];
      window(mean, near, least, most, &at.before, &at.before_end);
      add(at);
    }
    mean = 0;
    near = least = most = 0;
    for (int64_t g = steps.groups_count - 1; g >= 0; --g) {
      GroupAtNode& at = m.group[g];
      add(at);
      window(mean, near, least, most, &at.from, &at.from_end);
    }
  }

  // Laws of the sums of the parts of the groups before each.
  __device__ void find_before() {
    const int64_t size = window_size(steps);
    for (int64_t g = 0; g < steps.groups_count; ++g) {
      const GroupAtNode& to = m.group[g];
      for (int32_t x = to.before + int32_t(threadIdx.x); x < to.before_end; x += blockDim.x) {
        double chance = g == 0 ? 1 : 0, tangent = 0;
        if (g > 0) {
          const GroupAtNode& by = m.group[g - 1];
          const double *law = m.law + law_of(g - 1), *before = m.before + (g - 1) * size;
          for (int32_t i = by.first; i < by.end; ++i) {
            const int32_t y = x - part(g - 1, i);
            if (y < by.before || y >= by.before_end) continue;
            chance += law[i] * before[y - by.before];
            if (v != nullptr)
              tangent += m.law_tangent[law_of(g - 1) + i] * before[y - by.before] +
                         law[i] * m.before_tangent[(g - 1) * size + y - by.before];
          }
        }
        m.before[g * size + x - to.before] = chance;
        if (v != nullptr) m.before_tangent[g * size + x - to.before] = tangent;
      }
      __syncthreads();
    }
  }

  // P(sum of the parts of the groups from g on <= x), kept in buffer g & 1.
  struct Chance {
    double value, tangent;
  };
  __device__ Chance below(int64_t g, int32_t x) const {
    if (g == steps.groups_count) return {x >= 0 ? 1.0 : 0.0, 0.0};
    const GroupAtNode& at = m.group[g];
    if (x < at.from) return {0, 0};
    if (x >= at.from_end) return {1, 0};
    return {m.from[g & 1][x - at.from], v != nullptr ? m.from_tangent[g & 1][x - at.from] : 0.0};
  }

  // A_g(n) for n near sites above t without the site itself, and the functions `below`, downwards.
  __device__ void find_alpha(bool full) {
    const int lane = int(threadIdx.x) % 32;
    for (int64_t g = steps.groups_count - 1; g >= 0; --g) {
      const GroupAtNode at = m.group[g];
      const QuotaFreeGroup q = steps.groups[g];
      for (int32_t n = int32_t(threadIdx.x) / 32; n <= at.near; n += int32_t(blockDim.x) / 32) {
        Chance a{0, 0};
        if (n == at.near || at.above + n >= q.upper) {
        } else if (at.above + n < q.lower) {
          a.value = 1;
        } else if (!full) {
          a = pool_has_room(g, int32_t(steps.rest - 1) - (at.above + n - q.lower));
        }
        if (lane != 0) continue;
        m.alpha[law_of(g) + n] = a.value;
        if (v != nullptr) m.alpha_tangent[law_of(g) + n] = a.tangent;
      }
      for (int32_t x = at.from + int32_t(threadIdx.x); x < at.from_end && !full; x += blockDim.x) {
        Chance sum{0, 0};
        for (int32_t i = at.first; i < at.end; ++i) {
          const Chance rest = below(g + 1, x - part(g, i));
          const double c = m.law[law_of(g) + i];
          sum.value += c * rest.value;
          if (v != nullptr)
            sum.tangent += m.law_tangent[law_of(g) + i] * rest.value + c * rest.tangent;
        }
        m.from[g & 1][x - at.from] = sum.value;
        if (v != nullptr) m.from_tangent[g & 1][x - at.from] = sum.tangent;
      }
      __syncthreads();
    }
  }

  // A warp: P(the parts of all groups except g sum to at most `most`), in lane 0.
  __device__ Chance pool_has_room(int64_t g, int32_t most) const {
    const GroupAtNode at = m.group[g];
    const int64_t row = g * window_size(steps);
    Chance a{0, 0};
    for (int32_t y = at.before + int32_t(threadIdx.x) % 32; y < at.before_end && y <= most;
         y += 32) {
      const Chance rest = below(g + 1, most - y);
      const double c = m.before[row + y - at.before];
      a.value += c * rest.value;
      if (v != nullptr)
        a.tangent += m.before_tangent[row + y - at.before] * rest.value + c * rest.tangent;
    }
    return {warp_sum(a.value), v != nullptr ? warp_sum(a.tangent) : 0.0};
  }

  // Adds to the results by E = E[A(N without the site)] and dE.
  __device__ void add_site(int64_t place, double t, double weight, int odd) {
    const int64_t g = steps.group[place];
    const GroupAtNode at = m.group[g];
    if (at.above >= steps.groups[g].upper) return;
    const int32_t s = steps.order[place];
    const double p = m.p[place], q = 1 - p, f = m.f[place], own_v = v != nullptr ? v_of(s) : 0.0;
    const double dp = f * own_v;
    const double *law = m.law + law_of(g), *alpha = m.alpha + law_of(g);
    const double* law_tangent = v != nullptr ? m.law_tangent + law_of(g) : nullptr;
    const double* alpha_tangent = v != nullptr ? m.alpha_tangent + law_of(g) : nullptr;
    Chance sum{0, 0}, x{0, 0};  // x: an entry of the law without the site
    const auto use = [&](int32_t n) {
      sum.value += x.value * alpha[n];
      if (v != nullptr) sum.tangent += x.tangent * alpha[n] + x.value * alpha_tangent[n];
    };
    if (p <= 0.5) {  // law(n) = q x(n) + p x(n - 1)
      for (int32_t n = at.first; n < at.end; ++n) {
        const double value = (law[n] - p * x.value) / q;
        if (v != nullptr) x.tangent = (law_tangent[n] - p * x.tangent - dp * (x.value - value)) / q;
        x.value = value;
        use(n);
      }
    } else {
      for (int32_t n = at.end - 1; n >= at.first && n > 0; --n) {
        const double value = (law[n] - q * x.value) / p;
        if (v != nullptr) x.tangent = (law_tangent[n] - q * x.tangent - dp * (value - x.value)) / p;
        x.value = value;
        use(n - 1);
      }
    }
    m.sum[odd][place] += weight * f * sum.value;
    if (v == nullptr) return;
    const double slope = f * (double(scores[s]) - t) / (sigma * sigma);  // -f'
    m.product[odd][place] += weight * (f * sum.tangent - slope * sum.value * own_v);
  }
};

}  // namespace
}  // namespace topreach::kernels::cuda
