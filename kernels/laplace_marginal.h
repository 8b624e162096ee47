// Laplace's approximation to the marginal likelihood of one site with two Gaussian effects and, if
// wanted, a Gaussian path over the periods; and its exact gradient.
//
//   y_t ~ family(eta_t + v_t.z),  v_t.z = l_t.u + a_t,  z = (u, e) ~ N(0, I),  l_t = L' (1, t),
//   L L' = Sigma,  a the path of site_path.h, driven by e; 0 where there is none
//   F(z) = sum_t w_t log p(y_t | eta_t + v_t.z) - z.z / 2
//   log p(y) ~ F(z^) - log det H(z^) / 2,   z^ = argmax F,   H = I + sum_t w_t p(x_t) v_t v_t'
// (Tierney and Kadane 1986; Skaug and Fournier 2006 for the gradient.) With effects written as L u
// and the path driven by e, nothing is divided by a standard deviation: Sigma may be singular, or 0,
// and so may the path's variance.
//
// l1, l2, l3: derivatives of log p in eta; x = -l2 is the observed information. p(x) = x for x >= 0,
// so H is -F'' of the counts observed wherever log p is concave: always for Poisson and NB2, mostly
// for NB1 with intervals and extra zeros. There x may be negative, and -F'' could be singular at a
// mode: then Laplace's approximation is infinite. So p(x) = x / (1 - c x) for x < 0,
// c = 2 sum_t w_t v_t.v_t, which has the value and the slope of x at 0, and keeps H >= I / 2.
//
// The path is integrated out first. With [l] the matrix of rows l_t, X = diag(w x), K = Cov(a) and
// D = (I + K X)^-1 [l], which is [l] less what the path takes up of it,
//   h = I + sum_t X_t l_t D_t'  is the precision of u,   det H = det h det(I + X K)
//   (I + X (K + [l] [l]')) dual = q:  dual = S q - X D k,  h k = [l]' S q,  S = (I + X K)^-1
// At the mode u = [l]' r and a = K r, r_t = w_t l1_t: so u and a are kept by their dual, which is r
// in the end, and K is never inverted.
//
// Gradient: h_t = v_t' H^-1 v_t is the variance of eta_t, c_t = w_t p'(x_t) l3_t h_t / 2; g, m and n
// are the incoming gradients of the value, u^ and a^; k = m - [l]' n + [l]' dual, b = K dual, where
// dual = g c + n - X ([l] k + b); K_t = w_t l2_t (l_t.k + b_t). Implicit differentiation of
// F'(z^) = 0 gives
//   d/d eta_t:  g (w_t l1_t + c_t) + K_t
//   d/d l_t:    (d/d eta_t) u^ + w_t l1_t k - g w_t p(x_t) h^-1 D_t, and what comes through c
//   d/d d:      sum_t w_t [g (l_d + p'(x_t) h_t l2_d / 2) + l1_d (l_t.k + b_t)]     (and so for z)
//   d/d K:      g r r' / 2 + (dual r' + r dual') / 2 - g W / 2, W = (P^-1 + K + [l] [l]')^-1 with
//               P = diag(w p(x)), and what comes through c; K depends on rho_t and s_t by R
//
// The mode: Newton from z = 0, with H where -F'' is not positive definite; steps move no predictor by
// more than 8, and are halved until F rises enough, so each one makes it rise. Once a step is below
// 1e-3 standard deviations full ones are taken, which square the error, to 1e-15. Cost: O(T) times
// about 6 steps.
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

constexpr int64_t kSiteScratch = 20;  // doubles per period that a site's work takes

struct SiteWork {  // of kSiteScratch * periods doubles
  SiteWork(const SiteCounts& site, double* scratch)
      : filter{site.path, site.periods, nullptr, nullptr} {
    const auto take = [&](int64_t columns) {
      double* taken = scratch;
      scratch += columns * site.periods;
      return taken;
    };
    score = take(1), x = take(1), p = take(1), third = take(1), dual = take(1), move = take(1);
    path = take(1), path_move = take(1), variance = take(1), n = take(1), prior = take(1);
    filter.predicted = take(1), filter.shrink = take(1);
    response = take(2), columns = take(2), solved = take(2), bend = take(1);
  }

  PathFilter filter;
  double *score, *x, *p;                   // w l1, w x and w p(x) of every count
  double *third, *bend;                    // w p'(x) l3 / 2 and w dp/dc
  double *dual, *path, *move, *path_move;  // of u^ and a^, and of a step of theirs
  double *response, *columns, *solved;     // D; right-hand sides [periods, 2] and their solutions
  double *variance, *n, *prior;            // Var(a_t | u, all), N_t, Var(a_t)
};

struct SiteMode {
  double u[2];
  double h[3];   // h: h00, h01, h11
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

// c; fills work.prior where there is a path.
TR_HD double bend_of(const SiteCounts& site, SiteWork& work) {
  double sum = 0, variance = 0;
  for (int64_t t = 0; t < site.periods; ++t) {
    const double a = site.loading[2 * t], b = site.loading[2 * t + 1];
    if (site.path) {
      const double rho = site.path[2 * t], s = site.path[2 * t + 1];
      work.prior[t] = variance = (t > 0 ? rho * rho * variance : 0) + s * s;
    }
    if (site.weight[t] > 0) sum += site.weight[t] * (a * a + b * b + variance);
  }
  return 2 * sum;
}

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

// h, and what site_solve needs, with information x [periods]; false where H is not positive
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

// (I + X (K + [l] [l]')) dual = q and k = right + [l]' dual, path = K dual. dual holds q before,
// and path is not touched where there is none.
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

// work.p from work.x; whether they differ.
TR_HD bool bend_information(const SiteCounts& site, double bend, SiteWork& work) {
  bool differ = false;
  for (int64_t t = 0; t < site.periods; ++t) {
    work.p[t] = work.x[t];
    if (work.x[t] < 0) {
      work.p[t] = site.weight[t] * information_of(work.x[t] / site.weight[t], bend).value;
      differ = true;
    }
  }
  return differ;
}

// The mode; work.path is its path, and work.p the information there.
TR_HD SiteMode site_mode(const CountModel& model, const SiteCounts& site, SiteWork& work) {
  constexpr int kSteps = 200, kHalvings = 60;
  constexpr double kLongest = 8, kClose = 1e-6, kEnd = 1e-15, kNone[2] = {0, 0};
  const double bend = bend_of(site, work);
  for (int64_t t = 0; t < site.periods; ++t)
    work.dual[t] = work.path[t] = work.move[t] = work.path_move[t] = 0;
  SiteMode mode{};
  double value = site_objective(model, site, mode.u, 0, work), before = kInfinity;
  for (int step = 0; step < kSteps && value - value == 0; ++step) {
    const bool proper = site_factor(site, work.x, work, mode.h);
    const double* x = work.x;
    if (!proper) {
      bend_information(site, bend, work);
      site_factor(site, x = work.p, work, mode.h);
    }
    for (int64_t t = 0; t < site.periods; ++t) work.move[t] = work.score[t] - work.dual[t];
    double move[2];
    site_solve(site, x, work, mode.h, kNone, work.move, work.path_move, move);
    double slope = 0, longest = 0;  // slope: twice the rise
    for (int64_t t = 0; t < site.periods; ++t) {
      double a = site.loading[2 * t] * move[0] + site.loading[2 * t + 1] * move[1];
      if (site.path) a += work.path_move[t];
      slope += (work.score[t] - work.dual[t]) * a;
      longest = a > longest ? a : (-a > longest ? -a : longest);
    }
    const bool close = proper && slope < kClose;
    double factor = longest > kLongest ? kLongest / longest : 1.0, next = 0, trial[2];
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
  bend_information(site, bend, work);
  site_factor(site, work.p, work, mode.h);
  mode.value = value - 0.5 * natural_log(determinant(mode.h));
  if (site.path) mode.value -= 0.5 * path_log_determinant(work.filter);
  return mode;
}

struct SiteGradient {
  double *eta, *loading, *path;  // [periods], [periods, 2] twice: the last two are added to
  double dispersion, zero_logit;
};

// `weight` is the incoming gradient of the value, `mode_weight` that of u^, `path_weight` of a^.
TR_HD void site_gradient(const CountModel& model, const SiteCounts& site, const double* u,
                         const double* path, double weight, const double* mode_weight,
                         const double* path_weight, SiteWork& work, SiteGradient& out) {
  const double bend = bend_of(site, work);
  const auto predictor = [&](int64_t t) {
    return site.eta[t] + site.loading[2 * t] * u[0] + site.loading[2 * t + 1] * u[1] +
           (path ? path[t] : 0.0);
  };
  for (int64_t t = 0; t < site.periods; ++t) {
    work.x[t] = work.p[t] = work.third[t] = work.bend[t] = 0;
    if (!(site.weight[t] > 0)) continue;
    const double w = site.weight[t];
    const Jet<3, 0> l = count_log_likelihood<3, 0>(model, predictor(t), site.log_exposure[t],
                                                   site.low[t], site.high[t]);
    const Information p = information_of(-2 * l.v[2], bend);
    work.x[t] = -2 * w * l.v[2];
    work.p[t] = w * p.value;
    work.third[t] = w * 3 * p.slope * l.v[3];  // l3 = 6 v[3]
    work.bend[t] = w * p.by_bend;
  }
  // What comes of the determinant alone, with H.
  double h[3], by_bend = 0;
  site_factor(site, work.p, work, h);
  const double *l = site.loading, *d = site_response(site, work);
  if (path) path_variances(work.filter, work.p, work.variance, work.n);
  bool bent = false;
  for (int64_t t = 0; t < site.periods; ++t) {
    double solved[2];
    solve_pair(h, d + 2 * t, solved);
    double& h_t = work.variance[t];
    h_t = d[2 * t] * solved[0] + d[2 * t + 1] * solved[1] + (path ? h_t : 0.0);
    by_bend -= 0.5 * weight * work.bend[t] * h_t;
    bent = bent || work.x[t] != work.p[t];
    for (int i = 0; i < 2; ++i) out.loading[2 * t + i] -= weight * work.p[t] * solved[i];
  }
  if (path) {  // - weight W / 2, whose u is integrated out: q = R' P D
    double q[2] = {0, 0};
    for (int64_t t = site.periods - 1; t >= 0; --t) {
      const double rho = work.filter.rho(t), s = work.filter.s(t);
      double solved[2];
      for (int i = 0; i < 2; ++i) q[i] = work.p[t] * d[2 * t + i] + work.filter.rho(t + 1) * q[i];
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
  // The implicit part, with -F'' if it is positive definite.
  double curvature[3], k[2], right[2] = {mode_weight[0], mode_weight[1]};
  const double* x = work.x;
  if (!bent) {
    for (int i = 0; i < 3; ++i) curvature[i] = h[i];
  } else if (!site_factor(site, x, work, curvature)) {
    site_factor(site, x = work.p, work, curvature);
  }
  for (int64_t t = 0; t < site.periods; ++t) {
    out.eta[t] = work.dual[t] = weight * work.third[t] * work.variance[t];  // c
    if (!path) continue;
    work.dual[t] += path_weight[t];
    for (int i = 0; i < 2; ++i) right[i] -= path_weight[t] * l[2 * t + i];
  }
  site_solve(site, x, work, curvature, right, work.dual, work.path, k);
  for (int64_t t = 0; t < site.periods; ++t) {
    work.score[t] = 0;
    if (!(site.weight[t] > 0)) continue;
    const double w = site.weight[t];
    const Jet<3, 2> j = count_log_likelihood<3, 2>(model, predictor(t), site.log_exposure[t],
                                                   site.low[t], site.high[t]);
    const Information p = information_of(-2 * j.v[2], bend);
    const double along = l[2 * t] * k[0] + l[2 * t + 1] * k[1] + (path ? work.path[t] : 0.0);
    work.score[t] = w * j.v[1];
    out.eta[t] += weight * work.score[t] + 2 * w * j.v[2] * along;
    for (int i = 0; i < 2; ++i)
      out.loading[2 * t + i] +=
          out.eta[t] * u[i] + work.score[t] * k[i] + 4 * w * by_bend * l[2 * t + i];
    // q[m][i] is the coefficient of h^i: the second derivative in eta is twice q[m][2].
    const double half = p.slope * work.variance[t];
    out.dispersion += w * (weight * (j.q[0][0] + half * j.q[0][2]) + j.q[0][1] * along);
    out.zero_logit += w * (weight * (j.q[1][0] + half * j.q[1][2]) + j.q[1][1] * along);
  }
  if (!path) return;
  double score = 0, dual = 0, weights = 0;  // R' r, R' dual and R' diag(w) R
  for (int64_t t = site.periods - 1; t >= 0; --t) {
    const double next = work.filter.rho(t + 1), rho = work.filter.rho(t);
    score = work.score[t] + next * score;
    dual = work.dual[t] + next * dual;
    weights = (site.weight[t] > 0 ? site.weight[t] : 0) + next * next * weights;
    out.path[2 * t + 1] +=
        work.filter.s(t) * (weight * score * score + 2 * score * dual + 4 * by_bend * weights);
    if (t == 0) continue;
    out.path[2 * t] += weight * path[t - 1] * score + work.path[t - 1] * score +
                       path[t - 1] * dual + 4 * by_bend * work.prior[t - 1] * rho * weights;
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
