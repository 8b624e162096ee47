// Adaptive Gauss-Hermite quadrature of the marginal likelihood of one site over its two effects, and
// its exact gradient. laplace_marginal.h has the model, F, u^ and H; there is no path here.
//
//   log p(y) ~ log |A| + log sum_q w_q exp(F(u_q) + z_q.z_q / 2),  u_q = u^ + A z_q,  A A' = H^-1,
//   z_q the n x n grid of Gauss-Hermite nodes and w_q the products of their weights
// (Liu and Pierce 1994; Pinheiro and Bates 1995.) A = C'^-1 with H = C C' by Cholesky. One node is
// Laplace's approximation. If det H is small, the negative X_t are set to 0 in A: any A gives the
// same integral in the limit, and nodes spread by a nearly singular H miss it.
//
// Gradient, with s_q the share of node q in the sum, F' the gradient of F in u:
//   a = sum_q s_q F'(u_q),  B = sum_q s_q F'(u_q) z_q',  P = A'B,
//   Q = I + (P with its upper triangle mirrored),  M = A Q A'
// is minus twice the gradient for H, and a that for u^. So the formulas of Laplace hold with M in the
// place of H^-1, sum_q s_q (...) at u_q in the place of (...) at u^, and a added to the gradient for u^.
// Cost O(n^2 T).
#pragma once

#include "laplace_marginal.h"

namespace topreach::kernels {

struct QuadratureRule {  // of one dimension, for the standard normal density
  const double *nodes, *log_weights;
  int count;
};

// A = [[root[0], root[1]], [0, root[2]]] from h = (h00, h01, h11).
TR_HD void quadrature_root(const double* h, double* root) {
  const double a = square_root(h[0]), b = h[1] / a, c = square_root(h[2] - b * b);
  root[0] = 1 / a;
  root[1] = -b / (a * c);
  root[2] = 1 / c;
}

struct QuadratureNode {
  double z[2], u[2], log_term;  // log_term: log w_q + F(u_q) + z_q.z_q / 2
};

// F at u: no path, and nothing is kept.
TR_HD double site_log_joint(const CountModel& model, const SiteCounts& site, const double* u) {
  double value = -0.5 * (u[0] * u[0] + u[1] * u[1]);
  for (int64_t t = 0; t < site.periods; ++t) {
    if (!(site.weight[t] > 0)) continue;
    const double at = site.eta[t] + site.loading[2 * t] * u[0] + site.loading[2 * t + 1] * u[1];
    value +=
        site.weight[t] *
        count_log_likelihood<2, 0>(model, at, site.log_exposure[t], site.low[t], site.high[t]).v[0];
  }
  return value;
}

TR_HD QuadratureNode quadrature_node(const CountModel& model, const SiteCounts& site,
                                     const QuadratureRule& rule, const double* mode,
                                     const double* root, int i, int j) {
  QuadratureNode q{{rule.nodes[i], rule.nodes[j]}, {}, 0};
  q.u[0] = mode[0] + root[0] * q.z[0] + root[1] * q.z[1];
  q.u[1] = mode[1] + root[2] * q.z[1];
  q.log_term = rule.log_weights[i] + rule.log_weights[j] + site_log_joint(model, site, q.u) +
               0.5 * (q.z[0] * q.z[0] + q.z[1] * q.z[1]);
  return q;
}

// log sum_q exp(log_term). A node where F overflows adds nothing.
TR_HD double quadrature_log_sum(const CountModel& model, const SiteCounts& site,
                                const QuadratureRule& rule, const double* mode,
                                const double* root) {
  double top = -kInfinity, sum = 0;
  for (int i = 0; i < rule.count; ++i) {
    for (int j = 0; j < rule.count; ++j) {
      const double term = quadrature_node(model, site, rule, mode, root, i, j).log_term;
      if (!(term > -kInfinity && term < kInfinity)) continue;
      if (term > top) {
        sum = sum * exponential_of(top - term) + 1;
        top = term;
      } else {
        sum += exponential_of(term - top);
      }
    }
  }
  return top + natural_log(sum);
}

// The marginal log-likelihood, about the mode and the precision that site_mode found.
TR_HD double site_quadrature(const CountModel& model, const SiteCounts& site, const SiteMode& mode,
                             const QuadratureRule& rule) {
  if (!(mode.value - mode.value == 0)) return mode.value;
  double root[3];
  quadrature_root(mode.h, root);
  return natural_log(root[0] * root[2]) + quadrature_log_sum(model, site, rule, mode.u, root);
}

// As site_gradient, without a path.
TR_HD void site_quadrature_gradient(const CountModel& model, const SiteCounts& site,
                                    const double* mode, double weight, const double* mode_weight,
                                    const QuadratureRule& rule, SiteWork& work, SiteGradient& out) {
  const double* l = site.loading;
  const auto predictor = [&](int64_t t, const double* u) {
    return site.eta[t] + l[2 * t] * u[0] + l[2 * t + 1] * u[1];
  };
  for (int64_t t = 0; t < site.periods; ++t) {
    work.x[t] = work.third[t] = 0;
    if (!(site.weight[t] > 0)) continue;
    const double w = site.weight[t];
    const Jet<3, 0> j = count_log_likelihood<3, 0>(model, predictor(t, mode), site.log_exposure[t],
                                                   site.low[t], site.high[t]);
    work.x[t] = -2 * w * j.v[2];
    work.third[t] = 3 * w * j.v[3];
  }
  double h[3], curvature[3], root[3];
  const Determinant det = bounded_determinant(site, work, h);
  const bool clamped = det.small;
  for (int i = 0; i < 3; ++i) curvature[i] = h[i];
  if (det.small && det.proper) site_factor(site, work.x, work, curvature);
  quadrature_root(h, root);

  // The sums over the nodes. work.score holds sum_q s_q w l1 of every count.
  const double total = quadrature_log_sum(model, site, rule, mode, root);
  double a[2] = {0, 0}, b[4] = {0, 0, 0, 0};
  for (int64_t t = 0; t < site.periods; ++t) work.score[t] = 0;
  for (int i = 0; i < rule.count; ++i) {
    for (int k = 0; k < rule.count; ++k) {
      const QuadratureNode q = quadrature_node(model, site, rule, mode, root, i, k);
      if (!(q.log_term > -kInfinity && q.log_term < kInfinity)) continue;
      const double share = exponential_of(q.log_term - total);
      if (!(share > 1e-20)) continue;
      double slope[2] = {-q.u[0], -q.u[1]};  // F'
      for (int64_t t = 0; t < site.periods; ++t) {
        if (!(site.weight[t] > 0)) continue;
        const double w = site.weight[t];
        const Jet<2, 2> j = count_log_likelihood<2, 2>(
            model, predictor(t, q.u), site.log_exposure[t], site.low[t], site.high[t]);
        const double score = w * j.v[1];
        work.score[t] += share * score;
        for (int m = 0; m < 2; ++m) {
          slope[m] += score * l[2 * t + m];
          out.loading[2 * t + m] += weight * share * score * q.u[m];
        }
        out.dispersion += weight * share * w * j.q[0][0];
        out.zero_logit += weight * share * w * j.q[1][0];
      }
      for (int m = 0; m < 2; ++m) {
        a[m] += share * slope[m];
        for (int n = 0; n < 2; ++n) b[2 * m + n] += share * slope[m] * q.z[n];
      }
    }
  }

  // M, by way of P = A'B and Q.
  const double q00 = 1 + root[0] * b[0], q01 = root[0] * b[1],
               q11 = 1 + root[1] * b[1] + root[2] * b[3];
  const double m01 = root[2] * (root[0] * q01 + root[1] * q11), m11 = root[2] * root[2] * q11,
               m00 =
                   root[0] * root[0] * q00 + 2 * root[0] * root[1] * q01 + root[1] * root[1] * q11;
  double right[2] = {mode_weight[0] + weight * a[0], mode_weight[1] + weight * a[1]}, k[2];
  for (int64_t t = 0; t < site.periods; ++t) {
    const double first = m00 * l[2 * t] + m01 * l[2 * t + 1],
                 second = m01 * l[2 * t] + m11 * l[2 * t + 1];
    const bool cut = clamped && work.x[t] < 0;
    work.variance[t] = cut ? 0.0 : l[2 * t] * first + l[2 * t + 1] * second;
    out.loading[2 * t] -= weight * work.p[t] * first;
    out.loading[2 * t + 1] -= weight * work.p[t] * second;
    out.eta[t] = weight * work.third[t] * work.variance[t];  // c
    for (int m = 0; m < 2; ++m) right[m] += out.eta[t] * l[2 * t + m];
  }
  solve_pair(curvature, right, k);
  for (int64_t t = 0; t < site.periods; ++t) {
    if (!(site.weight[t] > 0)) continue;
    const double w = site.weight[t];
    const Jet<3, 2> j = count_log_likelihood<3, 2>(model, predictor(t, mode), site.log_exposure[t],
                                                   site.low[t], site.high[t]);
    const double along = l[2 * t] * k[0] + l[2 * t + 1] * k[1];
    const double implicit = out.eta[t] + 2 * w * j.v[2] * along;
    for (int m = 0; m < 2; ++m) out.loading[2 * t + m] += implicit * mode[m] + w * j.v[1] * k[m];
    out.eta[t] = implicit + weight * work.score[t];
    const double by_second = weight * work.variance[t];
    out.dispersion += w * (by_second * j.q[0][2] + j.q[0][1] * along);
    out.zero_logit += w * (by_second * j.q[1][2] + j.q[1][1] * along);
  }
}

}  // namespace topreach::kernels
