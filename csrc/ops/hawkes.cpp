#include "hawkes.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <cmath>
#include <string_view>

#include "../require.h"
#include "autograd.h"
#include "hawkes_checks.h"
#include "scratch.h"

namespace topreach {
namespace {

constexpr const char* kName = "hawkes_log_likelihood";
constexpr const char* kGradient = "topreach::hawkes_log_likelihood_gradient";
constexpr int64_t kItemsTogether = 8;  // items that a vector holds
using Optional = std::optional<at::Tensor>;
using Derivatives = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

Derivatives derivatives_cpu(const at::Tensor& time, const at::Tensor& node, const at::Tensor& marks,
                            const at::Tensor& edges, const at::Tensor& weights,
                            const at::Tensor& covariates, const at::Tensor& distance,
                            const at::Tensor& refresh, const Optional& joint,
                            const Optional& either, const Optional& prior, double prior_weight,
                            const at::Tensor& item_node, const at::Tensor& parameters,
                            int64_t order) {
  check_hawkes_derivatives(kName, joint, either, prior, order);
  const HawkesTensors problem(kName,
                              events_of(time, node, marks, edges, weights, covariates, distance,
                                        refresh, joint, either, prior, prior_weight),
                              item_node, parameters);
  const int64_t items = problem.items(), size = problem.size();
  const auto options = at::TensorOptions().dtype(at::kDouble);
  at::Tensor value = at::empty({items}, options);
  at::Tensor gradient = at::empty({items, order >= 1 ? size : 0}, options);
  at::Tensor hessian = at::empty({items, order == 2 ? size : 0, order == 2 ? size : 0}, options);
  at::Tensor failed = at::empty({items}, options.dtype(at::kLong));
  const kernels::HawkesItems out{problem.item_node(),
                                 problem.parameters(),
                                 value.mutable_data_ptr<double>(),
                                 order >= 1 ? gradient.mutable_data_ptr<double>() : nullptr,
                                 order == 2 ? hessian.mutable_data_ptr<double>() : nullptr,
                                 failed.mutable_data_ptr<int64_t>()};
  const int64_t groups = (items + kItemsTogether - 1) / kItemsTogether;
  at::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
    const Scratch scratch(kernels::hawkes_cpu().scratch(problem.view()));
    kernels::hawkes_cpu().evaluate(problem.view(), out, begin * kItemsTogether,
                                   std::min(end * kItemsTogether, items), scratch.get());
  });
  return {value, gradient, hessian, failed};
}

Derivatives derivatives_meta(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                             const at::Tensor&, const at::Tensor&, const at::Tensor&,
                             const at::Tensor&, const at::Tensor&, const Optional&, const Optional&,
                             const Optional&, double, const at::Tensor& item_node,
                             const at::Tensor& parameters, int64_t order) {
  const c10::SymInt items = parameters.sym_size(0), size = parameters.sym_size(1), none = 0;
  const auto options = parameters.options().dtype(at::kDouble);
  return {at::empty_symint({items}, options),
          at::empty_symint({items, order >= 1 ? size : none}, options),
          at::empty_symint({items, order == 2 ? size : none, order == 2 ? size : none}, options),
          at::empty_symint({items}, item_node.options().dtype(at::kLong))};
}

auto derivatives_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::hawkes_derivatives", "")
          .typed<Derivatives(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                             const at::Tensor&, const at::Tensor&, const at::Tensor&,
                             const at::Tensor&, const at::Tensor&, const Optional&, const Optional&,
                             const Optional&, double, const at::Tensor&, const at::Tensor&,
                             int64_t)>();
  return op;
}

// ---- the value with its derivatives, for autograd ---------------------------------------------------

Optional given(const at::Tensor& tensor) {
  return tensor.defined() ? Optional(tensor) : std::nullopt;
}

// Calls an operator with an events table; further arguments stand before and after its tensors.
template <typename Result, typename... Before>
Result call_with(const char* op, const HawkesEvents& e, const at::Tensor& item_node,
                 const at::Tensor& parameters, const Before&... before) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(op, "")
      .typed<Result(const Before&..., const at::Tensor&, const at::Tensor&, const at::Tensor&,
                    const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                    const at::Tensor&, const Optional&, const Optional&, const Optional&, double,
                    const at::Tensor&, const at::Tensor&)>()
      .call(before..., e.time, e.node, e.marks, e.edges, e.weights, e.covariates, e.distance,
            e.refresh, given(e.joint), given(e.either), given(e.prior), e.prior_weight, item_node,
            parameters);
}

std::tuple<at::Tensor, at::Tensor> checked(const HawkesEvents& e, const at::Tensor& item_node,
                                           const at::Tensor& parameters, int64_t order) {
  const auto [value, gradient, hessian, failed] =
      hawkes_derivatives(e, item_node, parameters, order);
  const at::Tensor bad = failed.ge(0);
  if (bad.any().item<bool>()) {
    const int64_t item = bad.nonzero()[0].item<int64_t>();
    TR_REQUIRE(false,
               "{}: parameters must give a rate above 0 at every event, got {} for node {} at "
               "event {}. Raise log gamma, the first parameter",
               kName, "0 or a number that is not finite", item_node[item].item<int64_t>(),
               failed[item].item<int64_t>());
  }
  return {value.to(parameters.scalar_type()), gradient.to(parameters.scalar_type())};
}

at::Tensor log_likelihood(const at::Tensor& time, const at::Tensor& node, const at::Tensor& marks,
                          const at::Tensor& edges, const at::Tensor& weights,
                          const at::Tensor& covariates, const at::Tensor& distance,
                          const at::Tensor& refresh, const Optional& joint, const Optional& either,
                          const Optional& prior, double prior_weight, const at::Tensor& item_node,
                          const at::Tensor& parameters) {
  return std::get<0>(checked(events_of(time, node, marks, edges, weights, covariates, distance,
                                       refresh, joint, either, prior, prior_weight),
                             item_node, parameters, 0));
}

at::Tensor log_likelihood_meta(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                               const at::Tensor&, const at::Tensor&, const at::Tensor&,
                               const at::Tensor&, const at::Tensor&, const Optional&,
                               const Optional&, const Optional&, double, const at::Tensor&,
                               const at::Tensor& parameters) {
  return at::empty_symint({parameters.sym_size(0)}, parameters.options());
}

std::tuple<at::Tensor, at::Tensor> log_likelihood_gradient(
    const at::Tensor& time, const at::Tensor& node, const at::Tensor& marks,
    const at::Tensor& edges, const at::Tensor& weights, const at::Tensor& covariates,
    const at::Tensor& distance, const at::Tensor& refresh, const Optional& joint,
    const Optional& either, const Optional& prior, double prior_weight, const at::Tensor& item_node,
    const at::Tensor& parameters) {
  return checked(events_of(time, node, marks, edges, weights, covariates, distance, refresh, joint,
                           either, prior, prior_weight),
                 item_node, parameters, 1);
}

std::tuple<at::Tensor, at::Tensor> log_likelihood_gradient_meta(
    const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
    const at::Tensor&, const at::Tensor&, const at::Tensor&, const Optional&, const Optional&,
    const Optional&, double, const at::Tensor&, const at::Tensor& parameters) {
  return {at::empty_symint({parameters.sym_size(0)}, parameters.options()),
          at::empty_symint(parameters.sym_sizes(), parameters.options())};
}

at::Tensor hessian_times(const HawkesEvents& e, const at::Tensor& item_node,
                         const at::Tensor& parameters, const at::Tensor& vector) {
  const at::Tensor hessian = std::get<2>(hawkes_derivatives(e, item_node, parameters.detach(), 2));
  return hessian.to(vector.scalar_type()).matmul(vector.unsqueeze(-1)).squeeze(-1);
}

// The value's derivative is the gradient, whose derivative is the Hessian.
std::tuple<at::Tensor, at::Tensor> log_likelihood_gradient_autograd(
    const at::Tensor& time, const at::Tensor& node, const at::Tensor& marks,
    const at::Tensor& edges, const at::Tensor& weights, const at::Tensor& covariates,
    const at::Tensor& distance, const at::Tensor& refresh, const Optional& joint,
    const Optional& either, const Optional& prior, double prior_weight, const at::Tensor& item_node,
    const at::Tensor& parameters) {
  const HawkesEvents e = events_of(time, node, marks, edges, weights, covariates, distance, refresh,
                                   joint, either, prior, prior_weight);
  const at::Tensor tangent = tangent_of(parameters), primal = primal_of(parameters);
  const auto [value, gradient] = [&] {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return call_with<std::tuple<at::Tensor, at::Tensor>>(kGradient, e, item_node, primal);
  }();
  set_derivative("HawkesLogLikelihoodGradient", gradient, {parameters}, {parameters},
                 [e, item_node](const at::Tensor& outer, const Tensors& saved) {
                   TR_REQUIRE(!at::GradMode::is_enabled(),
                              "{}: the operator must be differentiated twice at most, got a third "
                              "derivative; leave out create_graph=True",
                              kName);
                   return Tensors{hessian_times(e, item_node, saved[0], outer)};
                 });
  set_derivative("HawkesLogLikelihood", value, {parameters}, {gradient},
                 [](const at::Tensor& grad, const Tensors& saved) {
                   return Tensors{grad.unsqueeze(-1) * saved[0]};
                 });
  if (tangent.defined()) {
    set_tangent(value, (gradient.detach() * tangent).sum(-1));
    set_tangent(gradient, hessian_times(e, item_node, primal, tangent));
  }
  return {value, gradient};
}

at::Tensor log_likelihood_autograd(const at::Tensor& time, const at::Tensor& node,
                                   const at::Tensor& marks, const at::Tensor& edges,
                                   const at::Tensor& weights, const at::Tensor& covariates,
                                   const at::Tensor& distance, const at::Tensor& refresh,
                                   const Optional& joint, const Optional& either,
                                   const Optional& prior, double prior_weight,
                                   const at::Tensor& item_node, const at::Tensor& parameters) {
  const HawkesEvents e = events_of(time, node, marks, edges, weights, covariates, distance, refresh,
                                   joint, either, prior, prior_weight);
  if ((at::GradMode::is_enabled() && parameters.requires_grad()) ||
      tangent_of(parameters).defined())
    return std::get<0>(
        call_with<std::tuple<at::Tensor, at::Tensor>>(kGradient, e, item_node, parameters));
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return call_with<at::Tensor>("topreach::hawkes_log_likelihood", e, item_node, parameters);
}

}  // namespace

Derivatives hawkes_derivatives(const HawkesEvents& e, const at::Tensor& item_node,
                               const at::Tensor& parameters, int64_t order) {
  return derivatives_op().call(e.time, e.node, e.marks, e.edges, e.weights, e.covariates,
                               e.distance, e.refresh, given(e.joint), given(e.either),
                               given(e.prior), e.prior_weight, item_node, parameters, order);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> hawkes_network(const at::Tensor& together,
                                                              const at::Tensor& events,
                                                              std::string_view kind) {
  TR_REQUIRE(
      together.dim() == 4 && together.size(2) == together.size(3) && events.dim() == 2 &&
          events.size(0) == together.size(0) && events.size(1) == together.size(1),
      "hawkes_network: together must have shape [Q, I, S, S] and events [Q, I], got {} and {}",
      together.sizes(), events.sizes());
  const at::Tensor joint = together.to(at::kDouble).permute({0, 2, 3, 1});
  at::Tensor either;
  if (kind == "jaccard") {
    const at::Tensor own = together.to(at::kDouble).diagonal(0, 2, 3).transpose(1, 2);  // [Q, S, I]
    either = own.unsqueeze(2) + own.unsqueeze(1) - joint;
  } else {
    TR_REQUIRE(kind == "share", "hawkes_network: kind must be 'jaccard' or 'share', got '{}'",
               kind);
    either = events.to(at::kDouble).unsqueeze(1).unsqueeze(1).expand_as(joint);
  }
  const at::Tensor all = either.sum(-1);
  const int64_t types = together.size(2);
  // Before any event, a type is linked only with itself.
  const at::Tensor none = at::eye(types, joint.options()).expand_as(all);
  const at::Tensor prior = at::where(all > 0, joint.sum(-1) / all.clamp_min(1), none);
  return {joint.to(at::kFloat).contiguous(), either.to(at::kFloat).contiguous(),
          prior.contiguous()};
}

at::Tensor hawkes_theta(const at::Tensor& joint, const at::Tensor& either, const at::Tensor& prior,
                        double prior_weight, int64_t refresh) {
  TR_REQUIRE(joint.dim() == 4 && either.sizes() == joint.sizes() &&
                 prior.sizes() == joint.sizes().slice(0, 3),
             "hawkes_theta: joint and either must have shape [Q, S, S, I] and prior [Q, S, S], got "
             "{}, {} and {}",
             joint.sizes(), either.sizes(), prior.sizes());
  TR_REQUIRE(refresh >= 0 && refresh < joint.size(0),
             "hawkes_theta: refresh must lie from 0 to {}, got {}", joint.size(0) - 1, refresh);
  const at::Tensor a = joint.to(at::kCPU, at::kFloat).contiguous(),
                   b = either.to(at::kCPU, at::kFloat).contiguous(), c = doubles(prior);
  kernels::HawkesProblem problem{};
  problem.types = joint.size(1);
  problem.places = joint.size(3);
  problem.theta = {nullptr,
                   a.const_data_ptr<float>(),
                   b.const_data_ptr<float>(),
                   c.const_data_ptr<double>(),
                   prior_weight,
                   joint.size(0)};
  const int64_t nodes = problem.places * problem.types;
  at::Tensor theta = at::empty({nodes, nodes}, at::kDouble);
  double* out = theta.mutable_data_ptr<double>();
  for (int64_t u = 0; u < nodes; ++u)
    for (int64_t v = 0; v < nodes; ++v)
      out[u * nodes + v] = kernels::hawkes_theta_of(problem, refresh, u, v);
  return theta;
}

namespace {

void check_coordinates(const char* name, const at::Tensor& t, int64_t covariates) {
  TR_REQUIRE(t.dim() >= 1 && covariates >= 0 && t.size(-1) >= covariates + 4,
             "{}: parameters must have shape [..., p + q + 4] with p = {}, got {}", name,
             covariates, t.sizes());
}

template <typename Map>
at::Tensor by_row(const char* name, const at::Tensor& given, int64_t covariates, const Map& map) {
  check_coordinates(name, given, covariates);
  const at::Tensor in = doubles(given);
  at::Tensor out = at::empty_like(in);
  const int64_t size = in.size(-1), rows = in.numel() / size;
  for (int64_t r = 0; r < rows; ++r)
    map(covariates, size - covariates - 4, in.const_data_ptr<double>() + r * size,
        out.mutable_data_ptr<double>() + r * size);
  return out;
}

}  // namespace

at::Tensor hawkes_natural(const at::Tensor& working, int64_t covariates) {
  return by_row("hawkes_natural", working, covariates, kernels::hawkes_natural);
}

at::Tensor hawkes_working(const at::Tensor& parameters, int64_t covariates) {
  return by_row("hawkes_working", parameters, covariates, kernels::hawkes_working);
}

std::tuple<at::Tensor, at::Tensor> hawkes_chain(const at::Tensor& working,
                                                const at::Tensor& gradient,
                                                const at::Tensor& hessian, int64_t covariates) {
  constexpr const char* name = "hawkes_chain";
  check_coordinates(name, working, covariates);
  const int64_t items = working.size(0), size = working.size(-1);
  TR_REQUIRE(working.dim() == 2 && gradient.sizes() == working.sizes() &&
                 hessian.sizes() == at::IntArrayRef({items, size, size}),
             "{}: gradient must have shape [R, P] and hessian [R, P, P], got {} and {}", name,
             gradient.sizes(), hessian.sizes());
  const at::Tensor w = doubles(working);
  at::Tensor g = doubles(gradient).clone(), h = doubles(hessian).clone();
  for (int64_t r = 0; r < items; ++r)
    kernels::hawkes_chain(covariates, size - covariates - 4, w.const_data_ptr<double>() + r * size,
                          g.mutable_data_ptr<double>() + r * size,
                          h.mutable_data_ptr<double>() + r * size * size);
  return {g, h};
}

std::tuple<at::Tensor, at::Tensor> hawkes_anchor(const at::Tensor& decay, const at::Tensor& jump,
                                                 const at::Tensor& rate) {
  constexpr double kMost = 0.8;  // of a recent rate that excitation may explain
  TR_REQUIRE(decay.dim() == 1 && rate.sizes() == decay.sizes() && jump.dim() == 2 &&
                 jump.size(0) == decay.size(0) && jump.size(1) == decay.size(0),
             "hawkes_anchor: decay and rate must have shape [M] and jump [M, M], got {}, {} and {}",
             decay.sizes(), rate.sizes(), jump.sizes());
  TR_REQUIRE(rate.gt(0).all().item<bool>(),
             "hawkes_anchor: rate must be above 0 at every node, got {}",
             rate.min().item<double>());
  const at::Tensor excited = (jump / decay.unsqueeze(1)).matmul(rate);
  const at::Tensor factor = (kMost * rate / excited.clamp_min(1e-300)).clamp_max(1.0);
  return {rate - factor * excited, factor};
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("hawkes_derivatives", derivatives_cpu);
  m.impl("hawkes_log_likelihood", log_likelihood);
  m.impl("hawkes_log_likelihood_gradient", log_likelihood_gradient);
}
// These call hawkes_derivatives, whose CUDA version is in cuda/hawkes.cpp.
TORCH_LIBRARY_IMPL(topreach, CUDA, m) {
  m.impl("hawkes_log_likelihood", log_likelihood);
  m.impl("hawkes_log_likelihood_gradient", log_likelihood_gradient);
}
TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("hawkes_derivatives", derivatives_meta);
  m.impl("hawkes_log_likelihood", log_likelihood_meta);
  m.impl("hawkes_log_likelihood_gradient", log_likelihood_gradient_meta);
}
TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("hawkes_derivatives", torch::autograd::autogradNotImplementedFallback());
  m.impl("hawkes_log_likelihood", log_likelihood_autograd);
  m.impl("hawkes_log_likelihood_gradient", log_likelihood_gradient_autograd);
}
TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("hawkes_natural", hawkes_natural);
  m.impl("hawkes_working", hawkes_working);
  m.impl("hawkes_chain", hawkes_chain);
  m.impl("hawkes_anchor", hawkes_anchor);
  m.impl("hawkes_network", hawkes_network);
  m.impl("hawkes_theta", hawkes_theta);
}

}  // namespace topreach
