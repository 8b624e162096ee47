#include "zero_inflated.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "../ops/key.h"

namespace topreach {

namespace {

constexpr int64_t kStream = 0x5A45524F;  // the structural zeros' key differs from the base's

}  // namespace

std::tuple<torch::Tensor, torch::Tensor> zero_inflated_moments(const torch::Tensor& mean,
                                                               const torch::Tensor& variance,
                                                               const torch::Tensor& zero_probs) {
  const torch::Tensor rest = 1 - zero_probs;
  return {rest * mean, rest * (variance + zero_probs * mean.square())};
}

NegBinSampleOptions with_key(NegBinSampleOptions options, at::Device device) {
  if (!options.key) options.key = draw_key(options.generator, device);
  return options;
}

torch::Tensor zero_inflated_zeros(const torch::Tensor& y, const torch::Tensor& zero_probs,
                                  const torch::Tensor& key, int64_t row_offset) {
  static const auto noise_op = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("topreach::topk_noise", "")
                                   .typed<at::Tensor(const at::Tensor&, int64_t, int64_t, int64_t,
                                                     std::string_view, int64_t)>();
  const int64_t draws = y.size(0), sites = y.size(-1);
  const int64_t rows = draws * sites > 0 ? y.numel() / (draws * sites) : 0;
  const torch::Tensor noise =
      noise_op.call(key.bitwise_xor(kStream), draws, rows, sites, "gumbel", row_offset);
  // The Gumbel distribution function turns the noise into uniforms.
  const torch::Tensor uniform = noise.neg().exp().neg().exp().view(y.sizes());
  return y.masked_fill(uniform < zero_probs.detach(), 0);
}

torch::Tensor zero_inflated_log_prob(const torch::Tensor& base_log_prob,
                                     const torch::Tensor& zero_probs, const torch::Tensor& y) {
  // log P(0) = log P0 + log(1 + pi (1/P0 - 1)): nothing cancels, but 1/P0 may overflow; then
  // logaddexp.
  const auto both = torch::broadcast_tensors({zero_probs, base_log_prob});
  const torch::Tensor &probs = both[0], &base = both[1];
  const torch::Tensor zero = y == 0, near = zero & (base > -50);
  const torch::Tensor far = zero & ~near & (probs > 0);
  const torch::Tensor inflated = base + torch::log1p(probs * torch::expm1(-base.clamp_min(-50)));
  const torch::Tensor rest = base + torch::log1p(-torch::where(near, 0, probs));
  const torch::Tensor structural = torch::where(far, probs, 1).log();
  return torch::where(near, inflated, torch::where(far, torch::logaddexp(structural, rest), rest));
}

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("zero_inflated_moments", zero_inflated_moments);
  m.impl("zero_inflated_zeros", zero_inflated_zeros);
  m.impl("zero_inflated_log_prob", zero_inflated_log_prob);
}

TORCH_LIBRARY_IMPL(topreach, FuncTorchBatchedDecomposition, m) {
  m.impl("zero_inflated_moments", zero_inflated_moments);
  m.impl("zero_inflated_log_prob", zero_inflated_log_prob);
}

}  // namespace topreach
