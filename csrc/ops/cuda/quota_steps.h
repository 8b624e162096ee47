// Quotas on the device: the tree is made on the host, its steps are copied. The copy does not wait for
// the device.
#pragma once

#include <ATen/ops/from_blob.h>

#include "../../../kernels/programs/quota_steps.h"
#include "../../require.h"
#include "../quota_checks.h"

namespace topreach {

class QuotaStepsOnDevice {
 public:
  QuotaStepsOnDevice(const kernels::QuotaTree& tree, const at::Device& device) : arrays_(tree) {
    const auto& numbers = arrays_.numbers();
    numbers_ = at::from_blob(const_cast<int32_t*>(numbers.data()), {int64_t(numbers.size())},
                             at::TensorOptions().dtype(at::kInt))
                   .to(device, /*non_blocking=*/true);  // pageable memory: staged before it returns
  }
  kernels::QuotaSteps view() const { return arrays_.at(numbers_.const_data_ptr<int32_t>()); }

 private:
  kernels::QuotaStepArrays arrays_;
  at::Tensor numbers_;
};

// A tensor of quotas on the GPU sends the call here even if scores are on the CPU.
inline void check_on_gpu(const char* function, const at::Tensor& scores) {
  TR_REQUIRE(scores.device().is_cuda(),
             "{}: scores must be on the device of groups, lower and upper, got {}; the quotas may "
             "stay on the CPU",
             function, scores.device());
}

// Masks of the best plans for contiguous scores; rows that the CPU refuses are NaN, with `finite` also
// those with a score of +inf.
at::Tensor quota_masks_cuda(const at::Tensor& scores, const QuotaStepsOnDevice& steps, bool finite);

}  // namespace topreach
