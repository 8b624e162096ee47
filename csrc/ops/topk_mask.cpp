#include "topk_mask.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "../../kernels/perturbed_topk.h"
#include "common.h"
#include "scratch.h"

namespace topreach {

at::Tensor topk_mask(const at::Tensor& scores, int64_t k) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::topk_mask", "")
                             .typed<at::Tensor(const at::Tensor&, int64_t)>();
  return op.call(scores, k);
}

namespace {

at::Tensor topk_mask_cpu(const at::Tensor& scores, int64_t k) {
  check_scores("topk_mask", scores, k);
  check_no_nan("topk_mask", "scores", scores);
  const at::Tensor input = scores.contiguous();
  at::Tensor mask = at::zeros_like(input, at::MemoryFormat::Contiguous);
  const auto [rows, sites] = rows_of(input);
  if (k == 0 || input.numel() == 0) return mask;
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "topk_mask", [&, rows = rows, sites = sites] {
    const scalar_t* in = input.const_data_ptr<scalar_t>();
    scalar_t* out = mask.mutable_data_ptr<scalar_t>();
    const auto& cpu = kernels::topk_cpu<scalar_t>();
    at::parallel_for(0, rows, 1 + 20'000 / sites, [&](int64_t begin, int64_t end) {
      Scratch scratch(kernels::TopKScratch<scalar_t>::bytes(sites));
      for (int64_t row = begin; row < end; ++row) {
        const scalar_t* r = in + row * sites;
        scalar_t value;
        int32_t last_tied;
        cpu.threshold(r, sites, k, &value, &last_tied, scratch.get());
        for (int64_t s = 0; s < sites; ++s)
          out[row * sites + s] = r[s] > value || (r[s] == value && s <= last_tied) ? 1 : 0;
      }
    });
  });
  return mask;
}

at::Tensor topk_mask_meta(const at::Tensor& scores, int64_t) {
  return at::empty_like(scores, at::MemoryFormat::Contiguous);
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CPU, m) { m.impl("topk_mask", topk_mask_cpu); }
TORCH_LIBRARY_IMPL(topreach, Meta, m) { m.impl("topk_mask", topk_mask_meta); }

}  // namespace topreach
