// Ratio ranking of samples whose gradient goes through the distribution functions of the sites: the
// GO estimator [Cong, Zhao, Bai and Carin 2019, GO Gradient for Expectation-Based Objectives].
//
// For independent counts with distribution functions F_s, summation by parts gives
//   dE[R(y)]/dtheta = -sum_s E[(dF_s(y_s)/dtheta) / p_s(y_s) (R(y + e_s) - R(y))],
// and for the reach R(y) = g.y / (c + 1.y), with R(0) := 0, R(y + e_s) - R(y) is
// (g_s - R(y)) / (c + 1.y + 1). So cdf_s^m gets the weight (R^m - g_s) / (M p_s^m (c + 1.y^m + 1)).
//
// The noise is multiplied only by a factor 1/p, which has the order of the cdf's own derivative. No
// log-probability of other sites enters, so the variance is small. Cost and memory: those of three
// arrays like the samples.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <cmath>
#include <limits>

#include "../require.h"
#include "autograd.h"
#include "ratio_ranking.h"

namespace topreach {
namespace {

constexpr const char* kName = "ratio_ranking";

void check_like_samples(const at::Tensor& samples, const at::Tensor& tensor, const char* argument) {
  TR_REQUIRE(tensor.sym_sizes() == samples.sym_sizes(),
             "{}: {} must have shape {} for estimator 'go', got {}; give it site by "
             "site",
             kName, argument, samples.sym_sizes(), tensor.sym_sizes());
  TR_REQUIRE_TYPE(tensor.scalar_type() == samples.scalar_type(),
                  "{}: {} must have the dtype of samples ({}), got {}", kName, argument,
                  samples.scalar_type(), tensor.scalar_type());
  TR_REQUIRE(tensor.device() == samples.device(),
             "{}: {} must be on the device of samples ({}), got {}", kName, argument,
             samples.device(), tensor.device());
}

at::Tensor forward(const at::Tensor& samples, const at::Tensor& log_prob, const at::Tensor& cdf,
                   double offset) {
  at::Tensor ranking = ratio_ranking(samples, std::nullopt, offset, "score");
  check_like_samples(samples, log_prob, "log_prob");
  check_like_samples(samples, cdf, "cdf");
  return ranking;
}

// 1 / p, or 0 if p underflows: such a count is never drawn, and adds nothing if given.
at::Tensor inverse_probs(const at::Tensor& log_prob) {
  const double least = 0.9 * std::log(log_prob.scalar_type() == at::kFloat
                                          ? double(std::numeric_limits<float>::min())
                                          : std::numeric_limits<double>::min());
  return at::where(log_prob.lt(least), 0, log_prob.clamp_min(least).neg().exp());
}

at::Tensor backward(const at::Tensor& grad, const at::Tensor& samples, const at::Tensor& log_prob,
                    double offset) {
  check_like_samples(samples, log_prob, "log_prob");
  TR_REQUIRE(grad.sym_sizes() == samples.sym_sizes().slice(1),
             "{}_go_backward: grad must have the shape of one sample, {}, got {}", kName,
             samples.sym_sizes().slice(1), grad.sym_sizes());
  const at::Tensor total = samples.sum(-1, true) + offset;
  const at::Tensor dot = (samples * grad).sum(-1, true);
  const at::Tensor reach = at::where(total.gt(0), dot / total, 0);
  const at::Tensor change = (reach - grad) / ((total + 1) * double(samples.size(0)));
  return change * inverse_probs(log_prob);
}

auto forward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::ratio_ranking_go", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>();
  return op;
}

auto backward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::ratio_ranking_go_backward", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>();
  return op;
}

// The transpose of backward: sum_m y^m / (c + 1.y^m) (a^m . t^m) - a^m t^m, for a tangent t of cdf
// and a^m = 1 / (M p^m (c + 1.y^m + 1)).
at::Tensor forward_mode(const at::Tensor& tangent, const at::Tensor& samples,
                        const at::Tensor& log_prob, double offset) {
  const at::Tensor total = samples.sum(-1, true) + offset;
  const at::Tensor share = samples / at::where(total.gt(0), total, 1);
  const at::Tensor weighted =
      tangent * inverse_probs(log_prob) / ((total + 1) * double(samples.size(0)));
  return (share * weighted.sum(-1, true) - weighted).sum(0);
}

at::Tensor autograd(const at::Tensor& samples, const at::Tensor& log_prob, const at::Tensor& cdf,
                    double offset) {
  const at::Tensor result = [&] {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return forward_op().call(samples, log_prob, cdf, offset);
  }();
  const at::Tensor y = primal_of(samples.detach()), log_p = primal_of(log_prob.detach());
  set_derivative("RatioRankingGo", result, {cdf}, {y, log_p},
                 [=](const at::Tensor& v, const Tensors& saved) {
                   return Tensors{backward_op().call(v, saved[0], saved[1], offset)};
                 });
  const at::Tensor tangent = tangent_of(cdf);
  if (tangent.defined()) set_tangent(result, forward_mode(tangent, y, log_p, offset));
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CompositeExplicitAutograd, m) {
  m.impl("ratio_ranking_go", forward);
  m.impl("ratio_ranking_go_backward", backward);
}

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("ratio_ranking_go", autograd);
  m.impl("ratio_ranking_go_backward",
         torch::CppFunction::makeFromBoxedFunction<&differentiable_once>());
}

}  // namespace topreach
