#include "mixture.h"

#include <ATen/core/dispatch/Dispatcher.h>

namespace topreach {

torch::Tensor mixture_choice(const torch::Tensor& weights, int64_t num_samples,
                             const torch::Tensor& key, int64_t row_offset) {
  constexpr int64_t kStream = 0x4D495854;  // the choice's key differs from that of the draws
  static const auto noise_op = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("topreach::topk_noise", "")
                                   .typed<at::Tensor(const at::Tensor&, int64_t, int64_t, int64_t,
                                                     std::string_view, int64_t)>();
  const int64_t components = weights.size(-1),
                rows = weights.numel() / std::max<int64_t>(components, 1);
  const torch::Tensor noise =
      noise_op.call(key.bitwise_xor(kStream), num_samples, rows, 1, "gumbel", row_offset);
  std::vector<int64_t> shape = weights.sizes().vec();
  shape.insert(shape.begin(), num_samples);
  shape.back() = 1;
  const torch::Tensor uniform = noise.neg().exp().neg().exp().view(shape);
  const torch::Tensor below = weights.detach().cumsum(-1).le(uniform);
  return below.sum(-1).clamp_max(components - 1);
}

}  // namespace topreach
