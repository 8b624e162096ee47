#include "common.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <atomic>
#include <string>

#include "../../kernels/cpu/dispatch.h"

namespace topreach {

Rows rows_of(const at::Tensor& tensor) {
  const int64_t sites = tensor.size(-1);
  int64_t rows = 1;
  for (int64_t d = 0; d + 1 < tensor.dim(); ++d) rows *= tensor.size(d);
  return {rows, sites};
}

kernels::Noise parse_noise(const char* function, std::string_view noise) {
  if (noise == "normal") return kernels::Noise::kNormal;
  if (noise == "gumbel") return kernels::Noise::kGumbel;
  if (noise == "logistic") return kernels::Noise::kLogistic;
  if (noise == "laplace") return kernels::Noise::kLaplace;
  TORCH_CHECK_VALUE(false, function,
                    ": noise must be 'normal', 'gumbel', 'logistic' or 'laplace', got '", noise,
                    "'");
}

void check_scores(const char* function, const at::Tensor& scores, int64_t k) {
  TORCH_CHECK_TYPE(scores.scalar_type() == at::kFloat || scores.scalar_type() == at::kDouble,
                   function, ": scores must be float32 or float64, got ", scores.scalar_type(),
                   "; convert with scores.float()");
  TORCH_CHECK_VALUE(scores.dim() >= 1, function,
                    ": scores must have shape [..., S], got a scalar; add a dimension of sites");
  TORCH_CHECK_VALUE(k >= 0 && k <= scores.size(-1), function, ": k must be between 0 and S = ",
                    scores.size(-1), ", got ", k);
  TORCH_CHECK_VALUE(scores.size(-1) < INT32_MAX, function, ": scores must have fewer than 2^31 ",
                    "sites, got ", scores.size(-1));
}

void check_key(const char* function, const at::Tensor& key, at::Device device) {
  TORCH_CHECK_TYPE(key.scalar_type() == at::kLong, function, ": key must be int64, got ",
                   key.scalar_type(), "; draw one with topreach.draw_key()");
  TORCH_CHECK_VALUE(key.dim() == 1 && key.size(0) == 2, function, ": key must have shape [2], got ",
                    key.sizes(), "; draw one with topreach.draw_key()");
  TORCH_CHECK_VALUE(key.device() == device, function, ": key must be on the device of the other ",
                    "arguments (", device, "), got ", key.device());
}

kernels::PhiloxKey key_words(const at::Tensor& key) {
  const at::Tensor contiguous = key.contiguous();
  const int64_t* words = contiguous.const_data_ptr<int64_t>();
  return {uint32_t(words[0]), uint32_t(words[1])};
}

void check_no_nan(const char* function, const char* argument, const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  const int64_t n = flat.numel();
  std::atomic<int64_t> first{n};
  AT_DISPATCH_FLOATING_TYPES(flat.scalar_type(), "check_no_nan", [&] {
    const scalar_t* values = flat.const_data_ptr<scalar_t>();
    at::parallel_for(0, n, 1 << 16, [&](int64_t begin, int64_t end) {
      bool any = false;
      for (int64_t i = begin; i < end; ++i) any |= values[i] != values[i];
      if (!any) return;
      int64_t i = begin;
      while (values[i] == values[i]) ++i;
      int64_t seen = first.load();
      while (i < seen && !first.compare_exchange_weak(seen, i)) {
      }
    });
  });
  const int64_t at = first.load();
  if (at == n) return;
  const int64_t sites = tensor.size(-1);
  TORCH_CHECK_VALUE(false, function, ": ", argument, " must not be NaN, got NaN in row ",
                    at / sites, ", site ", at % sites,
                    "; mask a site that must not be chosen with -inf");
}

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("cpu_capability", []() -> std::string { return kernels::cpu_capability(); });
}

}  // namespace topreach
