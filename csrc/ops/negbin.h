// Negative binomial counts: fused sampling and log-probability.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>

namespace topreach {

struct NegBinSampleOptions {
  std::optional<at::Tensor> key = std::nullopt;           // int64[2]; drawn if absent
  std::optional<at::Generator> generator = std::nullopt;  // to draw the key from
  int64_t row_offset = 0;                                 // global number of the first row
};

/// `num_samples` draws of NegBin(total_count n, logits z) in torch's convention: with
/// p = sigmoid(z), P(y) = Gamma(n + y) / (Gamma(n) y!) (1 - p)^n p^y, mean n e^z.
///
/// total_count and logits float32 or float64, broadcast to [..., S]; returns counts [M, ..., S] in
/// the dtype of total_count. Draw m of a site depends on (n, z, key, row_offset + row, site, m)
/// alone, bit for bit. Each probability is right to 2^-32. Not differentiable: gradients go through
/// negbin_log_prob. total_count = 0 gives zeros.
///
/// Raises, on the CPU, for total_count negative, NaN or infinite and for logits NaN or +inf (on
/// CUDA, where the check would synchronise, such sites come out NaN).
///
///   auto y = topreach::negbin_sample(torch::full({4, 10}, 2.0), torch::zeros({}), 100);
at::Tensor negbin_sample(const at::Tensor& total_count, const at::Tensor& logits,
                         int64_t num_samples, const NegBinSampleOptions& options = {});

/// log P(value) under NegBin(total_count, logits), elementwise with broadcasting; `value` may have
/// extra leading dimensions, as samples [M, ..., S] do. Differentiable once in total_count and
/// logits, not in value. float32 or float64, computed in double inside; right for tiny and huge
/// total_count and any logits; value need not be whole (the Gamma function interpolates).
///
/// Raises for a negative, infinite or NaN value and for a negative total_count (CPU; NaN on CUDA).
/// NaN parameters give NaN.
at::Tensor negbin_log_prob(const at::Tensor& value, const at::Tensor& total_count,
                           const at::Tensor& logits);

}  // namespace topreach
