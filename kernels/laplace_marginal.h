// Laplace's approximation to the marginal likelihood of one site with two Gaussian effects and, if
// wanted, a Gaussian path over the periods; and its exact gradient.
//
//   y_t ~ family(eta_t + v_t.z),  v_t.z = l_t.u + a_t,  z = (u, e) ~ N(0, I),  l_t = L' (1, t),
//   L L' = Sigma,  a the path of site_path.h, driven by e; 0 if there is none
//   F(z) = sum_t w_t log p(y_t | eta_t + v_t.z) - z.z / 2
//   log p(y) ~ F(z^) - log det H(z^) / 2,   z^ = argmax F,   H = -F'' = I + sum_t X_t v_t v_t'
// (Tierney and Kadane 1986; Skaug and Fournier 2006 for the gradient.) Effects are written as L u and
// the path is driven by e, so nothing is divided by a standard deviation: Sigma may be singular, or
// 0, and so may the path's variance.
//
// l1, l2, l3 are the derivatives of log p in eta, and X_t = -w_t l2_t is the observed information of
// a count. X_t may be negative: NB1, intervals and extra zeros are not log-concave. H is still
// positive definite at almost every mode, and used as it is, as glmmTMB does. If det H comes near 0,
// Laplace's approximation grows without bound, though the integral does not. So if x = det H / f is
// below 1, f = kLeastDeterminant, log det H is replaced by
//   v log det H + (1 - v) log det H+,  v = 3 x^2 - 2 x^3,
// H+ being H without the negative X_t. Value and gradient are continuous where x = 1.
//
// The path is integrated out first. With [l] the matrix of rows l_t, X = diag(X_t), K = Cov(a) and
// D = (I + K X)^-1 [l], the effects after projecting out the path,
//   h = I + sum_t X_t l_t D_t'  is the precision of u,   det H = det h det(I + X K)
//   (I + X (K + [l] [l]')) dual = q:  dual = S q - X D k,  h k = [l]' S q,  S = (I + X K)^-1
// At the mode u = [l]' r and a = K r, r_t = w_t l1_t. So u and a are stored by their dual, which is
// r in the end, and K is never inverted.
//
// Gradient: h_t = v_t' H^-1 v_t is the variance of eta_t; g, m and n are the incoming gradients of
// the value, u^ and a^; j is that of log det H, g for x >= 1; c_t = j w_t l3_t h_t / 2;
// k = m - [l]' n + [l]' dual, b = K dual, where dual = c + n - X ([l] k + b); K_t = w_t l2_t
// (l_t.k + b_t). Implicit differentiation of F'(z^) = 0 gives
//   d/d eta_t:  g w_t l1_t + c_t + K_t
//   d/d l_t:    (d/d eta_t) u^ + w_t l1_t k - j X_t h^-1 D_t
//   d/d d:      sum_t w_t [g l_d + j h_t l2_d / 2 + l1_d (l_t.k + b_t)]     (and so for z)
//   d/d K:      g r r' / 2 + (dual r' + r dual') / 2 - j W / 2, W = (X^-1 + K + [l] [l]')^-1;
//               K depends on rho_t and s_t by R
// and the terms with j once more for H+, whose negative X_t are constants.
//
// The mode: Newton from z = 0, with negative X_t set to 0 while H is not positive definite. Steps
// are halved until F rises enough. No step moves a predictor by more than 8 (softplus link: 8 plus
// half its size, since its scale is that of the counts). Once a step is below 1e-3 standard deviations,
// full steps are taken, which square the error, down to 1e-15. Cost: O(T) times about 6 steps.
#pragma once

#include "count_families.h"
#include "site_path.h"

namespace topreach::kernels {

struct SiteCounts {  // one site: arrays of `periods`
  const double *eta, *log_exposure, *low, *high, *weight;
  const double* loading;  // [periods, 2], shared by all sites
  int64_t periods;
  const double* path = nullptr;  // [periods, 2]: rho_t and s_t, shared by all sites; or none
};

constexpr int64_t kSiteScratch = 19;       // doubles per period that a site's work takes
constexpr double kLeastDeterminant = 0.5;  // of H; that of the prior is 1

struct SiteWork {  // of kSiteScratch * periods doubles
  SiteWork(const SiteCounts& site, double* scratch)
      : filter{site.path, site.periods, nullptr, nullptr} {
    const auto take = [&](int64_t columns) {
      double* taken = scratch;
      scratch += columns * site.periods;
      return taken;
    };
    score = take(1), x = take(1), p = take(1), third = take(1), dual = take(1), move = take(1);
    path = take(1), path_move = take(1), variance = take(1), n = take(1), spread = take(1);
    filter.predicted = take(1), filter.shrink = take(1);
    response = take(2), columns = take(2), solved = take(2);
  }

  PathFilter filter;
  double *score, *x, *p;                   // w l1, X, and X or max(X, 0)
  double* third;                           // w l3 / 2
  double *dual, *path, *move, *path_move;  // of u^ and a^, and of a step of theirs
  double *response, *columns, *solved;     // D; right-hand sides [periods, 2] and their solutions
  double *variance, *n;                    // Var(a_t | u, all), N_t
  double* spread;                          // j h_t
};

struct SiteMode {
  double u[2];
  double h[3];   // h: h00, h01, h11
  double value;  // the marginal log-likelihood; NaN if F(0) is not finite
};

TR_HD double determinant(const double* h) { return h[0] * h[2] - h[1] * h[1]; }

// x = h^-1 b
TR_HD void solve_pair(const double* h, const double* b, double* x) {
  const double inverse = 1 / determinant(h);
  x[0] = (h[2] * b[0] - h[1] * b[1]) * inverse;
  x[1] = (h[0] * b[1] - h[1] * b[0]) * inverse;
}

// D_t
TR_HD const double* site_response(const SiteCounts& site, const SiteWork& work) {
  return site.path ? work.response : site.loading;
}

// Computes h, and what site_solve needs, with information x [periods]; false if H is not positive
// definite.
TR_HD bool site_factor(const SiteCounts& site, const double* x, SiteWork& work, double* h) {
  bool proper = true;
  if (site.path) {
    proper = path_filter(work.filter, x);
    for (int64_t i = 0; i < 2 * site.periods; ++i) work.columns[i] = x[i / 2] * site.loading[i];
    path_solve<2>(work.filter, x, work.columns, work.solved, work.response);
    for (int64_t i = 0; i < 2 * site.periods; ++i)
      work.response[i] = site.loading[i] - work.response[i];
  }
  const double* d = site_response(site, work);
  h[0] = h[2] = 1;
  h[1] = 0;
  for (int64_t t = 0; t < site.periods; ++t) {
    const double a = x[t] * site.loading[2 * t], b = x[t] * site.loading[2 * t + 1];
    h[0] += a * d[2 * t];
    h[1] += a * d[2 * t + 1];
    h[2] += b * d[2 * t + 1];
  }
  return proper && h[0] > 0 && determinant(h) > 0;
}

// Solves (I + X (K + [l] [l]')) dual = q; then k = right + [l]' dual, path = K dual. dual holds q
// before the call. Without a path, path is not touched.
TR_HD void site_solve(const SiteCounts& site, const double* x, SiteWork& work, const double* h,
                      const double* right, double* dual, double* path, double* k) {
  if (site.path) path_solve<1>(work.filter, x, dual, dual, path);
  const double *l = site.loading, *d = site_response(site, work);
  double total[2] = {right[0], right[1]};
  for (int64_t t = 0; t < site.periods; ++t) {
    total[0] += l[2 * t] * dual[t];
    total[1] += l[2 * t + 1] * dual[t];
  }
  solve_pair(h, total, k);
  for (int64_t t = 0; t < site.periods; ++t) {
    dual[t] -= x[t] * (d[2 * t] * k[0] + d[2 * t + 1] * k[1]);
    if (site.path) path[t] -= (l[2 * t] - d[2 * t]) * k[0] + (l[2 * t + 1] - d[2 * t + 1]) * k[1];
  }
}

// F at u and at the path and dual moved by factor times their moves; fills work.score and work.x.
TR_HD double site_objective(const CountModel& model, const SiteCounts& site, const double* u,
                            double factor, SiteWork& work) {
  double value = -0.5 * (u[0] * u[0] + u[1] * u[1]);
  for (int64_t t = 0; t < site.periods; ++t) {
    work.score[t] = work.x[t] = 0;
    if (!(site.weight[t] > 0)) continue;
    double at = site.eta[t] + site.loading[2 * t] * u[0] + site.loading[2 * t + 1] * u[1];
    if (site.path) {
      const double a = work.path[t] + factor * work.path_move[t];
      value -= 0.5 * a * (work.dual[t] + factor * work.move[t]);
      at += a;
    }
    const Jet<2, 0> l =
        count_log_likelihood<2, 0>(model, at, site.log_exposure[t], site.low[t], site.high[t]);
    const double w = site.weight[t];
    value += w * l.v[0];
    work.score[t] = w * l.v[1];
    work.x[t] = -2 * w * l.v[2];
  }
  return value;
}

// work.p: work.x without its negative entries.
TR_HD void clamp_information(const SiteCounts& site, SiteWork& work) {
  for (int64_t t = 0; t < site.periods; ++t) work.p[t] = work.x[t] > 0 ? work.x[t] : 0.0;
}

struct Determinant {
  double log;                // log det H, or what takes its place
  double by_full, by_clamp;  // its derivatives in log det H and log det H+
  bool proper, small;        // whether H is positive definite; whether det H < f
};

TR_HD double log_determinant(const SiteCounts& site, const SiteWork& work, const double* h) {
  return natural_log(determinant(h)) + (site.path ? path_log_determinant(work.filter) : 0.0);
}

// From work.x. Fills h and work.p with the information that precisions use: H, or H+ if det H is small,
// since with H a site's effects would then seem less certain than under their prior.
TR_HD Determinant bounded_determinant(const SiteCounts& site, SiteWork& work, double* h) {
  const double log_floor = natural_log(kLeastDeterminant);
  const bool proper = site_factor(site, work.x, work, h);
  const double full = proper ? log_determinant(site, work, h) : 0.0;
  if (proper && full >= log_floor) {
    for (int64_t t = 0; t < site.periods; ++t) work.p[t] = work.x[t];
    return {full, 1, 0, true, false};
  }
  clamp_information(site, work);
  site_factor(site, work.p, work, h);
  const double clamped = log_determinant(site, work, h);
  if (!proper) return {clamped, 0, 1, false, true};
  const double x = exponential_of(full - log_floor), v = x * x * (3 - 2 * x);
  const double slope = 6 * x * x * (1 - x) * (full - clamped);  // by v
  return {clamped + v * (full - clamped), v + slope, 1 - v, true, true};
}

// The mode; work.path is its path. h and work.p are the information there, for precisions.
TR_HD SiteMode site_mode(const CountModel& model, const SiteCounts& site, SiteWork& work) {
  constexpr int kSteps = 200, kHalvings = 60;
  constexpr double kLongest = 8, kClose = 1e-6, kEnd = 1e-15, kNone[2] = {0, 0};
  for (int64_t t = 0; t < site.periods; ++t)
    work.dual[t] = work.path[t] = work.move[t] = work.path_move[t] = 0;
  SiteMode mode{};
  double value = site_objective(model, site, mode.u, 0, work), before = kInfinity;
  for (int step = 0; step < kSteps && value - value == 0; ++step) {
    const bool proper = site_factor(site, work.x, work, mode.h);
    const double* x = work.x;
    if (!proper) {
      clamp_information(site, work);
      site_factor(site, x = work.p, work, mode.h);
    }
    for (int64_t t = 0; t < site.periods; ++t) work.move[t] = work.score[t] - work.dual[t];
    double move[2];
    site_solve(site, x, work, mode.h, kNone, work.move, work.path_move, move);
    double slope = 0, factor = 1;  // slope: twice the rise
    for (int64_t t = 0; t < site.periods; ++t) {
      double a = site.loading[2 * t] * move[0] + site.loading[2 * t + 1] * move[1];
      if (site.path) a += work.path_move[t];
      slope += (work.score[t] - work.dual[t]) * a;
      double longest = kLongest;
      if (model.softplus_link) {
        const double at = site.eta[t] + site.loading[2 * t] * mode.u[0] +
                          site.loading[2 * t + 1] * mode.u[1] + (site.path ? work.path[t] : 0.0);
        longest += 0.5 * (at > 0 ? at : -at);
      }
      const double length = a > 0 ? a : -a;
      if (factor * length > longest) factor = longest / length;
    }
    const bool close = proper && slope < kClose;
    double next = 0, trial[2];
    bool rose = false;
    for (int half = 0; half < kHalvings && !rose; ++half, factor *= 0.5) {
      trial[0] = mode.u[0] + factor * move[0];
      trial[1] = mode.u[1] + factor * move[1];
      next = site_objective(model, site, trial, factor, work);
      rose = close ? next - next == 0 : next >= value + 1e-4 * factor * slope;
      if (rose) break;
    }
    if (!rose) {
      value = site_objective(model, site, mode.u, 0, work);
      break;
    }
    mode.u[0] = trial[0];
    mode.u[1] = trial[1];
    for (int64_t t = 0; t < site.periods; ++t) {
      work.dual[t] += factor * work.move[t];
      if (site.path) work.path[t] += factor * work.path_move[t];
    }
    value = next;
    if (close && (slope < kEnd || slope >= before)) break;
    before = close ? slope : kInfinity;
  }
  mode.value = value - 0.5 * bounded_determinant(site, work, mode.h).log;
  return mode;
}

struct SiteGradient {
  double *eta, *loading, *path;  // [periods], [periods, 2] twice: the last two are added to
  double dispersion, zero_logit;
};

// The gradient of -weight / 2 times the log determinant with information `info` [periods], whose h is
// given: adds the gradient for loading and path to `out`, and weight h_t to work.spread. Cells of
// negative X_t are left out if these are `constant`.
TR_HD void determinant_gradient(const SiteCounts& site, const double* info, const double* h,
                                double weight, bool constant, SiteWork& work, SiteGradient& out) {
  const double *l = site.loading, *d = site_response(site, work);
  if (site.path) path_variances(work.filter, info, work.variance, work.n);
  for (int64_t t = 0; t < site.periods; ++t) {
    double solved[2];
    solve_pair(h, d + 2 * t, solved);
    const double spread =
        d[2 * t] * solved[0] + d[2 * t + 1] * solved[1] + (site.path ? work.variance[t] : 0.0);
    if (!constant || work.x[t] > 0) work.spread[t] += weight * spread;
    for (int i = 0; i < 2; ++i) out.loading[2 * t + i] -= weight * info[t] * solved[i];
  }
  if (!site.path) return;
  double q[2] = {0, 0};  // R' X D: of W / 2, with u integrated out
  for (int64_t t = site.periods - 1; t >= 0; --t) {
    const double rho = work.filter.rho(t), s = work.filter.s(t);
    double solved[2];
    for (int i = 0; i < 2; ++i) q[i] = info[t] * d[2 * t + i] + work.filter.rho(t + 1) * q[i];
    solve_pair(h, q, solved);
    out.path[2 * t + 1] -= weight * s * (work.n[t] - q[0] * solved[0] - q[1] * solved[1]);
    if (t == 0) continue;
    const double* before = l + 2 * t - 2;
    const double* response = d + 2 * t - 2;
    out.path[2 * t] -=
        weight * (work.filter.filtered(t - 1) * rho * work.n[t] -
                  (before[0] - response[0]) * solved[0] - (before[1] - response[1]) * solved[1]);
  }
}

// `weight` is the incoming gradient of the value, `mode_weight` that of u^, `path_weight` of a^.
TR_HD void site_gradient(const CountModel& model, const SiteCounts& site, const double* u,
                         const double* path, double weight, const double* mode_weight,
                         const double* path_weight, SiteWork& work, SiteGradient& out) {
  const auto predictor = [&](int64_t t) {
    return site.eta[t] + site.loading[2 * t] * u[0] + site.loading[2 * t + 1] * u[1] +
           (path ? path[t] : 0.0);
  };
  for (int64_t t = 0; t < site.periods; ++t) {
    work.x[t] = work.third[t] = work.spread[t] = 0;
    if (!(site.weight[t] > 0)) continue;
    const double w = site.weight[t];
    const Jet<3, 0> l = count_log_likelihood<3, 0>(model, predictor(t), site.log_exposure[t],
                                                   site.low[t], site.high[t]);
    work.x[t] = -2 * w * l.v[2];
    work.third[t] = 3 * w * l.v[3];  // l3 = 6 v[3]
  }
  // The determinants. The last one is that of the matrix that the implicit part uses: -F'' if proper.
  double h[3];
  const double* l = site.loading;
  const Determinant det = bounded_determinant(site, work, h);
  if (det.small) determinant_gradient(site, work.p, h, weight * det.by_clamp, true, work, out);
  const double* x = det.proper ? work.x : work.p;
  if (det.proper) {
    if (det.small) site_factor(site, x, work, h);
    determinant_gradient(site, x, h, weight * det.by_full, false, work, out);
  }
  // The implicit part.
  double k[2], right[2] = {mode_weight[0], mode_weight[1]};
  for (int64_t t = 0; t < site.periods; ++t) {
    out.eta[t] = work.dual[t] = work.third[t] * work.spread[t];  // c
    if (!path) continue;
    work.dual[t] += path_weight[t];
    for (int i = 0; i < 2; ++i) right[i] -= path_weight[t] * l[2 * t + i];
  }
  site_solve(site, x, work, h, right, work.dual, work.path, k);
  for (int64_t t = 0; t < site.periods; ++t) {
    work.score[t] = 0;
    if (!(site.weight[t] > 0)) continue;
    const double w = site.weight[t];
    const Jet<3, 2> j = count_log_likelihood<3, 2>(model, predictor(t), site.log_exposure[t],
                                                   site.low[t], site.high[t]);
    const double along = l[2 * t] * k[0] + l[2 * t + 1] * k[1] + (path ? work.path[t] : 0.0);
    work.score[t] = w * j.v[1];
    out.eta[t] += weight * work.score[t] + 2 * w * j.v[2] * along;
    for (int i = 0; i < 2; ++i) out.loading[2 * t + i] += out.eta[t] * u[i] + work.score[t] * k[i];
    // q[m][i] is the coefficient of h^i: the second derivative in eta is twice q[m][2].
    const double by_second = work.spread[t];
    out.dispersion += w * (weight * j.q[0][0] + by_second * j.q[0][2] + j.q[0][1] * along);
    out.zero_logit += w * (weight * j.q[1][0] + by_second * j.q[1][2] + j.q[1][1] * along);
  }
  if (!path) return;
  double score = 0, dual = 0;  // R' r and R' dual
  for (int64_t t = site.periods - 1; t >= 0; --t) {
    const double next = work.filter.rho(t + 1);
    score = work.score[t] + next * score;
    dual = work.dual[t] + next * dual;
    out.path[2 * t + 1] += work.filter.s(t) * (weight * score * score + 2 * score * dual);
    if (t == 0) continue;
    out.path[2 * t] += weight * path[t - 1] * score + work.path[t - 1] * score + path[t - 1] * dual;
  }
}

struct SitePosterior {
  double *draw, *variance;  // [2 + periods] and [periods]
};

// A draw of (u - u^, a - a^) from N(0, H^-1), from standard normal noise [2 + periods], and
// Var(a_t), given the information work.p.
TR_HD void site_posterior(const SiteCounts& site, const double* noise, SiteWork& work,
                          SitePosterior& out) {
  double h[3], covariance[3];
  site_factor(site, work.p, work, h);
  const double inverse = 1 / determinant(h);
  covariance[0] = h[2] * inverse, covariance[1] = -h[1] * inverse, covariance[2] = h[0] * inverse;
  const double first = square_root(covariance[0]), cross = covariance[1] / first;
  double* u = out.draw;
  u[0] = first * noise[0];
  u[1] = cross * noise[0] + square_root(1 / h[2]) * noise[1];
  path_variances(work.filter, work.p, out.variance, work.n);
  for (int64_t t = 0; t < site.periods; ++t) {
    const double a = site.loading[2 * t] - work.response[2 * t],
                 b = site.loading[2 * t + 1] - work.response[2 * t + 1];
    out.variance[t] += a * a * covariance[0] + 2 * a * b * covariance[1] + b * b * covariance[2];
    work.columns[t] = -work.p[t] * (site.loading[2 * t] * u[0] + site.loading[2 * t + 1] * u[1]);
  }
  path_draw(work.filter, work.p, work.columns, noise + 2, work.solved, u + 2);
}

}  // namespace topreach::kernels
