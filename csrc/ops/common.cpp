#include "common.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <string>

#include "../../kernels/cpu/dispatch.h"
#include "../require.h"

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
  TR_REQUIRE(false,
             "{}: noise must be 'normal', 'gumbel', 'logistic' or 'laplace', got "
             "'{}'",
             function, noise);
}

void check_scores(const char* function, const at::Tensor& scores, int64_t k) {
  TR_REQUIRE_TYPE(scores.scalar_type() == at::kFloat || scores.scalar_type() == at::kDouble,
                  "{}: scores must be float32 or float64, got {}; convert with "
                  "scores.float()",
                  function, scores.scalar_type());
  TR_REQUIRE(scores.dim() >= 1,
             "{}: scores must have shape [..., S], got a scalar; add a dimension of "
             "sites",
             function);
  TR_REQUIRE(k >= 0 && k <= scores.size(-1), "{}: k must be between 0 and S = {}, got {}", function,
             scores.size(-1), k);
  TR_REQUIRE(scores.size(-1) < INT32_MAX, "{}: scores must have fewer than 2^31 sites, got {}",
             function, scores.size(-1));
}

void check_key(const char* function, const at::Tensor& key, at::Device device) {
  TR_REQUIRE_TYPE(key.scalar_type() == at::kLong,
                  "{}: key must be int64, got {}; draw one with topreach.draw_key()", function,
                  key.scalar_type());
  TR_REQUIRE(key.dim() == 1 && key.size(0) == 2,
             "{}: key must have shape [2], got {}; draw one with topreach.draw_key()", function,
             key.sizes());
  TR_REQUIRE(key.device() == device,
             "{}: key must be on the device of the other arguments ({}), got {}", function, device,
             key.device());
}

void check_defined(const char* function, const char* argument, const at::Tensor& tensor) {
  TR_REQUIRE(tensor.defined(), "{}: {} must be a tensor, got an undefined one (at::Tensor())",
             function, argument);
}

std::vector<int64_t> check_broadcast(const char* function, const char* argument,
                                     at::IntArrayRef others, at::IntArrayRef shape) {
  const size_t dims = std::max(others.size(), shape.size());
  std::vector<int64_t> result(dims, 1);
  for (size_t d = 0; d < dims; ++d) {  // from the last dimension
    const int64_t a = d < others.size() ? others[others.size() - 1 - d] : 1;
    const int64_t b = d < shape.size() ? shape[shape.size() - 1 - d] : 1;
    TR_REQUIRE(
        a == b || a == 1 || b == 1,
        "{}: {} must have a shape that broadcasts with that of the other arguments, {}, got {}",
        function, argument, others, shape);
    result[dims - 1 - d] = a == 1 ? b : a;
  }
  return result;
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
  TR_REQUIRE(false,
             "{}: {} must not be NaN, got NaN in row {}, site {}; mask a site that "
             "must not be chosen with -inf",
             function, argument, at / sites, at % sites);
}

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("cpu_capability", []() -> std::string { return kernels::cpu_capability(); });
}

}  // namespace topreach
