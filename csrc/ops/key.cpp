#include "key.h"

#include <ATen/ATen.h>

#include "../require.h"

namespace topreach {

at::Tensor draw_key(std::optional<at::Generator> generator, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  return at::randint(int64_t{1} << 32, {2}, generator, options);
}

at::Tensor derived_key(const at::Tensor& key, int64_t stream) {
  TR_REQUIRE(key.defined() && key.dim() == 1 && key.size(0) == 2 && key.scalar_type() == at::kLong,
             "derived_key: key must be int64 of shape [2], got {}",
             key.defined() ? fmt::format("{} of shape {}", key.scalar_type(), key.sizes())
                           : "an undefined tensor");
  // Two odd constants of the golden ratio and of Murmur's mixer.
  const at::Tensor step = at::tensor({int64_t{0x9E3779B9}, int64_t{0x85EBCA6B}}).to(key.device());
  return (key + step * stream).bitwise_and(int64_t{0xFFFFFFFF});
}

}  // namespace topreach
