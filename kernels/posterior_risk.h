// Posterior mean of a site's relative risk under a discrete prior, and that prior by EM.
//
// The prior puts weights w_g on risks u_g, g = 1..G. The decayed count A of a site is Poisson(X u) with
// its past discounted (a power likelihood):
//
//   p_g = w_g u_g^A exp(-X u_g) / sum_g' ...,   risk = sum_g p_g u_g
//   d risk / d X = -Var_p(u),  d risk / d A = Cov_p(u, log u),  d risk / d log w_g = p_g (u_g - risk)
//
// The nonparametric maximum-likelihood estimate of w (Robbins 1956; Laird 1978, JASA 73:805) is by EM:
// w_g <- w_g mean_s (L_sg / sum_g' L_sg' w_g') with L_sg = u_g^A_s exp(-X_s u_g).
//
// H memories have a prior each. All sums in double precision. Cost: about G exponentials per cell; EM
// stores L, 8 S G bytes.
#pragma once

#include <cstdint>

namespace topreach::kernels {

// Cells that one loop handles side by side.
constexpr int kRiskLanes = 8;

template <typename T>
struct PosteriorRisk {
  const T* counts;            // A, [cells, H]
  const T* expected;          // X, [cells, H]
  const double* log_prior;    // log w up to a constant, [H, G]
  const double* support;      // u > 0, [G]
  const double* log_support;  // [G]
  int64_t cells, memories, points;
};

// Doubles of working memory for `forward` and `backward`.
constexpr int64_t posterior_risk_scratch(int64_t points) { return kRiskLanes * points; }

template <typename T>
struct PosteriorRiskCpu {
  // risk [cells, H] of the cells begin..end.
  void (*forward)(const PosteriorRisk<T>&, int64_t begin, int64_t end, T* risk, double* scratch);
  // Gradients for A and X [cells, H], and what the cells add to that for log w [H, G].
  void (*backward)(const PosteriorRisk<T>&, const T* grad, int64_t begin, int64_t end, T* d_counts,
                   T* d_expected, double* d_log_prior, double* scratch);
};

// EM over tiles of kRiskLanes sites. `likelihood` is [tiles, G, kRiskLanes]; a tile's lanes beyond the
// last site are 0.
struct PriorEm {
  // L of the sites in tiles begin..end, each site's divided by its largest.
  void (*likelihood)(const double* counts, const double* expected, const double* support,
                     const double* log_support, int64_t sites, int64_t points, int64_t begin,
                     int64_t end, double* likelihood);
  // sums[g] += sum over the sites of tiles begin..end of L_sg / sum_g' L_sg' w_g'. `lanes` is working
  // memory of kRiskLanes x G.
  void (*step)(const double* likelihood, const double* weights, int64_t points, int64_t begin,
               int64_t end, double* lanes, double* sums);
};

// The functions for this machine's instruction set; results are the same for each.
template <typename T>
const PosteriorRiskCpu<T>& posterior_risk_cpu();
const PriorEm& prior_em_cpu();

}  // namespace topreach::kernels
