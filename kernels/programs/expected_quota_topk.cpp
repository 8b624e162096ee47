#include "expected_quota_topk.h"

#include <algorithm>
#include <cmath>

#include "../special.h"

namespace topreach::kernels {
namespace {

constexpr double kNegligible = 1e-17;  // of a chance

// Drops negligible entries at both ends.
template <typename Law>
void trim(Law& law) {
  auto& c = law.chance;
  size_t end = c.size(), begin = 0;
  while (end > 0 && c[end - 1] < kNegligible) --end;
  while (begin < end && c[begin] < kNegligible) ++begin;
  c.resize(end);
  c.erase(c.begin(), c.begin() + int64_t(begin));
  law.tangent.resize(end);
  law.tangent.erase(law.tangent.begin(), law.tangent.begin() + int64_t(begin));
  law.first += int64_t(begin);
}

// The law of the sum of two independent counts, as far as it lies below `end`.
template <typename Law>
void convolve(const Law& a, const Law& b, int64_t end, bool tangents, Law& sum) {
  sum.first = a.first + b.first;
  const int64_t full = int64_t(a.chance.size()) + int64_t(b.chance.size()) - 1;
  const int64_t count = a.chance.empty() || b.chance.empty() ? 0 : std::min(full, end - sum.first);
  sum.chance.assign(size_t(std::max<int64_t>(count, 0)), 0.0);
  sum.tangent.assign(sum.chance.size(), 0.0);
  for (int64_t j = 0; j < int64_t(b.chance.size()) && j < count; ++j) {
    const double c = b.chance[size_t(j)], d = b.tangent[size_t(j)];
    const int64_t most = std::min(int64_t(a.chance.size()), count - j);
    const double *from = a.chance.data(), *from_tangent = a.tangent.data();
    double *to = sum.chance.data() + j, *to_tangent = sum.tangent.data() + j;
    for (int64_t i = 0; i < most; ++i) to[i] += c * from[i];
    if (!tangents) continue;
    for (int64_t i = 0; i < most; ++i) to_tangent[i] += c * from_tangent[i] + d * from[i];
  }
  trim(sum);
}

}  // namespace

ExpectedQuotaTopK::ExpectedQuotaTopK(int64_t sites, int64_t k, int32_t groups, const int32_t* group,
                                     const int64_t* lower, const int64_t* upper)
    : sites_(sites),
      rest_(k),
      groups_(groups),
      begin_(size_t(groups) + 1, 0),
      member_(size_t(sites)),
      lower_(lower, lower + groups),
      upper_(upper, upper + groups),
      near_(size_t(groups)),
      above_(size_t(groups)),
      steps_(size_t(groups)),
      pool_(size_t(groups)),
      prefix_(size_t(groups) + 1),
      suffix_(size_t(groups) + 1) {
  for (int64_t s = 0; s < sites; ++s) ++begin_[size_t(group[s]) + 1];
  for (size_t g = 0; g < size_t(groups); ++g) {
    upper_[g] = std::min(upper_[g], begin_[g + 1]);
    rest_ -= lower_[g];
    begin_[g + 1] += begin_[g];
  }
  std::vector<int64_t> next(begin_.begin(), begin_.end() - 1);
  for (int64_t s = 0; s < sites; ++s) member_[size_t(next[size_t(group[s])]++)] = int32_t(s);
}

void ExpectedQuotaTopK::run(const double* scores, double sigma, const double* v, double* value,
                            double* product) {
  std::vector<double> shifted;
  if (v) {  // J 1 = 0
    double mean = 0;
    for (int64_t s = 0; s < sites_; ++s) mean += v[s] / double(sites_);
    for (int64_t s = 0; s < sites_; ++s) shifted.push_back(v[s] - mean);
  }
  for (size_t g = 0; g < size_t(groups_); ++g)
    std::sort(member_.begin() + begin_[g], member_.begin() + begin_[g + 1],
              [&](int32_t a, int32_t b) {
                return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
              });
  std::vector<double> sorted(scores, scores + sites_);
  std::sort(sorted.begin(), sorted.end());
  const QuotaNodes nodes(sorted.front(), sorted.back(), rest_, sigma, [&](double t) {
    QuotaMoments pool;
    for (size_t g = 0; g < size_t(groups_); ++g) {
      QuotaMoments m;
      for (int64_t i = begin_[g]; i < begin_[g + 1]; ++i)
        m.add_site(scores[member_[size_t(i)]], t, sigma);
      pool.add_group(m, double(lower_[g]), double(upper_[g]));
    }
    return pool;
  });
  double refinement = 1;
  for (int i = 0; i < kQuotaAttempts; ++i, refinement *= 0.5)
    if (attempt(scores, sorted, sigma, v ? shifted.data() : nullptr, nodes.refined(refinement),
                value, product))
      return;
}

bool ExpectedQuotaTopK::attempt(const double* scores, const std::vector<double>& sorted,
                                double sigma, const double* v, const QuotaNodes& nodes,
                                double* value, double* product) {
  for (int odd = 0; odd < 2; ++odd) {
    sum_[odd].assign(size_t(sites_), 0.0);
    product_[odd].assign(v ? size_t(sites_) : 0, 0.0);
  }
  nodes.visit(sorted.data(), sites_, [&](double t, double weight, int64_t n) {
    node(scores, sigma, v, t, weight, int(n & 1));
  });

  bool agree = true;
  for (size_t i = 0; i < size_t(sites_); ++i) {
    value[i] = sum_[0][i] + sum_[1][i];
    agree = agree && std::abs(sum_[0][i] - sum_[1][i]) < 0.5 * kQuotaAgreement;
    if (v) product[i] = product_[0][i] + product_[1][i];
  }
  return agree;
}

void ExpectedQuotaTopK::node(const double* scores, double sigma, const double* v, double t,
                             double weight, int odd) {
  int64_t least = 0;
  for (size_t g = 0; g < size_t(groups_); ++g) {
    // Members are sorted by falling score.
    near_[g].clear();
    const auto end = member_.begin() + begin_[g + 1];
    const auto at = std::partition_point(member_.begin() + begin_[g], end, [&](int32_t site) {
      return scores[site] - t > kQuotaNear * sigma;
    });
    above_[g] = at - member_.begin() - begin_[g];
    for (auto i = at; i != end && scores[*i] - t >= -kQuotaNear * sigma; ++i) {
      const double z = (scores[*i] - t) / sigma, f = normal_pdf(z) / sigma;
      near_[g].push_back({normal_cdf(z), f, v ? f * v[*i] : 0.0, f * z / sigma, *i});
    }
    least += std::clamp(above_[g], lower_[g], upper_[g]) - lower_[g];
  }
  pool_full_ = least >= rest_;
  for (int32_t g = 0; g < groups_; ++g) {
    const auto i = size_t(g);
    if (!pool_full_ || (above_[i] < lower_[i] && !near_[i].empty())) build_law(g, v != nullptr);
  }
  if (!pool_full_) pool_laws(v != nullptr);
  for (int32_t g = 0; g < groups_; ++g) {
    const auto i = size_t(g);
    if (near_[i].empty() || above_[i] >= upper_[i]) continue;
    if (pool_full_ && above_[i] >= lower_[i]) continue;
    results(g, v != nullptr, weight, odd, v);
  }
}

// The law of how many near sites lie above t, after each of them; counts of upper and more are left
// out.
void ExpectedQuotaTopK::build_law(int32_t g, bool tangents) {
  const auto& sites = near_[size_t(g)];
  auto& steps = steps_[size_t(g)];
  const int64_t end = std::max<int64_t>(upper_[size_t(g)] - above_[size_t(g)], 0);
  if (steps.size() < sites.size() + 1) steps.resize(sites.size() + 1);
  steps[0].first = 0;
  steps[0].chance.assign(end > 0 ? 1 : 0, 1.0);
  steps[0].tangent.assign(steps[0].chance.size(), 0.0);
  for (size_t j = 0; j < sites.size(); ++j) {
    const Law& from = steps[j];
    Law& to = steps[j + 1];
    const double p = sites[j].p, q = 1 - p, dp = sites[j].tangent;
    const size_t n = from.chance.size();
    const size_t count = from.end() + 1 <= end || n == 0 ? n + (n > 0) : n;
    to.first = from.first;
    to.chance.resize(count);
    to.tangent.assign(count, 0.0);
    for (size_t m = 0; m < n; ++m) to.chance[m] = q * from.chance[m];
    if (count > n) to.chance[n] = 0;
    for (size_t m = 1; m < count; ++m) to.chance[m] += p * from.chance[m - 1];
    if (tangents) {
      for (size_t m = 0; m < n; ++m) to.tangent[m] = q * from.tangent[m] - dp * from.chance[m];
      for (size_t m = 1; m < count; ++m)
        to.tangent[m] += p * from.tangent[m - 1] + dp * from.chance[m - 1];
    }
    trim(to);
  }
}

void ExpectedQuotaTopK::pool_laws(bool tangents) {
  for (size_t g = 0; g < size_t(groups_); ++g) {
    const Law& law = steps_[g][near_[g].size()];
    Law& pool = pool_[g];
    const int64_t width = upper_[g] - lower_[g];
    const auto part = [&](int64_t m) { return std::max(above_[g] + m - lower_[g], int64_t(0)); };
    pool.first = law.chance.empty() ? width : part(law.first);
    pool.chance.assign(size_t(width - pool.first) + 1, 0.0);
    pool.tangent.assign(pool.chance.size(), 0.0);
    double sum = 0, tangent = 0;
    for (size_t m = 0; m < law.chance.size(); ++m) {
      const auto at = size_t(part(law.first + int64_t(m)) - pool.first);
      pool.chance[at] += law.chance[m];
      pool.tangent[at] += law.tangent[m];
      sum += law.chance[m];
      tangent += law.tangent[m];
    }
    if (law.chance.empty() || above_[g] + int64_t(near_[g].size()) >= upper_[g]) {
      pool.chance.back() += std::max(1 - sum, 0.0);
      pool.tangent.back() -= tangent;
    }
    trim(pool);
  }
  const auto certain = [](Law& law) {
    law.first = 0;
    law.chance.assign(1, 1.0);
    law.tangent.assign(1, 0.0);
  };
  const auto last = size_t(groups_);
  certain(prefix_[0]);
  certain(suffix_[last]);
  for (size_t g = 0; g < last; ++g) {
    convolve(prefix_[g], pool_[g], rest_, tangents, prefix_[g + 1]);
    convolve(suffix_[last - g], pool_[last - g - 1], rest_, tangents, suffix_[last - g - 1]);
  }
}

void ExpectedQuotaTopK::results(int32_t group, bool tangents, double weight, int odd,
                                const double* v) {
  const auto g = size_t(group);
  const auto& sites = near_[g];
  const int64_t lower = lower_[g], above = above_[g];
  // A, for m near sites above t.
  const int64_t count = std::min(int64_t(sites.size()), upper_[g] - above);
  alpha_.assign(size_t(count) + 1, 0.0);
  alpha_tangent_.assign(alpha_.size(), 0.0);
  for (int64_t m = 0; m < count && above + m < lower; ++m) alpha_[size_t(m)] = 1;
  if (!pool_full_) {
    const Law &before = prefix_[g], &after = suffix_[g + 1];
    const size_t width = after.chance.size();
    cumulative_.resize(width);
    cumulative_tangent_.resize(width);
    double sum = 0, sum_tangent = 0;
    for (size_t i = 0; i < width; ++i) {
      cumulative_[i] = sum += after.chance[i];
      cumulative_tangent_[i] = sum_tangent += after.tangent[i];
    }
    for (int64_t m = std::max<int64_t>(lower - above, 0); m < count; ++m) {
      const int64_t most = rest_ - 1 - (above + m - lower);
      double chance = 0, tangent = 0;
      for (int64_t i = 0; i < int64_t(before.chance.size()); ++i) {
        const int64_t left = most - before.first - i - after.first;
        if (left < 0 || width == 0) break;
        const size_t at = left < int64_t(width) ? size_t(left) : width - 1;
        chance += before.chance[size_t(i)] * cumulative_[at];
        if (tangents)
          tangent += before.tangent[size_t(i)] * cumulative_[at] +
                     before.chance[size_t(i)] * cumulative_tangent_[at];
      }
      alpha_[size_t(m)] = chance;
      alpha_tangent_[size_t(m)] = tangent;
    }
  }
  for (size_t j = sites.size(); j-- > 0;) {
    const Site& site = sites[j];
    const Law& law = steps_[g][j];
    const int64_t first = law.first, end = std::min(law.end(), count);
    double chance = 0, tangent = 0;
    for (int64_t m = first; m < end; ++m)
      chance += law.chance[size_t(m - first)] * alpha_[size_t(m)];
    if (tangents)
      for (int64_t m = first; m < end; ++m)
        tangent += law.tangent[size_t(m - first)] * alpha_[size_t(m)] +
                   law.chance[size_t(m - first)] * alpha_tangent_[size_t(m)];
    sum_[odd][size_t(site.site)] += weight * site.f * chance;
    if (tangents)
      product_[odd][size_t(site.site)] +=
          weight * (site.f * tangent - site.slope * chance * v[site.site]);
    if (j == 0) break;
    const int64_t from = steps_[g][j - 1].first, to = std::min(steps_[g][j - 1].end(), count);
    const double p = site.p, q = 1 - p, dp = site.tangent;
    if (tangents)
      for (int64_t m = from; m < to; ++m)
        alpha_tangent_[size_t(m)] = q * alpha_tangent_[size_t(m)] +
                                    p * alpha_tangent_[size_t(m) + 1] +
                                    dp * (alpha_[size_t(m) + 1] - alpha_[size_t(m)]);
    for (int64_t m = from; m < to; ++m)
      alpha_[size_t(m)] = q * alpha_[size_t(m)] + p * alpha_[size_t(m) + 1];
  }
}

}  // namespace topreach::kernels
