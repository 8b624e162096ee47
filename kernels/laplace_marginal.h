// Laplace's approximation to the marginal likelihood of one site with two Gaussian effects, and its
// exact gradient.
//
//   y_t ~ family(eta_t + v_t.u),  u ~ N(0, I_2),  v_t = L' (1, t),  L L' = Sigma
//   F(u) = sum_t w_t log p(y_t | eta_t + v_t.u) - u.u / 2
//   log p(y) ~ F(u^) - log det H(u^) / 2,   u^ = argmax F,   H = I + sum_t w_t p(x_t) v_t v_t'
// (Tierney and Kadane 1986; Skaug and Fournier 2006 for the gradient.) With the effects written as L u
// nothing is divided by a standard deviation: Sigma may be singular, or 0.
//
// l1, l2, l3: derivatives of log p in eta; x = -l2 is the observed information. p(x) = x for x >= 0, so H
// is -F'' of the counts observed wherever log p is concave: always for Poisson and NB2, mostly for
// NB1 with intervals and extra zeros. There x may be negative, and -F'' could be singular at a mode: then
// Laplace's approximation is infinite. So p(x) = x / (1 - c x) for x < 0, c = 2 sum_t w_t v_t.v_t, which
// has the value and the slope of x at 0, and keeps H >= I / 2.
//
// Gradient: with h_t = v_t' H^-1 v_t, c_t = w_t p'(x_t) l3_t h_t / 2, k = (-F'')^-1 (g sum_t c_t v_t + m),
// g the incoming gradient of the value, m that of u^, and K_t = w_t l2_t v_t.k, implicit differentiation
// of F'(u^) = 0 gives
//   d/d eta_t:  g (w_t l1_t + c_t) + K_t
//   d/d v_t:    (d/d eta_t) u^ + w_t l1_t k - g w_t p(x_t) H^-1 v_t, and what comes through c
//   d/d d:      sum_t w_t [g (l_d + p'(x_t) h_t l2_d / 2) + l1_d v_t.k]       (and so for z)
//
// The mode: Newton from u = 0, with H where -F'' is not positive definite; steps move no predictor by more
// than 8, and are halved until F rises enough, so each one makes it rise. Once a step is below 1e-3
// standard deviations full ones are taken, which square the error, to 1e-15. Cost: O(T) times about 6
// steps.
#pragma once

#include "count_families.h"

namespace topreach::kernels {

struct SiteCounts {  // one site: arrays of `periods`
  const double *eta, *log_exposure, *low, *high, *weight;
  const double* loading;  // [periods, 2], shared by all sites
  int64_t periods;
};

struct SiteMode {
  double u[2];
  double h[3];   // H: h00, h01, h11
  double value;  // the marginal log-likelihood; NaN if F(0) is not finite
};

struct Information {
  double value, slope, by_bend;  // p(x), p'(x), dp/dc
};

TR_HD Information information_of(double x, double bend) {
  if (x >= 0) return {x, 1, 0};
  const double r = 1 / (1 - bend * x);
  return {x * r, r * r, x * x * r * r};
}

// c
TR_HD double bend_of(const SiteCounts& site) {
  double sum = 0;
  for (int64_t t = 0; t < site.periods; ++t) {
    const double a = site.loading[2 * t], b = site.loading[2 * t + 1];
    if (site.weight[t] > 0) sum += site.weight[t] * (a * a + b * b);
  }
  return 2 * sum;
}

struct SiteObjective {
  double value, gradient[2], hessian[3], h[3];  // F, F', -F'' and H
};

TR_HD SiteObjective site_objective(const CountModel& model, const SiteCounts& site, double bend,
                                   const double* u) {
  SiteObjective r{-0.5 * (u[0] * u[0] + u[1] * u[1]), {-u[0], -u[1]}, {1, 0, 1}, {1, 0, 1}};
  for (int64_t t = 0; t < site.periods; ++t) {
    if (!(site.weight[t] > 0)) continue;
    const double a = site.loading[2 * t], b = site.loading[2 * t + 1], w = site.weight[t];
    const Jet<2, 0> l = count_log_likelihood<2, 0>(model, site.eta[t] + a * u[0] + b * u[1],
                                                   site.log_exposure[t], site.low[t], site.high[t]);
    const double x = -2 * l.v[2], p = information_of(x, bend).value;
    r.value += w * l.v[0];
    r.gradient[0] += w * l.v[1] * a;
    r.gradient[1] += w * l.v[1] * b;
    const double squares[3] = {w * a * a, w * a * b, w * b * b};
    for (int i = 0; i < 3; ++i) {
      r.hessian[i] += x * squares[i];
      r.h[i] += p * squares[i];
    }
  }
  return r;
}

TR_HD double determinant(const double* h) { return h[0] * h[2] - h[1] * h[1]; }

// x = h^-1 b
TR_HD void solve_pair(const double* h, const double* b, double* x) {
  const double inverse = 1 / determinant(h);
  x[0] = (h[2] * b[0] - h[1] * b[1]) * inverse;
  x[1] = (h[0] * b[1] - h[1] * b[0]) * inverse;
}

TR_HD SiteMode site_mode(const CountModel& model, const SiteCounts& site) {
  constexpr int kSteps = 200, kHalvings = 60;
  constexpr double kLongest = 8, kClose = 1e-6, kEnd = 1e-15;
  const double bend = bend_of(site);
  SiteMode mode{};
  SiteObjective at = site_objective(model, site, bend, mode.u);
  double before = kInfinity;
  for (int step = 0; step < kSteps && at.value - at.value == 0; ++step) {
    const bool proper = at.hessian[0] > 0 && determinant(at.hessian) > 0;
    double move[2];
    solve_pair(proper ? at.hessian : at.h, at.gradient, move);
    const double slope = at.gradient[0] * move[0] + at.gradient[1] * move[1];  // twice the rise
    const bool close = proper && slope < kClose;
    double longest = 0;
    for (int64_t t = 0; t < site.periods; ++t) {
      const double a = site.loading[2 * t] * move[0] + site.loading[2 * t + 1] * move[1];
      longest = a > longest ? a : (-a > longest ? -a : longest);
    }
    double factor = longest > kLongest ? kLongest / longest : 1.0;
    bool rose = false;
    SiteObjective next = at;
    double trial[2];
    for (int half = 0; half < kHalvings && !rose; ++half, factor *= 0.5) {
      trial[0] = mode.u[0] + factor * move[0];
      trial[1] = mode.u[1] + factor * move[1];
      next = site_objective(model, site, bend, trial);
      rose = close ? next.value - next.value == 0 : next.value >= at.value + 1e-4 * factor * slope;
    }
    if (!rose) break;
    mode.u[0] = trial[0];
    mode.u[1] = trial[1];
    at = next;
    if (close && (slope < kEnd || slope >= before)) break;
    before = close ? slope : kInfinity;
  }
  for (int i = 0; i < 3; ++i) mode.h[i] = at.h[i];
  mode.value = at.value - 0.5 * natural_log(determinant(at.h));
  return mode;
}

struct SiteGradient {
  double *eta, *loading;  // [periods], [periods, 2]: loading is added to
  double dispersion, zero_logit;
};

// `weight` is the incoming gradient of the value, `mode_weight` [2] that of u^.
TR_HD void site_gradient(const CountModel& model, const SiteCounts& site, const double* u,
                         const double* h, double weight, const double* mode_weight,
                         SiteGradient& out) {
  const double bend = bend_of(site), inverse = 1 / determinant(h);
  const auto leverage = [&](double a, double b) {
    return (h[2] * a * a - 2 * h[1] * a * b + h[0] * b * b) * inverse;
  };
  // First the sum of c_t v_t, -F'', and the gradient for the bend; c_t waits in out.eta.
  double total[2] = {mode_weight[0], mode_weight[1]}, curvature[3] = {1, 0, 1}, by_bend = 0;
  for (int64_t t = 0; t < site.periods; ++t) {
    out.eta[t] = 0;
    if (!(site.weight[t] > 0)) continue;
    const double a = site.loading[2 * t], b = site.loading[2 * t + 1], w = site.weight[t];
    const Jet<3, 0> l = count_log_likelihood<3, 0>(model, site.eta[t] + a * u[0] + b * u[1],
                                                   site.log_exposure[t], site.low[t], site.high[t]);
    const double x = -2 * l.v[2], h_t = leverage(a, b);
    const Information p = information_of(x, bend);
    const double c = weight * w * 3 * p.slope * l.v[3] * h_t;  // l3 = 6 v[3]
    out.eta[t] = c;
    total[0] += c * a;
    total[1] += c * b;
    curvature[0] += w * x * a * a;
    curvature[1] += w * x * a * b;
    curvature[2] += w * x * b * b;
    by_bend -= 0.5 * weight * w * p.by_bend * h_t;
  }
  double k[2];
  const bool proper = curvature[0] > 0 && determinant(curvature) > 0;
  solve_pair(proper ? curvature : h, total, k);
  for (int64_t t = 0; t < site.periods; ++t) {
    if (!(site.weight[t] > 0)) continue;
    const double row[2] = {site.loading[2 * t], site.loading[2 * t + 1]}, w = site.weight[t];
    const Jet<3, 2> l =
        count_log_likelihood<3, 2>(model, site.eta[t] + row[0] * u[0] + row[1] * u[1],
                                   site.log_exposure[t], site.low[t], site.high[t]);
    const Information p = information_of(-2 * l.v[2], bend);
    const double along = row[0] * k[0] + row[1] * k[1], h_t = leverage(row[0], row[1]);
    out.eta[t] += weight * w * l.v[1] + 2 * w * l.v[2] * along;
    double solved[2];
    solve_pair(h, row, solved);
    for (int i = 0; i < 2; ++i)
      out.loading[2 * t + i] += out.eta[t] * u[i] + w * l.v[1] * k[i] -
                                weight * w * p.value * solved[i] + 4 * w * by_bend * row[i];
    // q[m][i] is the coefficient of h^i: the second derivative in eta is twice q[m][2].
    const double half = p.slope * h_t;
    out.dispersion += w * (weight * (l.q[0][0] + half * l.q[0][2]) + l.q[0][1] * along);
    out.zero_logit += w * (weight * (l.q[1][0] + half * l.q[1][2]) + l.q[1][1] * along);
  }
}

}  // namespace topreach::kernels
