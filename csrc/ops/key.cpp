#include "key.h"

#include <ATen/ops/randint.h>

namespace topreach {

at::Tensor draw_key(std::optional<at::Generator> generator, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  return at::randint(int64_t{1} << 32, {2}, generator, options);
}

}  // namespace topreach
