// The site that a site changes places with, under quotas on disjoint groups. The conditional estimator
// of the expected plan needs it for each draw u = r + sigma z.
//
// If i leaves the best plan for u, or joins it, one other site a(i) takes or gives up the place:
//   i chosen:  the best unchosen site of its own group, or, if the group has more than `lower`, of any
//              group with less than `upper`
//   else:      the worst chosen site of its own group, or, if the group has less than `upper`, of any
//              group with more than `lower`
// Without such a site i is in every plan, or in none. a(i) does not depend on u_i, so
//   b_i = E[1 - F((u_a - r_i) / sigma)],   (J v)_i = E[f_i(u_a) (v_i - v_a)]
// is unbiased. O(S + G) a draw.
#pragma once

#include <cstdint>
#include <vector>

namespace topreach::kernels {

template <typename T>
class QuotaExchange {
 public:
  // u [S]; chosen [K] is the best plan for u; group [S] in 0..groups - 1; lower, upper [groups]. `fill`
  // reads the arrays; `partner` reads `group` again.
  void fill(const T* u, int64_t sites, const int32_t* chosen, int64_t k, int32_t groups,
            const int32_t* group, const int64_t* lower, const int64_t* upper) {
    u_ = u;
    group_ = group;
    in_.assign(size_t(sites), 0);
    groups_.assign(size_t(groups), Group{});
    for (int64_t i = 0; i < k; ++i) {
      in_[size_t(chosen[i])] = 1;
      ++groups_[size_t(group[chosen[i]])].count;
    }
    for (int64_t s = 0; s < sites; ++s) {
      Group& g = groups_[size_t(group[s])];
      if (in_[size_t(s)])
        g.worst = worse(g.worst, int32_t(s));
      else
        g.best = better(g.best, int32_t(s));
    }
    best_ = worst_ = -1;
    for (int32_t i = 0; i < groups; ++i) {
      Group& g = groups_[size_t(i)];
      g.may_give = g.count > lower[i];
      g.may_take = g.count < upper[i];
      if (g.may_take) best_ = better(best_, g.best);
      if (g.may_give) worst_ = worse(worst_, g.worst);
    }
  }
  bool is_chosen(int32_t i) const { return in_[size_t(i)] != 0; }
  // a(i), or -1.
  int32_t partner(int32_t i) const {
    const Group& g = groups_[size_t(group_[i])];
    if (is_chosen(i)) return g.may_give ? better(g.best, best_) : g.best;
    return g.may_take ? worse(g.worst, worst_) : g.worst;
  }

 private:
  struct Group {
    int64_t count = 0;
    int32_t best = -1, worst = -1;  // the best unchosen site, the worst chosen one; -1: none
    bool may_give = false, may_take = false;
  };
  bool before(int32_t a, int32_t b) const { return u_[a] > u_[b] || (u_[a] == u_[b] && a < b); }
  int32_t better(int32_t a, int32_t b) const { return b < 0 || (a >= 0 && before(a, b)) ? a : b; }
  int32_t worse(int32_t a, int32_t b) const { return b < 0 || (a >= 0 && before(b, a)) ? a : b; }

  const T* u_ = nullptr;
  const int32_t* group_ = nullptr;
  std::vector<char> in_;
  std::vector<Group> groups_;
  int32_t best_ = -1, worst_ = -1;
};

}  // namespace topreach::kernels
