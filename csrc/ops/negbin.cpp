#include "negbin.h"

#include <ATen/Dispatch.h>
#include <ATen/ExpandUtils.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <torch/library.h>

#include <cmath>

#include "../../kernels/negbin.h"
#include "../require.h"
#include "autograd.h"
#include "common.h"
#include "key.h"
#include "negbin_checks.h"
#include "perturbed_topk_checks.h"
#include "scratch.h"

namespace topreach {

void check_negbin_parameters(const char* function, const at::Tensor& total_count,
                             const at::Tensor& logits) {
  TR_REQUIRE_TYPE(
      total_count.scalar_type() == at::kFloat || total_count.scalar_type() == at::kDouble,
      "{}: total_count must be float32 or float64, got {}", function, total_count.scalar_type());
  TR_REQUIRE_TYPE(logits.scalar_type() == total_count.scalar_type(),
                  "{}: logits must have the dtype of total_count ({}), got {}", function,
                  total_count.scalar_type(), logits.scalar_type());
  TR_REQUIRE(logits.device() == total_count.device(),
             "{}: logits must be on the device of total_count ({}), got {}", function,
             total_count.device(), logits.device());
}

void check_negbin_sample(const at::Tensor& total_count, const at::Tensor& logits,
                         int64_t num_samples, const at::Tensor& key, int64_t row_offset) {
  constexpr const char* name = "negbin_sample";
  check_negbin_parameters(name, total_count, logits);
  check_key(name, key, total_count.device());
  TR_REQUIRE(num_samples >= 0, "{}: num_samples must not be negative, got {}", name, num_samples);
  const auto core = check_broadcast(name, "logits", total_count.sizes(), logits.sizes());
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < core.size(); ++d) rows *= core[d];
  check_row_range(name, row_offset, rows);
}

void check_negbin_log_prob(const at::Tensor& value, const at::Tensor& total_count,
                           const at::Tensor& logits) {
  constexpr const char* name = "negbin_log_prob";
  check_negbin_parameters(name, total_count, logits);
  TR_REQUIRE_TYPE(value.scalar_type() == total_count.scalar_type(),
                  "{}: value must have the dtype of total_count ({}), got {}; convert "
                  "with value.to(total_count.dtype)",
                  name, total_count.scalar_type(), value.scalar_type());
  TR_REQUIRE(value.device() == total_count.device(),
             "{}: value must be on the device of total_count ({}), got {}", name,
             total_count.device(), value.device());
  check_broadcast(name, "value",
                  check_broadcast(name, "logits", total_count.sizes(), logits.sizes()),
                  value.sizes());
}

NegBinOperands negbin_operands(const at::Tensor& value, const at::Tensor& total_count,
                               const at::Tensor& logits) {
  std::vector<int64_t> core = at::infer_size(total_count.sizes(), logits.sizes());
  std::vector<int64_t> shape = at::infer_size(value.sizes(), core);
  int64_t inner = 1, total = 1;
  for (const int64_t n : core) inner *= n;
  for (const int64_t n : shape) total *= n;
  // If few parameters serve many values, they are expanded, which allows parallel work and full vectors.
  const bool aligned = std::equal(core.rbegin(), core.rend(), shape.rbegin());
  if (!aligned || (inner < 1024 && total > inner)) {
    core = shape;
    inner = total;
  }
  return {value.expand(shape).contiguous(), total_count.expand(core).contiguous(),
          logits.expand(core).contiguous(), shape,
          inner > 0 ? total / inner : 0,    inner};
}

namespace {

auto sample_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::negbin_sample", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&, int64_t,
                                               const at::Tensor&, int64_t)>();
  return op;
}

auto log_prob_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::negbin_log_prob", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>();
  return op;
}

auto backward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::negbin_log_prob_backward", "")
          .typed<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&,
                                                    const at::Tensor&, const at::Tensor&)>();
  return op;
}

// ------------------------------------------------------------------------------- CPU

at::Tensor negbin_sample_cpu(const at::Tensor& total_count, const at::Tensor& logits,
                             int64_t num_samples, const at::Tensor& key, int64_t row_offset) {
  check_negbin_sample(total_count, logits, num_samples, key, row_offset);
  const auto core = at::infer_size(total_count.sizes(), logits.sizes());
  const at::Tensor n = total_count.expand(core).contiguous(), z = logits.expand(core).contiguous();
  std::vector<int64_t> shape{num_samples};
  shape.insert(shape.end(), core.begin(), core.end());
  at::Tensor counts = at::empty(shape, n.options());
  if (n.numel() == 0) return counts;
  const auto [rows, sites] = core.empty() ? Rows{1, 1} : rows_of(n);
  TR_REQUIRE(sites < INT32_MAX,
             "negbin_sample: total_count must have fewer than 2^31 sites, got {}", sites);
  AT_DISPATCH_FLOATING_TYPES(n.scalar_type(), "negbin_sample", [&, rows = rows, sites = sites] {
    const scalar_t* n_data = n.const_data_ptr<scalar_t>();
    const scalar_t* z_data = z.const_data_ptr<scalar_t>();
    for (int64_t i = 0; i < rows * sites; ++i) {
      TR_REQUIRE(n_data[i] >= 0 && std::isfinite(n_data[i]),
                 "negbin_sample: total_count must be finite and not negative, got {} in "
                 "row {}, site {}",
                 n_data[i], i / sites, i % sites);
      TR_REQUIRE(z_data[i] < std::numeric_limits<scalar_t>::infinity(),
                 "negbin_sample: logits must be below +inf and not NaN, got {} in row "
                 "{}, site {}",
                 z_data[i], i / sites, i % sites);
    }
    if (num_samples == 0) return;
    const kernels::NegBinSampling<scalar_t> problem{
        n_data,      z_data,         rows,       sites,
        num_samples, key_words(key), row_offset, counts.mutable_data_ptr<scalar_t>()};
    const auto& cpu = kernels::negbin_cpu<scalar_t>();
    const int64_t grain = 1 + 8'000 / ((num_samples + 20) * kernels::kTableLanes);
    at::parallel_for(0, rows * kernels::negbin_tiles(sites), grain,
                     [&](int64_t begin, int64_t end) {
                       Scratch scratch(kernels::kNegBinSampleScratch);
                       cpu.sample(problem, begin, end, scratch.get());
                     });
  });
  return counts;
}

// Raises, naming the position, unless every value is a finite number >= 0 and no total_count is
// negative.
template <typename T>
void check_values(const NegBinOperands& in) {
  const T* value = in.value.const_data_ptr<T>();
  const T* total_count = in.total_count.const_data_ptr<T>();
  const T infinity = std::numeric_limits<T>::infinity();
  at::parallel_for(0, in.outer * in.inner, 1 << 16, [&](int64_t begin, int64_t end) {
    bool bad = false;
    for (int64_t i = begin; i < end; ++i) bad |= !((value[i] >= 0) & (value[i] < infinity));
    if (!bad) return;
    while ((value[begin] >= 0) & (value[begin] < infinity)) ++begin;
    const int64_t sites = in.shape.empty() ? 1 : in.shape.back();
    TR_REQUIRE(false,
               "negbin_log_prob: value must be a finite count, not negative, got {} "
               "in row {}, site {}",
               value[begin], begin / sites, begin % sites);
  });
  for (int64_t i = 0; i < in.inner; ++i) {
    TR_REQUIRE(!(total_count[i] < 0), "negbin_log_prob: total_count must not be negative, got {}",
               total_count[i]);
  }
}

at::Tensor negbin_log_prob_cpu(const at::Tensor& value, const at::Tensor& total_count,
                               const at::Tensor& logits) {
  check_negbin_log_prob(value, total_count, logits);
  const NegBinOperands in = negbin_operands(value, total_count, logits);
  at::Tensor log_prob = at::empty(in.shape, in.total_count.options());
  if (log_prob.numel() == 0) return log_prob;
  AT_DISPATCH_FLOATING_TYPES(log_prob.scalar_type(), "negbin_log_prob", [&] {
    check_values<scalar_t>(in);
    const kernels::NegBinLikelihood<scalar_t> problem{
        in.value.const_data_ptr<scalar_t>(), in.total_count.const_data_ptr<scalar_t>(),
        in.logits.const_data_ptr<scalar_t>(), in.outer, in.inner};
    scalar_t* out = log_prob.mutable_data_ptr<scalar_t>();
    const auto& cpu = kernels::negbin_cpu<scalar_t>();
    at::parallel_for(0, kernels::negbin_tiles(in.inner), 1 + 500 / (in.outer + 10),
                     [&](int64_t begin, int64_t end) {
                       Scratch scratch(kernels::kNegBinLikelihoodScratch);
                       cpu.log_prob(problem, begin, end, out, scratch.get());
                     });
  });
  return log_prob;
}

std::tuple<at::Tensor, at::Tensor> negbin_log_prob_backward_cpu(const at::Tensor& grad,
                                                                const at::Tensor& value,
                                                                const at::Tensor& total_count,
                                                                const at::Tensor& logits) {
  const NegBinOperands in = negbin_operands(value, total_count, logits);
  const at::Tensor g = grad.expand(in.shape).contiguous();
  at::Tensor d_total_count = at::empty_like(in.total_count), d_logits = at::empty_like(in.logits);
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "negbin_log_prob_backward", [&] {
    const kernels::NegBinLikelihood<scalar_t> problem{
        in.value.const_data_ptr<scalar_t>(), in.total_count.const_data_ptr<scalar_t>(),
        in.logits.const_data_ptr<scalar_t>(), in.outer, in.inner};
    scalar_t* dn = d_total_count.mutable_data_ptr<scalar_t>();
    scalar_t* dz = d_logits.mutable_data_ptr<scalar_t>();
    const auto& cpu = kernels::negbin_cpu<scalar_t>();
    at::parallel_for(0, kernels::negbin_tiles(in.inner), 1 + 500 / (in.outer + 10),
                     [&](int64_t begin, int64_t end) {
                       Scratch scratch(kernels::kNegBinLikelihoodScratch);
                       cpu.backward(problem, begin, end, g.const_data_ptr<scalar_t>(), dn, dz,
                                    scratch.get());
                     });
  });
  return {at::sum_to(d_total_count, total_count.sizes()), at::sum_to(d_logits, logits.sizes())};
}

// ------------------------------------------------------------------------------- Meta

at::Tensor negbin_sample_meta(const at::Tensor& total_count, const at::Tensor& logits,
                              int64_t num_samples, const at::Tensor&, int64_t) {
  const at::Tensor core = at::add(total_count, logits);
  std::vector<c10::SymInt> shape{num_samples};
  for (const auto& n : core.sym_sizes()) shape.push_back(n);
  return at::empty_symint(shape, total_count.options());
}

at::Tensor negbin_log_prob_meta(const at::Tensor& value, const at::Tensor& total_count,
                                const at::Tensor& logits) {
  const at::Tensor shape = at::add(at::add(total_count, logits), value);
  return at::empty_symint(shape.sym_sizes(), total_count.options());
}

std::tuple<at::Tensor, at::Tensor> negbin_log_prob_backward_meta(const at::Tensor&,
                                                                 const at::Tensor&,
                                                                 const at::Tensor& total_count,
                                                                 const at::Tensor& logits) {
  return {at::empty_symint(total_count.sym_sizes(), total_count.options()),
          at::empty_symint(logits.sym_sizes(), logits.options())};
}

// ------------------------------------------------------------------------------- autograd

at::Tensor negbin_log_prob_autograd(const at::Tensor& value, const at::Tensor& total_count,
                                    const at::Tensor& logits) {
  const at::Tensor log_prob = [&] {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return log_prob_op().call(value, total_count, logits);
  }();
  set_derivative(
      "NegBinLogProb", log_prob, {total_count, logits}, {value.detach(), total_count, logits},
      [](const at::Tensor& grad, const Tensors& saved) {
        auto [to_total_count, to_logits] = backward_op().call(grad, saved[0], saved[1], saved[2]);
        return Tensors{to_total_count, to_logits};
      });
  const at::Tensor t_n = tangent_of(total_count), t_z = tangent_of(logits);
  if (!t_n.defined() && !t_z.defined()) return log_prob;
  // Elementwise: with expanded parameters, backward of ones gives the derivatives.
  const auto [d_n, d_z] = backward_op().call(
      at::ones_like(log_prob.detach()), primal_of(value.detach()),
      primal_of(total_count).expand_as(log_prob), primal_of(logits).expand_as(log_prob));
  at::Tensor tangent = t_n.defined() ? d_n * t_n : d_z * t_z;
  if (t_n.defined() && t_z.defined()) tangent = tangent + d_z * t_z;
  set_tangent(log_prob, tangent);
  return log_prob;
}

}  // namespace

at::Tensor negbin_sample(const at::Tensor& total_count, const at::Tensor& logits,
                         int64_t num_samples, const NegBinSampleOptions& options) {
  check_defined("negbin_sample", "total_count", total_count);
  check_defined("negbin_sample", "logits", logits);
  if (options.key) check_defined("negbin_sample", "key", *options.key);
  const at::Tensor key =
      options.key ? *options.key : draw_key(options.generator, total_count.device());
  return sample_op().call(total_count, logits, num_samples, key, options.row_offset);
}

at::Tensor negbin_log_prob(const at::Tensor& value, const at::Tensor& total_count,
                           const at::Tensor& logits) {
  check_defined("negbin_log_prob", "value", value);
  check_defined("negbin_log_prob", "total_count", total_count);
  check_defined("negbin_log_prob", "logits", logits);
  return log_prob_op().call(value, total_count, logits);
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("negbin_sample", negbin_sample_cpu);
  m.impl("negbin_log_prob", negbin_log_prob_cpu);
  m.impl("negbin_log_prob_backward", negbin_log_prob_backward_cpu);
}

TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("negbin_sample", negbin_sample_meta);
  m.impl("negbin_log_prob", negbin_log_prob_meta);
  m.impl("negbin_log_prob_backward", negbin_log_prob_backward_meta);
}

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("negbin_sample", torch::CppFunction::makeFromBoxedFunction<&constant_result>());
  m.impl("negbin_log_prob", negbin_log_prob_autograd);
  m.impl("negbin_log_prob_backward",
         torch::CppFunction::makeFromBoxedFunction<&differentiable_once>());
}

}  // namespace topreach
