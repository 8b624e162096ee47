// Differentiation of fused operators.
//
// torch::autograd::Function in C++ supports neither forward mode nor the transforms of torch.func.
// Our own graph node supports both: an operator's Autograd kernel calls the operator below autograd,
// then states how gradients flow back (set_derivative) and how tangents flow forward (set_tangent).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/boxing/KernelFunction.h>
#include <torch/csrc/autograd/variable.h>

#include <functional>
#include <vector>

namespace topreach {

using Tensors = std::vector<at::Tensor>;

// From the gradient of the output and the saved tensors, one gradient for each input; an undefined
// tensor stands for no gradient.
using Backward = std::function<Tensors(const at::Tensor& grad, const Tensors& saved)>;

// Makes `backward` the derivative of `output`, if gradients are recorded and an input requires one.
// `inputs` are the operator's differentiable tensor arguments, undefined if one is missing. A
// saved output must be detached, or it would keep itself alive.
void set_derivative(const char* op, const at::Tensor& output, const Tensors& inputs, Tensors saved,
                    Backward backward);

// The tangent of a tensor in forward mode, undefined if it has none; and the tensor without it.
at::Tensor tangent_of(const at::Tensor& tensor);
at::Tensor primal_of(const at::Tensor& tensor);
void set_tangent(const at::Tensor& output, const at::Tensor& tangent);

// Raises: `op` has no derivative in forward mode.
[[noreturn]] void refuse_tangent(const char* op);

// Boxed Autograd kernels. `constant_result`: no gradient flows through the operator.
// `differentiable_once`: of an operator that is itself a derivative; differentiating it raises.
void constant_result(const c10::OperatorHandle& op, torch::jit::Stack* stack);
void differentiable_once(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace topreach
