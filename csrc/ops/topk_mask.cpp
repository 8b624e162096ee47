#include "topk_mask.h"

#include <ATen/Dispatch.h>
#include <ATen/ExpandUtils.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "../../kernels/perturbed_topk.h"
#include "../require.h"
#include "autograd.h"
#include "common.h"
#include "scratch.h"
#include "topk_rows_checks.h"

namespace topreach {

at::Tensor topk_mask(const at::Tensor& scores, int64_t k) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::topk_mask", "")
                             .typed<at::Tensor(const at::Tensor&, int64_t)>();
  check_defined("topk_mask", "scores", scores);
  return op.call(scores, k);
}

at::Tensor topk_mask(const at::Tensor& scores, const at::Tensor& k) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::topk_mask_rows", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&)>();
  check_defined("topk_mask", "scores", scores);
  check_defined("topk_mask", "k", k);
  return op.call(scores, k);
}

at::Tensor check_row_k(const at::Tensor& scores, const at::Tensor& k) {
  constexpr const char* name = "topk_mask";
  check_scores(name, scores, 0);
  TR_REQUIRE_TYPE(at::isIntegralType(k.scalar_type(), /*includeBool=*/false),
                  "{}: k must be an integer or a tensor of integers, got {}", name,
                  k.scalar_type());
  TR_REQUIRE(k.device() == scores.device(), "{}: k must be on the device of scores ({}), got {}",
             name, scores.device(), k.device());
  const at::IntArrayRef rows = scores.sizes().slice(0, scores.dim() - 1);
  TR_REQUIRE(at::is_expandable_to(k.sizes(), rows),
             "{}: k must have the leading shape of scores, {}, or broadcast to it, got {}", name,
             rows, k.sizes());
  return k.to(at::kLong).expand(rows).contiguous();
}

namespace {

// The budget of a row is k_of(row).
template <typename BudgetOf>
at::Tensor mask_rows(const at::Tensor& scores, const BudgetOf& k_of) {
  check_no_nan("topk_mask", "scores", scores);
  const at::Tensor input = scores.contiguous();
  at::Tensor mask = at::zeros_like(input, at::MemoryFormat::Contiguous);
  const auto [rows, sites] = rows_of(input);
  if (input.numel() == 0) return mask;
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "topk_mask", [&, rows = rows, sites = sites] {
    const scalar_t* in = input.const_data_ptr<scalar_t>();
    scalar_t* out = mask.mutable_data_ptr<scalar_t>();
    const auto& cpu = kernels::topk_cpu<scalar_t>();
    at::parallel_for(0, rows, 1 + 20'000 / sites, [&](int64_t begin, int64_t end) {
      Scratch scratch(kernels::TopKScratch<scalar_t>::bytes(sites));
      for (int64_t row = begin; row < end; ++row) {
        if (k_of(row) == 0) continue;
        const scalar_t* r = in + row * sites;
        scalar_t value;
        int32_t last_tied;
        cpu.threshold(r, sites, k_of(row), &value, &last_tied, scratch.get());
        for (int64_t s = 0; s < sites; ++s)
          out[row * sites + s] = r[s] > value || (r[s] == value && s <= last_tied) ? 1 : 0;
      }
    });
  });
  return mask;
}

at::Tensor topk_mask_cpu(const at::Tensor& scores, int64_t k) {
  check_scores("topk_mask", scores, k);
  return mask_rows(scores, [k](int64_t) { return k; });
}

at::Tensor topk_mask_rows_cpu(const at::Tensor& scores, const at::Tensor& k) {
  const at::Tensor budgets = check_row_k(scores, k);
  const int64_t* budget = budgets.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < budgets.numel(); ++row)
    TR_REQUIRE(budget[row] >= 0 && budget[row] <= scores.size(-1),
               "topk_mask: k must be between 0 and S = {}, got {} in row {}", scores.size(-1),
               budget[row], row);
  return mask_rows(scores, [budget](int64_t row) { return budget[row]; });
}

at::Tensor topk_mask_rows_meta(const at::Tensor& scores, const at::Tensor&) {
  return at::empty_like(scores, at::MemoryFormat::Contiguous);
}

at::Tensor topk_mask_meta(const at::Tensor& scores, int64_t) {
  return at::empty_like(scores, at::MemoryFormat::Contiguous);
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("topk_mask", topk_mask_cpu);
  m.impl("topk_mask_rows", topk_mask_rows_cpu);
}

TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("topk_mask", topk_mask_meta);
  m.impl("topk_mask_rows", topk_mask_rows_meta);
}

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("topk_mask", torch::CppFunction::makeFromBoxedFunction<&constant_result>());
  m.impl("topk_mask_rows", torch::CppFunction::makeFromBoxedFunction<&constant_result>());
}

}  // namespace topreach
