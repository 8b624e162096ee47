// CPU loops of the posterior mean under a discrete prior; see ../posterior_risk.h for the equations.
#include "../posterior_risk.h"

#include "../special.h"
#include "isa.h"

namespace topreach::kernels::TR_ISA {
namespace {

struct Lanes {
  alignas(64) double v[kRiskLanes];
};

// p [G, lanes], not yet divided by its sum, which is returned.
TR_INLINE Lanes posterior(const Lanes& counts, const Lanes& expected, const double* log_prior,
                          const double* support, const double* log_support, int64_t points,
                          double* p) {
  Lanes largest, sum{};
  for (int i = 0; i < kRiskLanes; ++i) largest.v[i] = -kInfinity;
  for (int64_t g = 0; g < points; ++g) {
    double* row = p + g * kRiskLanes;
    const double w = log_prior ? log_prior[g] : 0.0, u = support[g], log_u = log_support[g];
    for (int i = 0; i < kRiskLanes; ++i) {
      row[i] = w + (counts.v[i] * log_u - expected.v[i] * u);
      largest.v[i] = row[i] > largest.v[i] ? row[i] : largest.v[i];
    }
  }
  for (int64_t g = 0; g < points; ++g) {
    double* row = p + g * kRiskLanes;
    for (int i = 0; i < kRiskLanes; ++i) {
      row[i] = exponential_of(row[i] - largest.v[i]);
      sum.v[i] += row[i];
    }
  }
  return sum;
}

template <typename T>
TR_INLINE Lanes gather(const T* values, int64_t stride, int64_t size) {
  Lanes lanes{};
  for (int i = 0; i < kRiskLanes; ++i) lanes.v[i] = i < size ? double(values[i * stride]) : 0.0;
  return lanes;
}

template <typename T>
void forward(const PosteriorRisk<T>& in, int64_t begin, int64_t end, T* risk, double* p) {
  const int64_t memories = in.memories;
  for (int64_t cell = begin; cell < end; cell += kRiskLanes) {
    const int64_t size = end - cell < kRiskLanes ? end - cell : kRiskLanes;
    for (int64_t h = 0; h < memories; ++h) {
      const int64_t at = cell * memories + h;
      const Lanes sum = posterior(
          gather(in.counts + at, memories, size), gather(in.expected + at, memories, size),
          in.log_prior + h * in.points, in.support, in.log_support, in.points, p);
      Lanes mean{};
      for (int64_t g = 0; g < in.points; ++g)
        for (int i = 0; i < kRiskLanes; ++i) mean.v[i] += p[g * kRiskLanes + i] * in.support[g];
      for (int64_t i = 0; i < size; ++i) risk[at + i * memories] = T(mean.v[i] / sum.v[i]);
    }
  }
}

template <typename T>
void backward(const PosteriorRisk<T>& in, const T* grad, int64_t begin, int64_t end, T* d_counts,
              T* d_expected, double* d_log_prior, double* p) {
  const int64_t memories = in.memories, points = in.points;
  for (int64_t cell = begin; cell < end; cell += kRiskLanes) {
    const int64_t size = end - cell < kRiskLanes ? end - cell : kRiskLanes;
    for (int64_t h = 0; h < memories; ++h) {
      const int64_t at = cell * memories + h;
      const Lanes sum = posterior(gather(in.counts + at, memories, size),
                                  gather(in.expected + at, memories, size),
                                  in.log_prior + h * points, in.support, in.log_support, points, p);
      const Lanes g_out = gather(grad + at, memories, size);
      Lanes mean{}, log_mean{}, scale;
      for (int64_t g = 0; g < points; ++g) {
        for (int i = 0; i < kRiskLanes; ++i) {
          mean.v[i] += p[g * kRiskLanes + i] * in.support[g];
          log_mean.v[i] += p[g * kRiskLanes + i] * in.log_support[g];
        }
      }
      for (int i = 0; i < kRiskLanes; ++i) {
        mean.v[i] /= sum.v[i];
        log_mean.v[i] /= sum.v[i];
        scale.v[i] = g_out.v[i] / sum.v[i];
      }
      Lanes variance{}, covariance{};
      for (int64_t g = 0; g < points; ++g) {
        Lanes part;
        for (int i = 0; i < kRiskLanes; ++i) {
          const double apart = in.support[g] - mean.v[i], q = scale.v[i] * p[g * kRiskLanes + i];
          part.v[i] = q * apart;
          variance.v[i] += part.v[i] * apart;
          covariance.v[i] += part.v[i] * (in.log_support[g] - log_mean.v[i]);
        }
        double total = 0.0;
        for (int i = 0; i < kRiskLanes; ++i) total += part.v[i];
        d_log_prior[h * points + g] += total;
      }
      for (int64_t i = 0; i < size; ++i) {
        d_counts[at + i * memories] = T(covariance.v[i]);
        d_expected[at + i * memories] = T(-variance.v[i]);
      }
    }
  }
}

void likelihood_of(const double* counts, const double* expected, const double* support,
                   const double* log_support, int64_t sites, int64_t points, int64_t begin,
                   int64_t end, double* likelihood) {
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t first = tile * kRiskLanes;
    const int64_t size = sites - first < kRiskLanes ? sites - first : kRiskLanes;
    double* p = likelihood + tile * points * kRiskLanes;
    posterior(gather(counts + first, 1, size), gather(expected + first, 1, size), nullptr, support,
              log_support, points, p);
    for (int64_t g = 0; g < points; ++g)
      for (int64_t i = size; i < kRiskLanes; ++i) p[g * kRiskLanes + i] = 0.0;
  }
}

void em_step(const double* likelihood, const double* weights, int64_t points, int64_t begin,
             int64_t end, double* lanes, double* sums) {
  for (int64_t i = 0; i < points * kRiskLanes; ++i) lanes[i] = 0.0;
  for (int64_t tile = begin; tile < end; ++tile) {
    const double* p = likelihood + tile * points * kRiskLanes;
    Lanes marginal{};
    for (int64_t g = 0; g < points; ++g)
      for (int i = 0; i < kRiskLanes; ++i) marginal.v[i] += p[g * kRiskLanes + i] * weights[g];
    for (int i = 0; i < kRiskLanes; ++i)
      marginal.v[i] = marginal.v[i] > 0.0 ? 1.0 / marginal.v[i] : 0.0;
    for (int64_t g = 0; g < points; ++g)
      for (int i = 0; i < kRiskLanes; ++i)
        lanes[g * kRiskLanes + i] += p[g * kRiskLanes + i] * marginal.v[i];
  }
  for (int64_t g = 0; g < points; ++g)
    for (int i = 0; i < kRiskLanes; ++i) sums[g] += lanes[g * kRiskLanes + i];
}

}  // namespace

extern const PosteriorRiskCpu<float> posterior_risk_float;
extern const PosteriorRiskCpu<double> posterior_risk_double;
extern const PriorEm prior_em;
const PosteriorRiskCpu<float> posterior_risk_float{forward<float>, backward<float>};
const PosteriorRiskCpu<double> posterior_risk_double{forward<double>, backward<double>};
const PriorEm prior_em{likelihood_of, em_step};

}  // namespace topreach::kernels::TR_ISA
