#include "quota_checks.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "../require.h"
#include "common.h"
#include "perturbed_topk_checks.h"

namespace topreach {

namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

at::Tensor on_cpu(const at::Tensor& tensor) { return tensor.to(at::kCPU).contiguous(); }

const int64_t* whole_numbers(const char* function, const char* name, const at::Tensor& tensor,
                             int64_t size, const char* shape) {
  TR_REQUIRE_TYPE(tensor.scalar_type() == at::kLong, "{}: {} must be int64, got {}", function, name,
                  tensor.scalar_type());
  TR_REQUIRE(tensor.dim() == 1 && (size < 0 || tensor.size(0) == size),
             "{}: {} must have shape {}{}, got {}", function, name, shape,
             size < 0 ? std::string() : fmt::format(" = [{}]", size), tensor.sizes());
  return tensor.const_data_ptr<int64_t>();
}

}  // namespace

QuotaRows check_quotas(const char* function, const at::Tensor& scores, int64_t k,
                       const at::Tensor& groups, const at::Tensor& lower, const at::Tensor& upper,
                       const std::optional<at::Tensor>& parent,
                       const std::optional<at::Tensor>& lock) {
  check_scores(function, scores, k);
  QuotaRows quotas;
  quotas.sites = scores.size(-1);
  quotas.k = k;
  const at::Tensor g = on_cpu(groups), l = on_cpu(lower), u = on_cpu(upper);
  const int64_t* bounds = whole_numbers(function, "lower", l, -1, "[G]");
  const int64_t count = l.size(0);
  const int64_t* most = whole_numbers(function, "upper", u, count, "[G]");
  const int64_t* group = whole_numbers(function, "groups", g, quotas.sites, "[S]");
  for (int64_t i = 0; i < count; ++i) {
    TR_REQUIRE(bounds[i] >= 0, "{}: lower must not be negative, got {} in group {}", function,
               bounds[i], i);
    quotas.lower.push_back(bounds[i]);
    quotas.upper.push_back(most[i]);
  }
  for (int64_t s = 0; s < quotas.sites; ++s) {
    TR_REQUIRE(group[s] >= -1 && group[s] < count,
               "{}: groups must be numbers from 0 to {}, or -1 for none, got {} at site {}",
               function, count - 1, group[s], s);
    quotas.group.push_back(int32_t(group[s]));
  }
  if (parent) {
    const at::Tensor p = on_cpu(*parent);
    const int64_t* above = whole_numbers(function, "parent", p, count, "[G]");
    for (int64_t i = 0; i < count; ++i) {
      TR_REQUIRE(above[i] >= -1 && above[i] < count,
                 "{}: parent must be numbers from 0 to {}, or -1 for none, got {} at group {}",
                 function, count - 1, above[i], i);
      quotas.parent.push_back(int32_t(above[i]));
    }
    if (std::ranges::all_of(quotas.parent, [](int32_t p) { return p < 0; })) quotas.parent.clear();
  }
  if (lock) {
    const at::Tensor held = on_cpu(*lock);
    const int64_t* locks = whole_numbers(function, "lock", held, quotas.sites, "[S]");
    for (int64_t s = 0; s < quotas.sites; ++s) {
      TR_REQUIRE(locks[s] >= -1 && locks[s] <= 1,
                 "{}: lock must be 1 (in), -1 (out) or 0, got {} at site {}", function, locks[s],
                 s);
      quotas.lock.push_back(int8_t(locks[s]));
    }
    if (std::ranges::all_of(quotas.lock, [](int8_t held) { return held == 0; }))
      quotas.lock.clear();
  }
  return quotas;
}

QuotaRows check_perturbed_quota(const char* function, const at::Tensor& scores,
                                const PerturbedQuotaArguments& a) {
  QuotaRows quotas =
      check_quotas(function, scores, a.k, a.groups, a.lower, a.upper, a.parent, a.lock);
  TR_REQUIRE(std::isfinite(a.sigma) && a.sigma >= 0,
             "{}: sigma must be finite and not negative, got {}", function, a.sigma);
  TR_REQUIRE(a.estimator == "score_loo" || a.estimator == "conditional",
             "{}: estimator must be 'score_loo' or 'conditional', got '{}'", function, a.estimator);
  const int64_t fewest = a.estimator == "score_loo" ? 2 : 1;
  TR_REQUIRE(a.num_samples >= fewest && a.num_samples <= INT32_MAX,
             "{}: num_samples must be at least {} for estimator '{}' and below 2^31, got {}",
             function, fewest, a.estimator, a.num_samples);
  check_key(function, a.key, scores.device());
  check_row_range(function, a.row_offset, rows_of(scores).rows);
  if (a.estimator == "conditional") check_disjoint(function, quotas);
  return quotas;
}

void check_perturbed_quota_backward(const char* function, const at::Tensor& grad,
                                    const at::Tensor& scores, const at::Tensor& membership) {
  TR_REQUIRE(grad.sizes() == scores.sizes() && membership.sizes() == scores.sizes() &&
                 grad.scalar_type() == scores.scalar_type() &&
                 membership.scalar_type() == scores.scalar_type(),
             "{}: grad and membership must have the shape and dtype of scores, {}, got {} and {}",
             function, scores.sizes(), grad.sizes(), membership.sizes());
  TR_REQUIRE(grad.device() == scores.device() && membership.device() == scores.device(),
             "{}: grad and membership must be on the device of scores, {}, got {} and {}", function,
             scores.device(), grad.device(), membership.device());
}

QuotaRows check_expected_quota(const char* function, const at::Tensor& scores, int64_t k,
                               const at::Tensor& groups, const at::Tensor& lower,
                               const at::Tensor& upper, double sigma,
                               const std::optional<at::Tensor>& lock) {
  QuotaRows quotas = check_quotas(function, scores, k, groups, lower, upper, std::nullopt, lock);
  TR_REQUIRE(std::isfinite(sigma) && sigma >= 0,
             "{}: sigma must be finite and not negative, got {}", function, sigma);
  return quotas;
}

void check_expected_quota_tangent(const char* function, const at::Tensor& v,
                                  const at::Tensor& scores) {
  TR_REQUIRE(v.sizes() == scores.sizes() && v.scalar_type() == scores.scalar_type(),
             "{}: v must have the shape and dtype of scores, {} of {}, got {} of {}", function,
             scores.sizes(), scores.scalar_type(), v.sizes(), v.scalar_type());
  TR_REQUIRE(v.device() == scores.device(), "{}: v must be on the device of scores, {}, got {}",
             function, scores.device(), v.device());
}

template <typename T>
void refuse_closed(const char* function, const QuotaRows& quotas, const T* score,
                   const GroupName& name, const std::string& where) {
  std::vector<int8_t> lock = quotas.lock;
  lock.resize(size_t(quotas.sites), 0);
  for (int64_t s = 0; s < quotas.sites; ++s) {
    if (double(score[s]) != kMinusInfinity) continue;
    TR_REQUIRE(lock[size_t(s)] <= 0,
               "{}: a site that is locked in must have a score above -inf{}, got -inf at site {}",
               function, where, s);
    lock[size_t(s)] = -1;
  }
  check_feasible(function, quotas, quotas.tree(lock), name,
                 " without the sites whose score is -inf" + where);
  TORCH_INTERNAL_ASSERT(false, "a plan with a score of -inf where another could be made");
}
template void refuse_closed(const char*, const QuotaRows&, const float*, const GroupName&,
                            const std::string&);
template void refuse_closed(const char*, const QuotaRows&, const double*, const GroupName&,
                            const std::string&);

at::Tensor quota_masks(const char* function, const at::Tensor& scores, const QuotaRows& quotas,
                       const kernels::QuotaTree& tree, const GroupName& name) {
  check_no_nan(function, "scores", scores);
  const at::Tensor input = scores.contiguous();
  at::Tensor mask = at::zeros_like(input, at::MemoryFormat::Contiguous);
  const auto [rows, sites] = rows_of(input);
  if (input.numel() == 0) return mask;
  std::atomic<int64_t> closed{rows};  // the first row that cannot be planned
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "quota_topk", [&, rows = rows, sites = sites] {
    const scalar_t* in = input.const_data_ptr<scalar_t>();
    scalar_t* out = mask.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rows, 1 + 20'000 / sites, [&](int64_t begin, int64_t end) {
      kernels::QuotaScratch<scalar_t> scratch;
      std::vector<int32_t> chosen(size_t(quotas.k));
      for (int64_t row = begin; row < end; ++row) {
        const scalar_t* r = in + row * sites;
        tree.best(r, scratch, chosen.data());
        bool bad = false;
        for (const int32_t s : chosen) {
          out[row * sites + s] = 1;
          bad |= double(r[s]) == kMinusInfinity;
        }
        if (!bad) continue;
        int64_t seen = closed.load();
        while (row < seen && !closed.compare_exchange_weak(seen, row)) {
        }
      }
    });
    if (closed.load() < rows)
      refuse_closed(function, quotas, in + closed.load() * sites, name,
                    rows > 1 ? fmt::format(" in row {}", closed.load()) : "");
  });
  return mask;
}

void check_disjoint(const char* function, const QuotaRows& quotas) {
  TR_REQUIRE(
      quotas.parent.empty(),
      "{}: groups must be disjoint, got nested ones; use perturbed_quota_topk with estimator "
      "'score_loo'",
      function);
}

template <typename T>
void FreeSites::fill(const char* function, const QuotaRows& quotas, const T* score) {
  site.clear();
  group.clear();
  fixed.assign(size_t(quotas.sites), 0.0);
  k = quotas.k;
  const size_t groups = size_t(quotas.groups());
  lower.assign(quotas.lower.begin(), quotas.lower.end());
  upper.assign(quotas.upper.begin(), quotas.upper.end());
  lower.push_back(0);  // the sites in no group
  upper.push_back(quotas.sites);
  std::vector<int64_t> size(groups + 1, 0);
  for (int64_t s = 0; s < quotas.sites; ++s) {
    const size_t g = quotas.group[size_t(s)] < 0 ? groups : size_t(quotas.group[size_t(s)]);
    const int8_t lock = quotas.lock.empty() ? int8_t(0) : quotas.lock[size_t(s)];
    const bool closed = double(score[s]) == kMinusInfinity;
    TR_REQUIRE(double(score[s]) != -kMinusInfinity, "{}: scores must be finite or -inf, got inf",
               function);
    if (lock > 0 && !closed) {
      fixed[size_t(s)] = 1;
      --k;
      lower[g] = std::max<int64_t>(lower[g] - 1, 0);
      --upper[g];
    } else if (lock > 0) {
      refuse_closed(function, quotas, score, group_by_number, "");
    } else if (lock == 0 && !closed) {
      site.push_back(int32_t(s));
      group.push_back(int32_t(g));
      ++size[g];
    }
  }
  // Quotas can be met with all sites, but perhaps not without those of score -inf.
  int64_t least = 0, most = 0;
  for (size_t g = 0; g <= groups; ++g) {
    upper[g] = std::min(upper[g], size[g]);
    if (upper[g] < lower[g]) refuse_closed(function, quotas, score, group_by_number, "");
    least += lower[g];
    most += upper[g];
  }
  if (least > k || most < k) refuse_closed(function, quotas, score, group_by_number, "");
}
template void FreeSites::fill(const char*, const QuotaRows&, const float*);
template void FreeSites::fill(const char*, const QuotaRows&, const double*);

}  // namespace topreach
