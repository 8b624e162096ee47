#include "topk_rows.h"

#include <ATen/ExpandUtils.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logical_not.h>
#include <ATen/ops/where.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include "../require.h"
#include "autograd.h"
#include "common.h"
#include "topk_mask.h"
#include "topk_rows_checks.h"

namespace topreach {
namespace {

using Optional = std::optional<at::Tensor>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kCertain = 1e4;   // sigma from the K-th score; noise does not reach so far
constexpr double kLeast = 1e-290;  // a smaller sigma counts as 0

at::Tensor soft_rows(const at::Tensor& sigma, std::string_view function) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::soft_rows", "")
                             .typed<at::Tensor(const at::Tensor&, std::string_view)>();
  return op.call(sigma, function);
}

at::Tensor soft_rows_cuda(const at::Tensor& sigma, std::string_view) {
  return at::logical_not(sigma.ge(0).logical_and(sigma.lt(kLeast)));
}

at::Tensor soft_rows_cpu(const at::Tensor& sigma, std::string_view function) {
  const at::Tensor valid = sigma.ge(0).logical_and(sigma.lt(kInfinity));
  if (!valid.all().item<bool>()) {
    const at::Tensor bad = sigma.masked_select(valid.logical_not());
    TR_REQUIRE(false, "{}: sigma must be finite and not negative, got {}", function,
               bad.select(0, 0).item<double>());
  }
  return soft_rows_cuda(sigma, function);
}

at::Tensor soft_rows_meta(const at::Tensor& sigma, std::string_view) {
  return at::empty_symint(sigma.sym_sizes(), sigma.options().dtype(at::kBool));
}

// sigma [...] as float64 of the rows, [..., 1].
at::Tensor sigma_of_rows(const char* function, const at::Tensor& scores, double sigma,
                         const Optional& row_sigma) {
  if (!row_sigma) {
    TR_REQUIRE(std::isfinite(sigma) && sigma >= 0,
               "{}: sigma must be finite and not negative, got {}", function, sigma);
    return at::full({1}, sigma, scores.options().dtype(at::kDouble));
  }
  const at::Tensor& given = *row_sigma;
  TR_REQUIRE_TYPE(at::isFloatingType(given.scalar_type()),
                  "{}: sigma must be a number or a floating-point tensor, got {}", function,
                  given.scalar_type());
  TR_REQUIRE(given.device() == scores.device(),
             "{}: sigma must be on the device of scores ({}), got {}", function, scores.device(),
             given.device());
  const auto rows = c10::asIntArrayRefSlowOpt(scores.sym_sizes());
  const auto sizes = c10::asIntArrayRefSlowOpt(given.sym_sizes());
  if (rows && sizes) {
    const at::IntArrayRef leading = rows->slice(0, rows->size() - 1);
    TR_REQUIRE(at::is_expandable_to(*sizes, leading),
               "{}: sigma must have the leading shape of scores, {}, or broadcast to it, got {}",
               function, leading, *sizes);
  }
  return given.to(at::kDouble).unsqueeze(-1);
}

// The hard mask; and a problem with sigma = 1 and one budget for all rows. The first S sites of its
// solution are the solution of the soft rows.
struct Problem {
  at::Tensor hard, soft, scores;
  int64_t k;

  at::Tensor answer(const at::Tensor& membership) const {
    const at::Tensor own =
        membership.narrow_symint(-1, 0, hard.sym_size(-1)).to(hard.scalar_type());
    return at::where(soft.logical_and(hard.isnan().logical_not()), own, hard);
  }
};

Problem problem_of(const char* function, const at::Tensor& scores, int64_t k, double sigma,
                   const Optional& row_k, const Optional& row_sigma) {
  if (c10::asIntArrayRefSlowOpt(scores.sym_sizes())) check_scores(function, scores, row_k ? 0 : k);
  const at::Tensor s = sigma_of_rows(function, scores, sigma, row_sigma);
  const at::Tensor soft = soft_rows(s.detach(), function);
  const at::Tensor hard =
      row_k ? topk_mask(scores.detach(), *row_k) : topk_mask(scores.detach(), k);

  const at::Tensor r = scores.to(at::kDouble), constant = r.detach();
  const at::Tensor finite = constant.isfinite();
  at::Tensor centre = at::where(hard.gt(0).logical_and(finite), constant, kInfinity);
  centre = scores.sym_size(-1) == 0 ? centre.sum(-1, true) : centre.amin(-1, true);
  centre = at::where(centre.lt(kInfinity), centre, 0);

  const at::Tensor unit = at::where(soft, at::where(s.ge(0), s, NAN), 1);  // CUDA: NaN if negative
  const at::Tensor difference = at::where(finite, r - centre, 0);
  const at::Tensor above = constant - centre;
  const at::Tensor certain =
      above.abs().gt(kCertain * unit.detach()).logical_or(finite.logical_not());
  const at::Tensor side = at::where(finite, above.sign() * kCertain, above.sign() * (2 * kCertain));
  const at::Tensor scaled = at::where(certain, side, at::where(certain, 0, difference) / unit);
  if (!row_k) return {hard, soft, at::where(finite, scaled, constant), k};

  const auto sites = scores.sym_size(-1);
  const at::Tensor free = sites - row_k->unsqueeze(-1);  // S - k
  const at::Tensor index = at::arange(sites.guard_int(__FILE__, __LINE__), row_k->options());
  const at::Tensor extra = at::where(index.lt(free), kInfinity, -kInfinity).to(at::kDouble);
  std::vector<c10::SymInt> shape(scores.sym_sizes().begin(), scores.sym_sizes().end());
  return {hard, soft, at::cat({scaled, extra.expand_symint(shape)}, -1),
          sites.guard_int(__FILE__, __LINE__)};
}

at::Tensor expected_topk_of(const at::Tensor& scores, int64_t k, double sigma,
                            const Optional& row_k, const Optional& row_sigma,
                            std::string_view method) {
  const Problem problem = problem_of("expected_topk", scores, k, sigma, row_k, row_sigma);
  return problem.answer(
      expected_topk(problem.scores, problem.k, {.sigma = 1, .method = std::string(method)}));
}

at::Tensor perturbed_topk_of(const at::Tensor& scores, int64_t k, double sigma,
                             const Optional& row_k, const Optional& row_sigma, int64_t num_samples,
                             std::string_view estimator, std::string_view noise,
                             const at::Tensor& key, int64_t row_offset) {
  const Problem problem = problem_of("perturbed_topk", scores, k, sigma, row_k, row_sigma);
  return problem.answer(perturbed_topk(problem.scores, problem.k,
                                       {.sigma = 1,
                                        .num_samples = num_samples,
                                        .estimator = std::string(estimator),
                                        .noise = std::string(noise),
                                        .key = key,
                                        .row_offset = row_offset}));
}

}  // namespace

at::Tensor expected_topk_rows(const at::Tensor& scores, int64_t k,
                              const ExpectedTopKOptions& options) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::expected_topk_rows", "")
                             .typed<at::Tensor(const at::Tensor&, int64_t, double, const Optional&,
                                               const Optional&, std::string_view)>();
  return op.call(scores, k, options.sigma, options.row_k, options.row_sigma, options.method);
}

at::Tensor perturbed_topk_rows(const at::Tensor& scores, int64_t k,
                               const PerturbedTopKOptions& options, const at::Tensor& key) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::perturbed_topk_rows", "")
                             .typed<at::Tensor(const at::Tensor&, int64_t, double, const Optional&,
                                               const Optional&, int64_t, std::string_view,
                                               std::string_view, const at::Tensor&, int64_t)>();
  return op.call(scores, k, options.sigma, options.row_k, options.row_sigma, options.num_samples,
                 options.estimator, options.noise, key, options.row_offset);
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) { m.impl("soft_rows", soft_rows_cpu); }
TORCH_LIBRARY_IMPL(topreach, CUDA, m) { m.impl("soft_rows", soft_rows_cuda); }
TORCH_LIBRARY_IMPL(topreach, Meta, m) { m.impl("soft_rows", soft_rows_meta); }

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("soft_rows", torch::CppFunction::makeFromBoxedFunction<&constant_result>());
}

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("expected_topk_rows", expected_topk_of);
  m.impl("perturbed_topk_rows", perturbed_topk_of);
}

// vmap decomposes only operators that are registered for it.
TORCH_LIBRARY_IMPL(topreach, FuncTorchBatchedDecomposition, m) {
  m.impl("expected_topk_rows", expected_topk_of);
  m.impl("perturbed_topk_rows", perturbed_topk_of);
}

}  // namespace topreach
