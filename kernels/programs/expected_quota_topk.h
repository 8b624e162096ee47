// Expected top-K under quotas on disjoint groups, without sampling, for normal noise:
//
//   b_i = P(site i is in the best plan for the scores r + sigma z),  lower_g <= x(g) <= upper_g, sum x = K
//
// and its Jacobian J, which is symmetric. "At least one in each, then the best": lower 1, upper the
// group's size.
//
// Given the threshold t = u_i of site i, the groups are independent. Let P_j(t) = P(u_j > t), f_j the
// density of u_j, N_g(t) the number of g's sites above t, M_g = clip(N_g, lower_g, upper_g) - lower_g
// its part in the pool, and R = K - sum lower. Site i of group g is chosen at t if E_i(t) holds:
//
//   b_i = int f_i(t) E_i(t) dt,   E_i = E[A_g(N_{g-i})]
//   A_g(m) = 1 for m < lower,  P(sum_{h != g} M_h <= R - 1 - (m - lower)) for lower <= m < upper, else 0
//   J_ii = -int f_i' E_i dt,   J_ik = int f_i f_k dE_i/dP_k dt
//
// The law (distribution) of N_g is built site by site, and A_g is carried back through the same steps:
// alpha_n = A,
// alpha_{j-1}(m) = (1 - P_j) alpha_j(m) + P_j alpha_j(m + 1), E_j = sum_m law_{j-1}(m) alpha_j(m). So
// no site is divided out. The laws without group g are products of a prefix and a suffix of groups.
// J v is the derivative of all this along dP_k = f_k v_k, carried beside it: no Jacobian is formed.
// Every number is a chance or a tangent of one, so sums do not cancel.
//
// Laws are cut where they fall below kNegligible, and sites more than kQuotaNear sigma from t are above
// or below it for certain. Cost: O(nodes x S x width of a group's law), and as much for the pool. The
// nodes are those of quota_nodes.h.
#pragma once

#include <cstdint>
#include <vector>

#include "quota_nodes.h"

namespace topreach::kernels {

class ExpectedQuotaTopK {
 public:
  // group [S] in 0..groups - 1; lower and upper [groups]. It must be possible to meet the quotas
  // (QuotaTree checks this).
  ExpectedQuotaTopK(int64_t sites, int64_t k, int32_t groups, const int32_t* group,
                    const int64_t* lower, const int64_t* upper);

  // Writes b [S] to `value`, and J v [S] to `product` if v is not null. Scores are finite, sigma > 0.
  void run(const double* scores, double sigma, const double* v, double* value, double* product);

 private:
  // A law over first, first + 1, ..., and its tangent.
  struct Law {
    int64_t first = 0;
    std::vector<double> chance, tangent;
    int64_t end() const { return first + int64_t(chance.size()); }
  };
  struct Site {
    double p, f, tangent, slope;  // P, f, dP and -f'
    int32_t site;
  };
  bool attempt(const double* scores, const std::vector<double>& sorted, double sigma,
               const double* v, const QuotaNodes& nodes, double* value, double* product);
  void node(const double* scores, double sigma, const double* v, double t, double weight, int odd);
  void build_law(int32_t g, bool tangents);
  void pool_laws(bool tangents);
  void results(int32_t g, bool tangents, double weight, int odd, const double* v);

  int64_t sites_, rest_;  // rest: R
  int32_t groups_;
  std::vector<int64_t> begin_;   // [groups + 1], places in member_
  std::vector<int32_t> member_;  // sites by group, in each by falling score
  std::vector<int64_t> lower_, upper_;
  // Of one node: sites near t by group, the sites above it for certain, laws.
  std::vector<std::vector<Site>> near_;
  std::vector<int64_t> above_;
  std::vector<std::vector<Law>> steps_;      // law after each near site, counted from above_
  std::vector<Law> pool_, prefix_, suffix_;  // of M_g, of groups before g, of groups from g on
  bool pool_full_ = false;
  std::vector<double> sum_[2], product_[2];
  std::vector<double> alpha_, alpha_tangent_, cumulative_, cumulative_tangent_;
};

}  // namespace topreach::kernels
