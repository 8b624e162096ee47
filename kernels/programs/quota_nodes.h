// The nodes of the integral over the threshold t in the expected plan under quotas
// (expected_quota_topk.h), for the CPU loop and the CUDA kernel alike.
//
// The trapezoidal rule in s, t(s) = H s - (H - w) a tanh(s / a) around the pool's threshold. Steps are
// w = .6 sqrt(Var N) / sum f there, the width of the threshold, and H = .42 sigma far away. The map is
// analytic, so the rule converges as for t itself (see expected_topk.h). Odd and even nodes form two
// rules; they must agree to kQuotaAgreement for every site, else the steps are halved. The error of
// their mean is then about the square: 1e-9, and 1e-8 at most in the cases of the tests.
#pragma once

#include <cmath>
#include <cstdint>

#include "../special.h"

namespace topreach::kernels {

constexpr double kQuotaNear = 7.5;      // sigma beyond which a site's side is certain: 3e-14
constexpr double kQuotaFarStep = 0.42;  // H, in sigma
constexpr double kQuotaNarrow = 0.6;    // w, in the width of the pool's threshold
constexpr double kQuotaStraight = 6;    // steps near w in length, about
constexpr double kQuotaAgreement = 3e-5;
constexpr int kQuotaAttempts = 4;

// Moments of the number of a group's sites above a threshold; or of the pool, the sum over its groups.
struct QuotaMoments {
  double mean = 0, variance = 0, density = 0;

  TR_HD void add_site(double score, double t, double sigma) {
    const double z = (score - t) / sigma, p = normal_cdf(z);
    mean += p;
    variance += p * (1 - p);
    density += normal_pdf(z) / sigma;
  }
  // The group's part in the pool, by its mean.
  TR_HD void add_group(const QuotaMoments& group, double lower, double upper) {
    const double m = group.mean;
    mean += (m < lower ? lower : (m > upper ? upper : m)) - lower;
    if (m < lower || m > upper) return;
    variance += group.variance;
    density += group.density;
  }
};

struct QuotaNodes {
  double low, high, reach;    // the nodes lie in [low, high], no farther than reach from a site
  double centre, far, close;  // steps H and w

  // For scores from `lowest` to `highest`; pool(t) gives the moments of the pool, of which `rest`
  // sites are chosen.
  TR_CALLS_ARGUMENT
  template <typename Pool>
  TR_HD QuotaNodes(double lowest, double highest, int64_t rest, double sigma, const Pool& pool)
      : low(lowest - (kQuotaNear + 1) * sigma),
        high(highest + (kQuotaNear + 1) * sigma),
        reach((kQuotaNear + 1) * sigma),
        far(kQuotaFarStep * sigma) {
    // By mean field: sum_g clip(E N_g, lower, upper) - lower = R - 1/2.
    double below = low, over = high;
    for (int i = 0; i < 24 && over - below > 0.02 * sigma; ++i) {
      const double middle = 0.5 * (below + over);
      if (pool(middle).mean > double(rest) - 0.5) {
        below = middle;
      } else {
        over = middle;
      }
    }
    centre = 0.5 * (below + over);
    const QuotaMoments at = pool(centre);
    close = far;
    if (at.density > 0) {
      const double narrow = kQuotaNarrow * std::sqrt(at.variance) / at.density;
      close = narrow < far ? narrow : far;
    }
    if (close < 1e-3 * far) close = 1e-3 * far;
  }

  // The same with all steps multiplied by `factor`.
  TR_HD QuotaNodes refined(double factor) const {
    QuotaNodes nodes = *this;
    nodes.far *= factor;
    nodes.close *= factor;
    return nodes;
  }

  // Calls f(t, weight, n) for each node near one of the scores, which ascend. n tells odd from even.
  TR_CALLS_ARGUMENT
  template <typename F>
  TR_HD void visit(const double* sorted, int64_t count, const F& f) const {
    const double bend = kQuotaStraight * std::sqrt(far / close);  // a, in steps
    const double ends = (high - low) / far + 2 * bend + 2;
    for (int side = 1; side >= -1; side -= 2)
      for (int64_t n = side > 0 ? 0 : 1; double(n) < ends; ++n) {
        const double e = exponential_of(-2 * double(n) / bend);
        const double away = far * double(n) - (far - close) * bend * (1 - e) / (1 + e);
        const double t = centre + (side > 0 ? away : -away);
        if (t < low || t > high) break;
        // If no site is near, go on to the next one.
        int64_t next = 0;
        for (int64_t end = count; next < end;) {
          const int64_t middle = next + (end - next) / 2;
          if (sorted[middle] < t - reach) {
            next = middle + 1;
          } else {
            end = middle;
          }
        }
        if (next < count && sorted[next] <= t + reach) {
          f(t, far - (far - close) * (4 * e / ((1 + e) * (1 + e))), n);
          continue;
        }
        if (next == (side > 0 ? count : 0)) break;
        const double aim = side > 0 ? sorted[next] - reach - t : t - (sorted[next - 1] + reach);
        const int64_t skip = int64_t(aim / far) - 1;  // no step is longer than `far`
        n += skip > 0 ? skip : 0;
      }
  }
};

}  // namespace topreach::kernels
