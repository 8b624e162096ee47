#include "capped_total.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <torch/autograd.h>
#include <torch/library.h>

namespace {

void check(const at::Tensor& x, double cap) {
  TORCH_CHECK_VALUE(x.dim() == 2 && x.scalar_type() == at::kDouble,
                    "capped_total: x must be a float64 tensor [rows, sites], got shape ",
                    x.sym_sizes());
  TORCH_CHECK_VALUE(cap > 0, "capped_total: cap must be above 0, got ", cap);
}

at::Tensor cpu(const at::Tensor& x, double cap) {
  check(x, cap);
  const at::Tensor in = x.contiguous();
  at::Tensor out = at::empty({in.size(0)}, in.options());
  const double* values = in.const_data_ptr<double>();
  double* sums = out.mutable_data_ptr<double>();
  at::parallel_for(0, in.size(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      sums[row] = newcomer::capped_total(values + row * in.size(1), in.size(1), cap);
  });
  return out;
}

at::Tensor meta(const at::Tensor& x, double cap) {
  check(x, cap);
  return at::empty_symint({x.sym_size(0)}, x.options());
}

at::Tensor call(const at::Tensor& x, double cap) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("newcomer::capped_total", "")
                             .typed<at::Tensor(const at::Tensor&, double)>();
  return op.call(x, cap);
}

struct CappedTotal : torch::autograd::Function<CappedTotal> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            double cap) {
    ctx->save_for_backward({x});
    ctx->saved_data["cap"] = cap;
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return call(x, cap);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const at::Tensor x = ctx->get_saved_variables()[0];
    return {x.lt(ctx->saved_data["cap"].toDouble()) * grads[0].unsqueeze(-1), at::Tensor()};
  }
};

at::Tensor autograd(const at::Tensor& x, double cap) { return CappedTotal::apply(x, cap); }

}  // namespace

TORCH_LIBRARY(newcomer, m) { m.def("capped_total(Tensor x, float cap) -> Tensor"); }
TORCH_LIBRARY_IMPL(newcomer, CPU, m) { m.impl("capped_total", cpu); }
TORCH_LIBRARY_IMPL(newcomer, Meta, m) { m.impl("capped_total", meta); }
TORCH_LIBRARY_IMPL(newcomer, Autograd, m) { m.impl("capped_total", autograd); }
