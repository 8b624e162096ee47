// Draws and log-probabilities of Poisson and zero-inflated counts [Lambert 1992]; the same numbers as
// python/topreach/models/poisson.py and zero_inflated.py.
#include "count_distributions.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include "../ops/key.h"

namespace topreach {

namespace {

constexpr double kLeastSize = 1e12, kSizePerRate = 1e10;
constexpr int64_t kStream = 0x5A45524F;

}  // namespace

torch::Tensor Poisson::sample(int64_t num_samples, const NegBinSampleOptions& options) const {
  const torch::Tensor plain = rate.detach().to(torch::kDouble);
  const torch::Tensor size = (plain * kSizePerRate).clamp_min(kLeastSize);
  return negbin_sample(size, plain.log() - size.log(), num_samples, options).to(rate.scalar_type());
}

torch::Tensor Poisson::log_prob(const torch::Tensor& y) const {
  const torch::Tensor value = y.to(rate.scalar_type());
  return torch::xlogy(value, rate) - rate - torch::lgamma(value + 1);
}

std::pair<NegBinSampleOptions, NegBinSampleOptions> zero_inflation_keys(
    const NegBinSampleOptions& options, at::Device device) {
  NegBinSampleOptions own = options, zeros = options;
  own.key = options.key ? *options.key : draw_key(options.generator, device);
  zeros.key = own.key->bitwise_xor(kStream);
  return {own, zeros};
}

torch::Tensor with_zeros(const torch::Tensor& y, const torch::Tensor& probs,
                         const NegBinSampleOptions& options) {
  static const auto noise_op = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("topreach::topk_noise", "")
                                   .typed<at::Tensor(const at::Tensor&, int64_t, int64_t, int64_t,
                                                     std::string_view, int64_t)>();
  const int64_t draws = y.size(0), sites = y.size(-1);
  const int64_t rows = draws * sites > 0 ? y.numel() / (draws * sites) : 0;
  const torch::Tensor noise =
      noise_op.call(*options.key, draws, rows, sites, "gumbel", options.row_offset);
  const torch::Tensor uniform = noise.neg().exp().neg().exp().view(y.sizes());
  return y.masked_fill(uniform < probs, 0);
}

torch::Tensor zero_inflated_log_prob(const torch::Tensor& base_log_prob,
                                     const torch::Tensor& zero_probs, const torch::Tensor& y) {
  // Zeros by log P0 + log(1 + pi (1/P0 - 1)), which nothing cancels in, unless 1/P0 is vast.
  const auto both = torch::broadcast_tensors({zero_probs, base_log_prob});
  const torch::Tensor &probs = both[0], &base = both[1];
  const torch::Tensor zero = y == 0, near = zero & (base > -50);
  const torch::Tensor far = zero & ~near & (probs > 0);
  const torch::Tensor inflated = base + torch::log1p(probs * torch::expm1(-base.clamp_min(-50)));
  const torch::Tensor rest = base + torch::log1p(-torch::where(near, 0, probs));
  const torch::Tensor structural = torch::where(far, probs, 1).log();
  return torch::where(near, inflated, torch::where(far, torch::logaddexp(structural, rest), rest));
}

}  // namespace topreach
