// Perturbed top-K under quotas. As perturbed_topk, but backward makes the plans anew: nothing is kept
// of a draw.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <cmath>
#include <string_view>

#include "../../kernels/noise_density.h"
#include "../../kernels/perturbed_topk.h"
#include "../../kernels/programs/quota_exchange.h"
#include "../require.h"
#include "autograd.h"
#include "common.h"
#include "key.h"
#include "perturbed_topk_checks.h"
#include "quota_checks.h"
#include "quota_topk.h"
#include "sum_blocks.h"

namespace topreach {

namespace {

using OptionalTensor = std::optional<at::Tensor>;

auto forward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::perturbed_quota_topk", "")
          .typed<at::Tensor(const at::Tensor&, int64_t, const at::Tensor&, const at::Tensor&,
                            const at::Tensor&, double, int64_t, std::string_view, const at::Tensor&,
                            int64_t, const OptionalTensor&, const OptionalTensor&)>();
  return op;
}

auto backward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::perturbed_quota_topk_backward", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t,
                            const at::Tensor&, const at::Tensor&, const at::Tensor&, double,
                            int64_t, std::string_view, const at::Tensor&, int64_t,
                            const OptionalTensor&, const OptionalTensor&)>();
  return op;
}

// The draws of one row. `z` holds the noise of the last one.
template <typename T>
class Draws {
 public:
  Draws(const T* scores, int64_t sites, const PerturbedQuotaArguments& a)
      : scores_(scores),
        sigma_(T(a.sigma)),
        key_(key_words(a.key)),
        u(size_t(sites)),
        z(size_t(sites)) {}
  void make(int64_t draw, int64_t global_row) {
    kernels::noise_row_cpu(key_, kernels::Noise::kNormal, int64_t(z.size()), uint32_t(draw),
                           uint32_t(global_row), z.data());
    for (size_t s = 0; s < u.size(); ++s) u[s] = kernels::fused(sigma_, T(z[s]), scores_[s]);
  }

 private:
  const T* scores_;
  T sigma_;
  kernels::PhiloxKey key_;

 public:
  std::vector<T> u;
  std::vector<float> z;
};

// Sums over the draws [begin, end) of one row, in float64.
//   forward, score_loo:  the plans                          [S]
//   backward, score_loo: (b_j . v - centre) z_j             [S]
//   forward, conditional: 1 - F(x_i)                        [S], of free sites
//   backward, conditional: f(x_i) (v_i - v_a)               [S], of free sites
template <typename T>
void sum_plans(const QuotaRows& quotas, const kernels::QuotaTree& tree, const T* scores,
               const PerturbedQuotaArguments& a, int64_t row, int64_t begin, int64_t end,
               const T* v, double centre, double* sums) {
  Draws<T> draws(scores, quotas.sites, a);
  kernels::QuotaScratch<T> scratch;
  std::vector<int32_t> chosen(size_t(quotas.k));
  for (int64_t j = begin; j < end; ++j) {
    draws.make(j, a.row_offset + row);
    tree.best(draws.u.data(), scratch, chosen.data());
    if (!v) {
      for (const int32_t s : chosen) sums[s] += 1;
      continue;
    }
    double reach = 0;
    for (const int32_t s : chosen) reach += double(v[s]);
    for (int64_t s = 0; s < quotas.sites; ++s)
      sums[s] += (reach - centre) * double(draws.z[size_t(s)]);
  }
}

template <typename T>
void sum_exchanges(const QuotaRows& quotas, const FreeSites& free, const T* scores,
                   const PerturbedQuotaArguments& a, int64_t row, int64_t begin, int64_t end,
                   const T* v, double* sums) {
  const size_t n = free.site.size();
  const auto groups = int32_t(free.lower.size());
  kernels::QuotaGroups reduced;
  reduced.sites = int64_t(n);
  reduced.k = free.k;
  reduced.groups = groups;
  reduced.group = free.group.data();
  reduced.lower = free.lower.data();
  reduced.upper = free.upper.data();
  const kernels::QuotaTree tree(reduced);
  Draws<T> draws(scores, quotas.sites, a);
  kernels::QuotaScratch<T> scratch;
  kernels::QuotaExchange<T> exchange;
  std::vector<T> u(n);
  std::vector<int32_t> chosen(size_t(free.k));
  for (int64_t j = begin; j < end; ++j) {
    draws.make(j, a.row_offset + row);
    for (size_t i = 0; i < n; ++i) u[i] = draws.u[size_t(free.site[i])];
    tree.best(u.data(), scratch, chosen.data());
    exchange.fill(u.data(), int64_t(n), chosen.data(), free.k, groups, free.group.data(),
                  free.lower.data(), free.upper.data());
    for (size_t i = 0; i < n; ++i) {
      const int32_t s = free.site[i], partner = exchange.partner(int32_t(i));
      if (partner < 0) {
        if (!v && exchange.is_chosen(int32_t(i))) sums[s] += 1;
        continue;
      }
      // From score and noise of the partner, because its u is rounded to the scores' precision.
      const int32_t other = free.site[size_t(partner)];
      const double x =
          (double(scores[other]) - double(scores[s])) / a.sigma + double(draws.z[size_t(other)]);
      if (v)
        sums[s] += kernels::density<kernels::Noise::kNormal>(x) * (double(v[s]) - double(v[other]));
      else
        sums[s] += kernels::upper_tail<kernels::Noise::kNormal>(x);
    }
  }
}

// The value, or the vector-Jacobian product for `grad`.
at::Tensor run(const char* function, const at::Tensor& scores, const PerturbedQuotaArguments& a,
               const at::Tensor& grad, const at::Tensor& membership) {
  const QuotaRows quotas = check_perturbed_quota(function, scores, a);
  const kernels::QuotaTree tree = quotas.tree();
  check_feasible(function, quotas, tree, group_by_number);
  const at::Tensor input = scores.contiguous();
  const at::Tensor mask = quota_masks(function, input, quotas, tree);  // raises for closed sites
  const bool back = grad.defined();
  if (a.sigma == 0 || input.numel() == 0) return back ? at::zeros_like(input) : mask;
  const auto [rows, sites] = rows_of(input);
  const bool conditional = a.estimator == "conditional";
  const at::Tensor v = back ? grad.contiguous() : at::Tensor();
  const at::Tensor total = at::zeros({rows, sites}, at::kDouble);
  at::Tensor result = at::empty_like(input);
  AT_DISPATCH_FLOATING_TYPES(
      input.scalar_type(), "perturbed_quota_topk", [&, rows = rows, sites = sites] {
        const scalar_t* r = input.const_data_ptr<scalar_t>();
        const scalar_t* v_data = back ? v.const_data_ptr<scalar_t>() : nullptr;
        double* sums = total.mutable_data_ptr<double>();
        std::vector<FreeSites> free(conditional ? size_t(rows) : 0);
        std::vector<double> centre(size_t(rows), 0.0);
        for (int64_t row = 0; row < rows; ++row) {
          if (conditional) free[size_t(row)].fill(function, quotas, r + row * sites);
          if (!back || conditional) continue;
          const auto b = membership.view({rows, sites})[row].to(at::kDouble);
          centre[size_t(row)] =
              (b * v.view({rows, sites})[row].to(at::kDouble)).sum().item<double>();
        }
        const int64_t blocks = (a.num_samples + kernels::kDrawBlock - 1) / kernels::kDrawBlock;
        sum_blocks(
            rows, sites, blocks, 1, 64, sums, [&](int64_t row, int64_t block, double* part, void*) {
              const int64_t begin = block * kernels::kDrawBlock;
              const int64_t end = std::min(a.num_samples, begin + kernels::kDrawBlock);
              const scalar_t* score = r + row * sites;
              const scalar_t* weight = back ? v_data + row * sites : nullptr;
              if (conditional)
                sum_exchanges(quotas, free[size_t(row)], score, a, row, begin, end, weight, part);
              else
                sum_plans(quotas, tree, score, a, row, begin, end, weight, centre[size_t(row)],
                          part);
            });
        scalar_t* out = result.mutable_data_ptr<scalar_t>();
        const double draws = double(back && !conditional ? a.num_samples - 1 : a.num_samples) *
                             (back ? a.sigma : 1.0);
        for (int64_t i = 0; i < rows * sites; ++i) {
          const bool fixed =
              conditional && !back && free[size_t(i / sites)].fixed[size_t(i % sites)];
          const bool held = !quotas.lock.empty() && quotas.lock[size_t(i % sites)] != 0;
          const bool noisy = !back || (std::isfinite(double(r[i])) && !held);
          out[i] = fixed ? scalar_t(1) : noisy ? scalar_t(sums[i] / draws) : scalar_t(0);
        }
      });
  return result;
}

at::Tensor perturbed_quota_topk_cpu(const at::Tensor& scores, int64_t k, const at::Tensor& groups,
                                    const at::Tensor& lower, const at::Tensor& upper, double sigma,
                                    int64_t num_samples, std::string_view estimator,
                                    const at::Tensor& key, int64_t row_offset,
                                    const OptionalTensor& parent, const OptionalTensor& lock) {
  return run("perturbed_quota_topk", scores,
             {k, groups, lower, upper, sigma, num_samples, std::string(estimator), key, row_offset,
              parent, lock},
             {}, {});
}

at::Tensor perturbed_quota_topk_backward_cpu(
    const at::Tensor& grad, const at::Tensor& scores, const at::Tensor& membership, int64_t k,
    const at::Tensor& groups, const at::Tensor& lower, const at::Tensor& upper, double sigma,
    int64_t num_samples, std::string_view estimator, const at::Tensor& key, int64_t row_offset,
    const OptionalTensor& parent, const OptionalTensor& lock) {
  constexpr const char* name = "perturbed_quota_topk_backward";
  check_perturbed_quota_backward(name, grad, scores, membership);
  return run(name, scores,
             {k, groups, lower, upper, sigma, num_samples, std::string(estimator), key, row_offset,
              parent, lock},
             grad, membership);
}

at::Tensor perturbed_quota_topk_meta(const at::Tensor& scores, int64_t, const at::Tensor&,
                                     const at::Tensor&, const at::Tensor&, double, int64_t,
                                     std::string_view, const at::Tensor&, int64_t,
                                     const OptionalTensor&, const OptionalTensor&) {
  return at::empty_like(scores, at::MemoryFormat::Contiguous);
}

at::Tensor perturbed_quota_topk_backward_meta(const at::Tensor&, const at::Tensor& scores,
                                              const at::Tensor&, int64_t, const at::Tensor&,
                                              const at::Tensor&, const at::Tensor&, double, int64_t,
                                              std::string_view, const at::Tensor&, int64_t,
                                              const OptionalTensor&, const OptionalTensor&) {
  return at::empty_like(scores, at::MemoryFormat::Contiguous);
}

// Forward mode: the Jacobian of the expectation is symmetric, as for perturbed_topk.
at::Tensor perturbed_quota_topk_autograd(const at::Tensor& scores, int64_t k,
                                         const at::Tensor& groups, const at::Tensor& lower,
                                         const at::Tensor& upper, double sigma, int64_t num_samples,
                                         std::string_view estimator, const at::Tensor& key,
                                         int64_t row_offset, const OptionalTensor& parent,
                                         const OptionalTensor& lock) {
  const at::Tensor result = [&] {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return forward_op().call(scores, k, groups, lower, upper, sigma, num_samples, estimator, key,
                             row_offset, parent, lock);
  }();
  const auto product = [=, estimator = std::string(estimator)](const at::Tensor& v,
                                                               const at::Tensor& at,
                                                               const at::Tensor& membership) {
    return backward_op().call(v, at, membership, k, groups, lower, upper, sigma, num_samples,
                              estimator, key, row_offset, parent, lock);
  };
  set_derivative("PerturbedQuotaTopK", result, {scores}, {scores, result.detach()},
                 [=](const at::Tensor& v, const Tensors& saved) {
                   return Tensors{product(v, saved[0], saved[1])};
                 });
  const at::Tensor tangent = tangent_of(scores);
  if (tangent.defined()) set_tangent(result, product(tangent, primal_of(scores), result.detach()));
  return result;
}

}  // namespace

at::Tensor perturbed_quota_topk(const at::Tensor& scores, int64_t k, const QuotaBounds& quotas,
                                const PerturbedQuotaOptions& options) {
  check_defined("perturbed_quota_topk", "scores", scores);
  const at::Tensor key = options.key ? *options.key : draw_key(options.generator, scores.device());
  return forward_op().call(scores, k, quotas.groups, quotas.lower, quotas.upper, options.sigma,
                           options.num_samples, options.estimator, key, options.row_offset,
                           quotas.parent, quotas.lock);
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("perturbed_quota_topk", perturbed_quota_topk_cpu);
  m.impl("perturbed_quota_topk_backward", perturbed_quota_topk_backward_cpu);
}

TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("perturbed_quota_topk", perturbed_quota_topk_meta);
  m.impl("perturbed_quota_topk_backward", perturbed_quota_topk_backward_meta);
}

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("perturbed_quota_topk", perturbed_quota_topk_autograd);
  m.impl("perturbed_quota_topk_backward",
         torch::CppFunction::makeFromBoxedFunction<&differentiable_once>());
}

}  // namespace topreach
