#include "autograd.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "../require.h"

namespace topreach {
namespace {

namespace autograd = torch::autograd;

class OpNode : public autograd::Node {
 public:
  OpNode(const char* op, autograd::edge_list&& edges, const Tensors& saved, Backward backward)
      : autograd::Node(std::move(edges)),
        name_(std::string(op) + "Backward"),
        backward_(std::move(backward)) {
    for (const at::Tensor& tensor : saved) saved_.emplace_back(tensor, /*is_output=*/false);
  }

  std::string name() const override { return name_; }

  autograd::variable_list apply(autograd::variable_list&& grads) override {
    if (!grads[0].defined()) return autograd::variable_list(num_outputs());
    Tensors saved;
    for (const autograd::SavedVariable& variable : saved_) saved.push_back(variable.unpack());
    return backward_(grads[0], saved);
  }

  void release_variables() override {
    for (autograd::SavedVariable& variable : saved_) variable.reset_data();
  }

 private:
  std::string name_;
  std::vector<autograd::SavedVariable> saved_;
  Backward backward_;
};

// torch::autograd's pointer to a node: std::shared_ptr in torch 2.11, an intrusive one later.
template <typename Node, typename... Arguments>
decltype(autograd::Edge::function) make_node(Arguments&&... arguments) {
  using Pointer = decltype(autograd::Edge::function);
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<autograd::Node>>) {
    return std::make_shared<Node>(std::forward<Arguments>(arguments)...);
  } else {
    return c10::make_intrusive<Node>(std::forward<Arguments>(arguments)...);
  }
}

bool needs_gradient(const Tensors& inputs) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& input : inputs)
    if (input.defined() && input.requires_grad()) return true;
  return false;
}

autograd::edge_list edges_of(const Tensors& inputs) {
  autograd::edge_list edges;
  for (const at::Tensor& input : inputs)
    edges.push_back(input.defined() ? autograd::impl::gradient_edge(input) : autograd::Edge());
  return edges;
}

// "perturbed_topk" of "topreach::perturbed_topk_backward".
std::string forward_name(std::string name) {
  name = name.substr(name.find("::") + 2);
  for (const std::string_view ending : {"_backward", "_jvp"})
    if (name.ends_with(ending)) name.resize(name.size() - ending.size());
  return name;
}

std::string once_only(const c10::OperatorHandle& op) {
  const std::string& name = op.schema().name();
  return fmt::format(
      "{}: the operator must be differentiated once only, got a second derivative (of {}); detach "
      "its gradient, or leave out create_graph=True",
      forward_name(name), name.substr(name.find("::") + 2));
}

Tensors tensors_of(const torch::jit::Stack& stack, size_t count) {
  Tensors tensors;
  for (size_t i = stack.size() - count; i < stack.size(); ++i)
    if (stack[i].isTensor()) tensors.push_back(stack[i].toTensor());
  return tensors;
}

}  // namespace

void set_derivative(const char* op, const at::Tensor& output, const Tensors& inputs, Tensors saved,
                    Backward backward) {
  if (!needs_gradient(inputs)) return;
  autograd::set_history(output,
                        make_node<OpNode>(op, edges_of(inputs), saved, std::move(backward)));
}

at::Tensor tangent_of(const at::Tensor& tensor) {
  return tensor.defined() ? tensor._fw_grad(/*level=*/0) : at::Tensor();
}

at::Tensor primal_of(const at::Tensor& tensor) {
  return tangent_of(tensor).defined() ? tensor._fw_primal(/*level=*/0) : tensor;
}

void set_tangent(const at::Tensor& output, const at::Tensor& tangent) {
  output._set_fw_grad(tangent, /*level=*/0, /*is_inplace_op=*/false);
}

void refuse_tangent(const char* op) {
  raise<c10::NotImplementedError>(
      {__func__, __FILE__, static_cast<uint32_t>(__LINE__)},
      fmt::format("{}: the operator must be differentiated in reverse mode, got a tangent (forward "
                  "mode); use torch.func.vjp, grad or jacrev",
                  op));
}

void constant_result(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  op.callBoxed(stack);
}

void differentiable_once(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const Tensors inputs = tensors_of(*stack, op.schema().arguments().size());
  for (const at::Tensor& input : inputs) {
    if (tangent_of(input).defined())
      raise<c10::NotImplementedError>({__func__, __FILE__, static_cast<uint32_t>(__LINE__)},
                                      once_only(op));
  }
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    op.callBoxed(stack);
  }
  if (!needs_gradient(inputs)) return;
  for (const at::Tensor& output : tensors_of(*stack, op.schema().returns().size())) {
    if (output.defined() && output.is_floating_point())
      autograd::set_history(output, make_node<autograd::Error>(once_only(op), edges_of(inputs)));
  }
}

}  // namespace topreach
