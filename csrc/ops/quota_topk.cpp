#include "quota_topk.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <cmath>

#include "../../kernels/programs/expected_quota_topk.h"
#include "../require.h"
#include "autograd.h"
#include "common.h"
#include "quota_checks.h"

namespace topreach {

namespace {

using OptionalTensor = std::optional<at::Tensor>;

auto expected_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::expected_quota_topk", "")
          .typed<at::Tensor(const at::Tensor&, int64_t, const at::Tensor&, const at::Tensor&,
                            const at::Tensor&, double, const OptionalTensor&)>();
  return op;
}

auto jvp_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::expected_quota_topk_jvp", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, int64_t, const at::Tensor&,
                            const at::Tensor&, const at::Tensor&, double, const OptionalTensor&)>();
  return op;
}

at::Tensor quota_topk_cpu(const at::Tensor& scores, int64_t k, const at::Tensor& groups,
                          const at::Tensor& lower, const at::Tensor& upper,
                          const OptionalTensor& parent, const OptionalTensor& lock) {
  constexpr const char* name = "quota_topk";
  const QuotaRows quotas = check_quotas(name, scores, k, groups, lower, upper, parent, lock);
  const kernels::QuotaTree tree = quotas.tree();
  check_feasible(name, quotas, tree, group_by_number);
  return quota_masks(name, scores, quotas, tree);
}

// Value, or J v if v is given, of rows in which the place of some site is uncertain.
template <typename T>
void expected_rows(const char* function, const QuotaRows& quotas, const T* scores, int64_t rows,
                   double sigma, const T* v, T* out) {
  const int64_t sites = quotas.sites;
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    FreeSites free;
    std::vector<double> r, tangent, value, product;
    for (int64_t row = begin; row < end; ++row) {
      const T* score = scores + row * sites;
      T* to = out + row * sites;
      free.fill(function, quotas, score);
      for (int64_t s = 0; s < sites; ++s) to[s] = v ? T(0) : T(free.fixed[size_t(s)]);
      const size_t n = free.site.size();
      if (free.is_certain()) {
        if (!v && free.k > 0)
          for (const int32_t s : free.site) to[s] = 1;
        continue;
      }
      r.resize(n);
      tangent.resize(n);
      value.resize(n);
      product.resize(n);
      for (size_t i = 0; i < n; ++i) {
        r[i] = double(score[free.site[i]]);
        if (v) tangent[i] = double(v[row * sites + free.site[i]]);
      }
      kernels::ExpectedQuotaTopK expected(int64_t(n), free.k, int32_t(free.lower.size()),
                                          free.group.data(), free.lower.data(), free.upper.data());
      expected.run(r.data(), sigma, v ? tangent.data() : nullptr, value.data(),
                   v ? product.data() : nullptr);
      for (size_t i = 0; i < n; ++i)
        to[free.site[i]] = v ? T(product[i]) : T(std::min(std::max(value[i], 0.0), 1.0));
    }
  });
}

at::Tensor expected_quota_topk_cpu(const at::Tensor& scores, int64_t k, const at::Tensor& groups,
                                   const at::Tensor& lower, const at::Tensor& upper, double sigma,
                                   const OptionalTensor& lock) {
  constexpr const char* name = "expected_quota_topk";
  const QuotaRows quotas = check_expected_quota(name, scores, k, groups, lower, upper, sigma, lock);
  const kernels::QuotaTree tree = quotas.tree();
  check_feasible(name, quotas, tree, group_by_number);
  const at::Tensor input = scores.contiguous();
  if (sigma == 0 || input.numel() == 0) return quota_masks(name, input, quotas, tree);
  check_no_nan(name, "scores", input);
  at::Tensor result = at::empty_like(input);
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "expected_quota_topk", [&] {
    expected_rows<scalar_t>(name, quotas, input.const_data_ptr<scalar_t>(), rows_of(input).rows,
                            sigma, nullptr, result.mutable_data_ptr<scalar_t>());
  });
  return result;
}

at::Tensor expected_quota_topk_jvp_cpu(const at::Tensor& v, const at::Tensor& scores, int64_t k,
                                       const at::Tensor& groups, const at::Tensor& lower,
                                       const at::Tensor& upper, double sigma,
                                       const OptionalTensor& lock) {
  constexpr const char* name = "expected_quota_topk_jvp";
  const QuotaRows quotas = check_expected_quota(name, scores, k, groups, lower, upper, sigma, lock);
  check_feasible(name, quotas, quotas.tree(), group_by_number);
  check_expected_quota_tangent(name, v, scores);
  const at::Tensor input = scores.contiguous(), tangent = v.contiguous();
  at::Tensor result = at::zeros_like(input);
  if (sigma == 0 || input.numel() == 0) return result;
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "expected_quota_topk", [&] {
    expected_rows<scalar_t>(name, quotas, input.const_data_ptr<scalar_t>(), rows_of(input).rows,
                            sigma, tangent.const_data_ptr<scalar_t>(),
                            result.mutable_data_ptr<scalar_t>());
  });
  return result;
}

at::Tensor expected_quota_topk_autograd(const at::Tensor& scores, int64_t k,
                                        const at::Tensor& groups, const at::Tensor& lower,
                                        const at::Tensor& upper, double sigma,
                                        const OptionalTensor& lock) {
  const at::Tensor result = [&] {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return expected_op().call(scores, k, groups, lower, upper, sigma, lock);
  }();
  const auto product = [=](const at::Tensor& v, const at::Tensor& at) {
    return jvp_op().call(v, at, k, groups, lower, upper, sigma, lock);
  };
  set_derivative(
      "ExpectedQuotaTopK", result, {scores}, {scores},
      [=](const at::Tensor& v, const Tensors& saved) { return Tensors{product(v, saved[0])}; });
  const at::Tensor tangent = tangent_of(scores);
  if (tangent.defined()) set_tangent(result, product(tangent, primal_of(scores)));
  return result;
}

at::Tensor quota_topk_meta(const at::Tensor& scores, int64_t, const at::Tensor&, const at::Tensor&,
                           const at::Tensor&, const OptionalTensor&, const OptionalTensor&) {
  return at::empty_like(scores, at::MemoryFormat::Contiguous);
}

at::Tensor expected_quota_topk_meta(const at::Tensor& scores, int64_t, const at::Tensor&,
                                    const at::Tensor&, const at::Tensor&, double,
                                    const OptionalTensor&) {
  return at::empty_like(scores, at::MemoryFormat::Contiguous);
}

at::Tensor expected_quota_topk_jvp_meta(const at::Tensor&, const at::Tensor& scores, int64_t,
                                        const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                        double, const OptionalTensor&) {
  return at::empty_like(scores, at::MemoryFormat::Contiguous);
}

}  // namespace

at::Tensor quota_topk(const at::Tensor& scores, int64_t k, const QuotaBounds& quotas) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::quota_topk", "")
          .typed<at::Tensor(const at::Tensor&, int64_t, const at::Tensor&, const at::Tensor&,
                            const at::Tensor&, const OptionalTensor&, const OptionalTensor&)>();
  check_defined("quota_topk", "scores", scores);
  return op.call(scores, k, quotas.groups, quotas.lower, quotas.upper, quotas.parent, quotas.lock);
}

at::Tensor expected_quota_topk(const at::Tensor& scores, int64_t k, const QuotaBounds& quotas,
                               double sigma) {
  constexpr const char* name = "expected_quota_topk";
  check_defined(name, "scores", scores);
  TR_REQUIRE(
      !quotas.parent,
      "{}: groups must be disjoint, got nested ones; use perturbed_quota_topk with estimator "
      "'score_loo'",
      name);
  return expected_op().call(scores, k, quotas.groups, quotas.lower, quotas.upper, sigma,
                            quotas.lock);
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("quota_topk", quota_topk_cpu);
  m.impl("expected_quota_topk", expected_quota_topk_cpu);
  m.impl("expected_quota_topk_jvp", expected_quota_topk_jvp_cpu);
}

TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("quota_topk", quota_topk_meta);
  m.impl("expected_quota_topk", expected_quota_topk_meta);
  m.impl("expected_quota_topk_jvp", expected_quota_topk_jvp_meta);
}

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("quota_topk", torch::CppFunction::makeFromBoxedFunction<&constant_result>());
  m.impl("expected_quota_topk", expected_quota_topk_autograd);
  m.impl("expected_quota_topk_jvp",
         torch::CppFunction::makeFromBoxedFunction<&differentiable_once>());
}

}  // namespace topreach
