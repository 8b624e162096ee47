// Gaussian Markov path over the periods: solves with its covariance, variances and draws, in O(T).
//
//   a_t = rho_t a_{t-1} + s_t e_t,  e_t ~ N(0, 1),  a_0 = 0;   K = Cov(a) = R diag(s^2) R',
//   R = (I - the shift by rho)^-1
// AR(1) with standard deviation sigma: rho_t = phi^dt, s_t = sigma sqrt(1 - rho_t^2), rho_1 = 0; a
// random walk: rho_t = 1, s_t = sigma sqrt(dt), s_1 = 0. Nothing is divided by s: it may be 0.
//
// With X = diag(x), x_t the information of period t about a_t, the Kalman filter and smoother give
//   P_t = rho_t^2 P_{t-1} / F_{t-1} + s_t^2,  F_t = 1 + x_t P_t,  det(I + X K) = prod_t F_t
//   (I + X K) l = q and a = K l:  m_t = rho_t (m + P e / F)_{t-1},  e_t = q_t - x_t m_t, and then
//     backwards  c_t = rho_{t+1} r_{t+1},  l_t = (e_t - x_t P_t c_t) / F_t,  r_t = l_t + c_t,
//     a_t = m_t + P_t r_t
//   N_t = (x_t + rho_{t+1}^2 N_{t+1} / F_t) / F_t  = (R' (I + X K)^-1 X R)_tt
//   Var(a_t | all) = Q_t (1 - Q_t rho_{t+1}^2 N_{t+1}),  Q_t = P_t / F_t
// (Kalman 1960; de Jong 1989 for the smoother without inverses; Carter and Kohn 1994 for the draw.)
// x_t may be negative as long as every F_t > 0.
#pragma once

#include "special.h"

namespace topreach::kernels {

struct PathFilter {     // arrays of `periods`
  const double* steps;  // [periods, 2]: rho_t, s_t
  int64_t periods;
  double *predicted, *shrink;  // P_t, 1 / F_t

  TR_HD double rho(int64_t t) const { return t < periods ? steps[2 * t] : 0.0; }
  TR_HD double s(int64_t t) const { return steps[2 * t + 1]; }
  TR_HD double filtered(int64_t t) const { return predicted[t] * shrink[t]; }  // Q_t
};

// P_t and F_t; false if some F_t <= 0.
TR_HD bool path_filter(PathFilter& path, const double* x) {
  bool proper = true;
  for (int64_t t = 0; t < path.periods; ++t) {
    const double before = t > 0 ? path.filtered(t - 1) : 0.0, rho = path.rho(t), s = path.s(t);
    path.predicted[t] = rho * rho * before + s * s;
    const double f = 1 + x[t] * path.predicted[t];
    proper = proper && f > 0;
    path.shrink[t] = 1 / f;
  }
  return proper;
}

// log det(I + X K)
TR_HD double path_log_determinant(const PathFilter& path) {
  double sum = 0;
  for (int64_t t = 0; t < path.periods; ++t) sum -= natural_log(path.shrink[t]);
  return sum;
}

// Solves (I + X K) l = q and a = K l for `columns` right-hand sides, arrays [periods, columns]; l may be q.
template <int columns>
TR_HD void path_solve(const PathFilter& path, const double* x, const double* q, double* l,
                      double* a) {
  double m[columns] = {}, r[columns] = {};
  for (int64_t t = 0; t < path.periods; ++t) {
    const double rho = path.rho(t);
    for (int i = 0; i < columns; ++i) {
      const int64_t at = columns * t + i;
      a[at] = rho * m[i];
      l[at] = q[at] - x[t] * a[at];
      m[i] = a[at] + path.filtered(t) * l[at];
    }
  }
  for (int64_t t = path.periods - 1; t >= 0; --t) {
    const double rho = path.rho(t + 1);
    for (int i = 0; i < columns; ++i) {
      const int64_t at = columns * t + i;
      const double c = rho * r[i];
      l[at] = (l[at] - x[t] * path.predicted[t] * c) * path.shrink[t];
      r[i] = l[at] + c;
      a[at] += path.predicted[t] * r[i];
    }
  }
}

// Var(a_t | all) and N_t, [periods] each.
TR_HD void path_variances(const PathFilter& path, const double* x, double* variance, double* n) {
  double after = 0;
  for (int64_t t = path.periods - 1; t >= 0; --t) {
    const double next = path.rho(t + 1) * path.rho(t + 1) * after;
    variance[t] = path.filtered(t) * (1 - path.filtered(t) * next);
    after = n[t] = (x[t] + next * path.shrink[t]) * path.shrink[t];
  }
}

// A draw of the path given the information x and its vector q = x times what was observed, from
// standard normal `noise` [periods], which may be `a`.
TR_HD void path_draw(const PathFilter& path, const double* x, const double* q, const double* noise,
                     double* mean, double* a) {
  double m = 0;
  for (int64_t t = 0; t < path.periods; ++t) {
    m *= path.rho(t);
    m += path.filtered(t) * (q[t] - x[t] * m);
    mean[t] = m;
  }
  for (int64_t t = path.periods - 1; t >= 0; --t) {
    const double variance = path.filtered(t), rho = path.rho(t + 1);
    const double s = t + 1 < path.periods ? path.s(t + 1) : 1.0, step = s * s;
    const double ahead = rho * rho * variance + step;  // of the next value, given the past
    const double gain = ahead > 0 ? rho * variance / ahead : 0.0;
    const double next = t + 1 < path.periods ? a[t + 1] : 0.0;
    const double spread = ahead > 0 ? variance * step / ahead : variance;
    a[t] = mean[t] + gain * (next - rho * mean[t]) + square_root(spread) * noise[t];
  }
}

}  // namespace topreach::kernels
