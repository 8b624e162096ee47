// The marginal likelihood of counts with site effects. The equations are in
// kernels/laplace_marginal.h and kernels/site_quadrature.h, the families in
// kernels/count_families.h.
#include "laplace_marginal.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "../../kernels/gauss_hermite.h"
#include "../../kernels/site_quadrature.h"
#include "../require.h"
#include "scratch.h"

namespace topreach {
namespace {

constexpr const char* kName = "laplace_marginal";
constexpr int64_t kMostNodes = 100;
constexpr int64_t kSitesTogether = 64;  // sites whose gradients for loading are summed separately
using Optional = std::optional<at::Tensor>;
using Marginals = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

kernels::CountFamily parse_family(std::string_view family) {
  if (family == "poisson") return kernels::CountFamily::kPoisson;
  if (family == "nb1") return kernels::CountFamily::kNB1;
  TR_REQUIRE(family == "nb2", "{}: family must be 'nb1', 'nb2' or 'poisson', got '{}'", kName,
             family);
  return kernels::CountFamily::kNB2;
}

void check_floating(const char* name, const at::Tensor& tensor, const char* argument) {
  TR_REQUIRE_TYPE(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble,
                  "{}: {} must be float32 or float64, got {}", name, argument,
                  tensor.scalar_type());
}

void check_pairs(const char* name, const at::Tensor& tensor, const char* argument,
                 const c10::SymInt& periods) {
  check_floating(name, tensor, argument);
  TR_REQUIRE(tensor.dim() == 2 && tensor.sym_size(0) == periods && tensor.sym_size(1) == 2,
             "{}: {} must have shape [T, 2] with T = {}, got {}", name, argument, periods,
             tensor.sym_sizes());
}

void check(const at::Tensor& eta, const at::Tensor& loading, const at::Tensor& y,
           const Optional& upper, const Optional& exposure, const Optional& weights,
           const Optional& dispersion, const Optional& zero_logit, std::string_view family,
           std::string_view link, const Optional& path, int64_t quadrature) {
  TR_REQUIRE(quadrature >= 1 && quadrature <= kMostNodes,
             "{}: quadrature must be from 1 to {} nodes, got {}", kName, kMostNodes, quadrature);
  TR_REQUIRE(quadrature == 1 || !path,
             "{}: quadrature must be 1 with a path, got {}: the path has a dimension for every "
             "period, so Laplace's approximation is used",
             kName, quadrature);
  TR_REQUIRE(link == "log" || link == "softplus", "{}: link must be 'log' or 'softplus', got '{}'",
             kName, link);
  const bool poisson = parse_family(family) == kernels::CountFamily::kPoisson;
  check_floating(kName, eta, "eta");
  TR_REQUIRE(eta.dim() == 2, "{}: eta must have shape [T, S], got {}", kName, eta.sym_sizes());
  check_pairs(kName, loading, "loading", eta.sym_size(0));
  if (path) check_pairs(kName, *path, "path", eta.sym_size(0));
  const auto like_eta = [&](const Optional& tensor, const char* argument) {
    if (!tensor) return;
    check_floating(kName, *tensor, argument);
    TR_REQUIRE(tensor->sym_sizes() == eta.sym_sizes(), "{}: {} must have shape [T, S] = {}, got {}",
               kName, argument, eta.sym_sizes(), tensor->sym_sizes());
  };
  like_eta(y, "y");
  like_eta(upper, "upper");
  like_eta(exposure, "exposure");
  like_eta(weights, "weights");
  TR_REQUIRE(dispersion.has_value() != poisson, "{}: dispersion must be {} for family '{}'", kName,
             poisson ? "None" : "given", family);
  for (const auto& [tensor, argument] :
       {std::pair{dispersion, "dispersion"}, std::pair{zero_logit, "zero_logit"}}) {
    if (!tensor) continue;
    check_floating(kName, *tensor, argument);
    TR_REQUIRE(tensor->dim() == 0, "{}: {} must be a scalar, got shape {}", kName, argument,
               tensor->sym_sizes());
  }
}

// The arguments as contiguous float64 on the CPU; data by site, [S, T].
struct Problem {
  kernels::CountModel model;
  int64_t periods, sites;
  at::Tensor eta, loading, low, high, log_exposure, weight, path;

  kernels::SiteCounts site(int64_t s) const {
    const auto row = [&](const at::Tensor& tensor) {
      return tensor.const_data_ptr<double>() + s * periods;
    };
    return {row(eta),    row(log_exposure),
            row(low),    row(high),
            row(weight), loading.const_data_ptr<double>(),
            periods,     path.defined() ? path.const_data_ptr<double>() : nullptr};
  }
  int64_t path_periods() const { return path.defined() ? periods : 0; }
};

Problem problem_of(const at::Tensor& eta, const at::Tensor& loading, const at::Tensor& y,
                   const Optional& upper, const Optional& exposure, const Optional& weights,
                   const Optional& dispersion, const Optional& zero_logit, std::string_view family,
                   std::string_view link, const Optional& path) {
  const auto plain = [](const at::Tensor& tensor) {
    return tensor.detach().to(at::kCPU, at::kDouble);
  };
  const auto by_site = [&](const at::Tensor& tensor) { return plain(tensor).t().contiguous(); };
  Problem p{{parse_family(family), link == "softplus", zero_logit.has_value(),
             dispersion ? plain(*dispersion).item<double>() : 0.0,
             zero_logit ? plain(*zero_logit).item<double>() : 0.0},
            eta.size(0),
            eta.size(1),
            by_site(eta),
            plain(loading).contiguous(),
            by_site(y),
            {},
            {},
            {},
            path ? plain(*path).contiguous() : at::Tensor()};
  p.high = upper ? by_site(*upper) : p.low;
  p.weight = weights ? by_site(*weights) : at::ones_like(p.eta);
  p.log_exposure = exposure ? by_site(*exposure) : at::ones_like(p.eta);
  const double* low = p.low.const_data_ptr<double>();
  const double* high = p.high.const_data_ptr<double>();
  const double* weight = p.weight.const_data_ptr<double>();
  double* exposed = p.log_exposure.mutable_data_ptr<double>();
  for (int64_t i = 0; i < p.periods * p.sites; ++i) {
    const auto where = [&] {
      return " at period " + std::to_string(i % p.periods) + ", site " +
             std::to_string(i / p.periods);
    };
    TR_REQUIRE(weight[i] >= 0 && std::isfinite(weight[i]),
               "{}: weights must be finite and not negative, got {}{}", kName, weight[i], where());
    if (weight[i] == 0) continue;
    TR_REQUIRE(low[i] >= 0 && low[i] == std::floor(low[i]) && low[i] < 1e15,
               "{}: y must hold whole numbers >= 0, got {}{}", kName, low[i], where());
    TR_REQUIRE(high[i] >= low[i] && high[i] == std::floor(high[i]) && high[i] < 1e15,
               "{}: upper must hold whole numbers not below y, got {} for y = {}{}", kName, high[i],
               low[i], where());
    TR_REQUIRE(exposed[i] > 0 && std::isfinite(exposed[i]),
               "{}: exposure must be positive and finite, got {}{}", kName, exposed[i], where());
    exposed[i] = std::log(exposed[i]);
  }
  return p;
}

// The quadrature rule of one dimension.
struct Rule {
  explicit Rule(int64_t count) : nodes(count), log_weights(count) {
    kernels::gauss_hermite(int(count), nodes.data(), log_weights.data());
  }
  kernels::QuadratureRule view() const {
    return {nodes.data(), log_weights.data(), int(nodes.size())};
  }
  std::vector<double> nodes, log_weights;
};

Scratch site_scratch(int64_t periods) {
  return Scratch(int64_t(sizeof(double)) * kernels::kSiteScratch * std::max<int64_t>(periods, 1));
}

Marginals forward(const at::Tensor& eta, const at::Tensor& loading, const at::Tensor& y,
                  const Optional& upper, const Optional& exposure, const Optional& weights,
                  const Optional& dispersion, const Optional& zero_logit, std::string_view family,
                  std::string_view link, const Optional& path, int64_t quadrature) {
  check(eta, loading, y, upper, exposure, weights, dispersion, zero_logit, family, link, path,
        quadrature);
  const Problem p = problem_of(eta, loading, y, upper, exposure, weights, dispersion, zero_logit,
                               family, link, path);
  const Rule rule(quadrature);
  const int64_t more = p.path_periods();
  const auto f64 = at::TensorOptions().dtype(at::kDouble);
  at::Tensor value = at::empty({p.sites}, f64), modes = at::empty({p.sites, 2 + more}, f64),
             precision = at::empty({p.sites, 3 + more}, f64);
  at::parallel_for(0, p.sites, 16, [&](int64_t begin, int64_t end) {
    const Scratch scratch = site_scratch(p.periods);
    for (int64_t s = begin; s < end; ++s) {
      const kernels::SiteCounts site = p.site(s);
      kernels::SiteWork work(site, static_cast<double*>(scratch.get()));
      const kernels::SiteMode mode = kernels::site_mode(p.model, site, work);
      value.mutable_data_ptr<double>()[s] =
          quadrature == 1 ? mode.value : kernels::site_quadrature(p.model, site, mode, rule.view());
      double* modes_row = modes.mutable_data_ptr<double>() + (2 + more) * s;
      double* precision_row = precision.mutable_data_ptr<double>() + (3 + more) * s;
      std::copy_n(work.path, more, std::copy_n(mode.u, 2, modes_row));
      std::copy_n(work.p, more, std::copy_n(mode.h, 3, precision_row));
    }
  });
  const auto back = [&](const at::Tensor& tensor) { return tensor.to(eta.options()); };
  return {back(value), back(modes), back(precision)};
}

Marginals forward_meta(const at::Tensor& eta, const at::Tensor& loading, const at::Tensor& y,
                       const Optional& upper, const Optional& exposure, const Optional& weights,
                       const Optional& dispersion, const Optional& zero_logit,
                       std::string_view family, std::string_view link, const Optional& path,
                       int64_t quadrature) {
  check(eta, loading, y, upper, exposure, weights, dispersion, zero_logit, family, link, path,
        quadrature);
  const c10::SymInt sites = eta.sym_size(1), more = path ? eta.sym_size(0) : c10::SymInt(0);
  return {at::empty_symint({sites}, eta.options()),
          at::empty_symint({sites, more + 2}, eta.options()),
          at::empty_symint({sites, more + 3}, eta.options())};
}

// Gradients for eta, loading, dispersion, zero_logit and path. The last three may be absent; their
// gradient is then 0.
Gradients backward(const at::Tensor& grad_value, const at::Tensor& grad_modes,
                   const at::Tensor& modes, const at::Tensor& eta, const at::Tensor& loading,
                   const at::Tensor& y, const Optional& upper, const Optional& exposure,
                   const Optional& weights, const Optional& dispersion, const Optional& zero_logit,
                   std::string_view family, std::string_view link, const Optional& path,
                   int64_t quadrature) {
  const Problem p = problem_of(eta, loading, y, upper, exposure, weights, dispersion, zero_logit,
                               family, link, path);
  const Rule rule(quadrature);
  const auto plain = [](const at::Tensor& tensor) {
    return tensor.to(at::kCPU, at::kDouble).contiguous();
  };
  const at::Tensor g = plain(grad_value), m = plain(grad_modes), z = plain(modes);
  const int64_t groups = (p.sites + kSitesTogether - 1) / kSitesTogether;
  const auto f64 = at::TensorOptions().dtype(at::kDouble);
  at::Tensor grad_eta = at::empty({p.sites, p.periods}, f64),
             grad_loading = at::zeros({groups, p.periods, 2}, f64),
             grad_path = at::zeros({groups, p.path_periods(), 2}, f64),
             grad_shared = at::zeros({groups, 2}, f64);
  at::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
    const Scratch scratch = site_scratch(p.periods);
    for (int64_t group = begin; group < end; ++group) {
      double* shared = grad_shared.mutable_data_ptr<double>() + 2 * group;
      const int64_t stop = std::min(p.sites, (group + 1) * kSitesTogether);
      for (int64_t s = group * kSitesTogether; s < stop; ++s) {
        const kernels::SiteCounts site = p.site(s);
        kernels::SiteWork work(site, static_cast<double*>(scratch.get()));
        const int64_t row = (2 + p.path_periods()) * s;
        const double* mode = z.const_data_ptr<double>() + row;
        const double* mode_weight = m.const_data_ptr<double>() + row;
        kernels::SiteGradient out{
            grad_eta.mutable_data_ptr<double>() + s * p.periods,
            grad_loading.mutable_data_ptr<double>() + 2 * group * p.periods,
            grad_path.mutable_data_ptr<double>() + 2 * group * p.path_periods(), 0, 0};
        const double value_weight = g.const_data_ptr<double>()[s];
        if (quadrature == 1) {
          kernels::site_gradient(p.model, site, mode, site.path ? mode + 2 : nullptr, value_weight,
                                 mode_weight, mode_weight + 2, work, out);
        } else {
          kernels::site_quadrature_gradient(p.model, site, mode, value_weight, mode_weight,
                                            rule.view(), work, out);
        }
        shared[0] += out.dispersion;
        shared[1] += out.zero_logit;
      }
    }
  });
  const at::Tensor total = grad_shared.sum(0);
  const auto back = [](const at::Tensor& tensor, const at::Tensor& like) {
    return tensor.to(like.options());
  };
  return {back(grad_eta.t().contiguous(), eta), back(grad_loading.sum(0), loading),
          back(total[0].clone(), dispersion.value_or(eta)),
          back(total[1].clone(), zero_logit.value_or(eta)),
          back(grad_path.sum(0), path.value_or(eta))};
}

Gradients backward_meta(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                        const at::Tensor& eta, const at::Tensor& loading, const at::Tensor&,
                        const Optional&, const Optional&, const Optional&,
                        const Optional& dispersion, const Optional& zero_logit, std::string_view,
                        std::string_view, const Optional& path, int64_t) {
  return {at::empty_like(eta), at::empty_like(loading),
          at::empty({}, dispersion.value_or(eta).options()),
          at::empty({}, zero_logit.value_or(eta).options()),
          path ? at::empty_like(*path) : at::empty({0, 2}, eta.options())};
}

using Posterior = std::tuple<at::Tensor, at::Tensor>;

void check_posterior(const at::Tensor& information, const at::Tensor& loading,
                     const at::Tensor& path, const at::Tensor& noise) {
  constexpr const char* name = "laplace_path_posterior";
  check_floating(name, information, "information");
  TR_REQUIRE(information.dim() == 2, "{}: information must have shape [S, T], got {}", name,
             information.sym_sizes());
  check_pairs(name, loading, "loading", information.sym_size(1));
  check_pairs(name, path, "path", information.sym_size(1));
  check_floating(name, noise, "noise");
  TR_REQUIRE(noise.dim() == 2 && noise.sym_size(0) == information.sym_size(0) &&
                 noise.sym_size(1) == information.sym_size(1) + 2,
             "{}: noise must have shape [S, 2 + T] = [{}, {}], got {}", name,
             information.sym_size(0), information.sym_size(1) + 2, noise.sym_sizes());
}

Posterior posterior(const at::Tensor& information, const at::Tensor& loading,
                    const at::Tensor& path, const at::Tensor& noise) {
  check_posterior(information, loading, path, noise);
  const auto plain = [](const at::Tensor& tensor) {
    return tensor.detach().to(at::kCPU, at::kDouble).contiguous();
  };
  const at::Tensor p = plain(information), l = plain(loading), steps = plain(path),
                   normal = plain(noise);
  const int64_t sites = p.size(0), periods = p.size(1);
  at::Tensor draw = at::empty_like(normal), variance = at::empty_like(p);
  at::parallel_for(0, sites, 64, [&](int64_t begin, int64_t end) {
    const Scratch scratch = site_scratch(periods);
    for (int64_t s = begin; s < end; ++s) {
      kernels::SiteCounts site{};
      site.loading = l.const_data_ptr<double>();
      site.periods = periods;
      site.path = steps.const_data_ptr<double>();
      kernels::SiteWork work(site, static_cast<double*>(scratch.get()));
      std::copy_n(p.const_data_ptr<double>() + s * periods, periods, work.p);
      const int64_t row = (2 + periods) * s;
      kernels::SitePosterior out{draw.mutable_data_ptr<double>() + row,
                                 variance.mutable_data_ptr<double>() + s * periods};
      kernels::site_posterior(site, normal.const_data_ptr<double>() + row, work, out);
    }
  });
  return {draw.to(noise.options()), variance.to(information.options())};
}

Posterior posterior_meta(const at::Tensor& information, const at::Tensor& loading,
                         const at::Tensor& path, const at::Tensor& noise) {
  check_posterior(information, loading, path, noise);
  return {at::empty_like(noise), at::empty_like(information)};
}

auto forward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::laplace_marginal", "")
          .typed<Marginals(const at::Tensor&, const at::Tensor&, const at::Tensor&, const Optional&,
                           const Optional&, const Optional&, const Optional&, const Optional&,
                           std::string_view, std::string_view, const Optional&, int64_t)>();
  return op;
}

auto backward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::laplace_marginal_backward", "")
          .typed<Gradients(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                           const at::Tensor&, const at::Tensor&, const at::Tensor&, const Optional&,
                           const Optional&, const Optional&, const Optional&, const Optional&,
                           std::string_view, std::string_view, const Optional&, int64_t)>();
  return op;
}

class Marginal : public torch::autograd::Function<Marginal> {
 public:
  static torch::autograd::variable_list forward(
      torch::autograd::AutogradContext* ctx, const at::Tensor& eta, const at::Tensor& loading,
      const at::Tensor& y, const Optional& upper, const Optional& exposure, const Optional& weights,
      const Optional& dispersion, const Optional& zero_logit, const std::string& family,
      const std::string& link, const Optional& path, int64_t quadrature) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [value, modes, precision] =
        forward_op().call(eta, loading, y, upper, exposure, weights, dispersion, zero_logit, family,
                          link, path, quadrature);
    const at::Tensor none;
    ctx->save_for_backward({modes, eta, loading, y, upper.value_or(none), exposure.value_or(none),
                            weights.value_or(none), dispersion.value_or(none),
                            zero_logit.value_or(none), path.value_or(none)});
    ctx->saved_data["family"] = family;
    ctx->saved_data["link"] = link;
    ctx->saved_data["quadrature"] = quadrature;
    ctx->mark_non_differentiable({precision});
    return {value, modes, precision};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto optional = [&](size_t i) {
      return saved[i].defined() ? Optional(saved[i]) : Optional();
    };
    const at::Tensor value = grads[0].defined()
                                 ? grads[0]
                                 : at::zeros_symint({saved[0].sym_size(0)}, saved[0].options());
    const at::Tensor modes = grads[1].defined() ? grads[1] : at::zeros_like(saved[0]);
    const auto [eta, loading, dispersion, zero_logit, path] = backward_op().call(
        value, modes, saved[0], saved[1], saved[2], saved[3], optional(4), optional(5), optional(6),
        optional(7), optional(8), ctx->saved_data["family"].toStringRef(),
        ctx->saved_data["link"].toStringRef(), optional(9), ctx->saved_data["quadrature"].toInt());
    const at::Tensor none;
    return {eta,
            loading,
            none,
            none,
            none,
            none,
            saved[7].defined() ? dispersion : none,
            saved[8].defined() ? zero_logit : none,
            none,
            none,
            saved[9].defined() ? path : none,
            none};
  }
};

Marginals autograd(const at::Tensor& eta, const at::Tensor& loading, const at::Tensor& y,
                   const Optional& upper, const Optional& exposure, const Optional& weights,
                   const Optional& dispersion, const Optional& zero_logit, std::string_view family,
                   std::string_view link, const Optional& path, int64_t quadrature) {
  const auto out =
      Marginal::apply(eta, loading, y, upper, exposure, weights, dispersion, zero_logit,
                      std::string(family), std::string(link), path, quadrature);
  return {out[0], out[1], out[2]};
}

}  // namespace

LaplaceMarginal laplace_marginal(const at::Tensor& eta, const at::Tensor& loading,
                                 const at::Tensor& y, const LaplaceMarginalOptions& options) {
  auto [value, modes, precision] = forward_op().call(
      eta, loading, y, options.upper, options.exposure, options.weights, options.dispersion,
      options.zero_logit, options.family, options.link, options.path, options.quadrature);
  return {value, modes, precision};
}

PathPosterior laplace_path_posterior(const at::Tensor& information, const at::Tensor& loading,
                                     const at::Tensor& path, const at::Tensor& noise) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::laplace_path_posterior", "")
                             .typed<Posterior(const at::Tensor&, const at::Tensor&,
                                              const at::Tensor&, const at::Tensor&)>();
  auto [draw, variance] = op.call(information, loading, path, noise);
  return {draw, variance};
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("laplace_path_posterior", posterior);
  m.impl("laplace_marginal", forward);
  m.impl("laplace_marginal_backward", backward);
}

TORCH_LIBRARY_IMPL(topreach, CUDA, m) {
  m.impl("laplace_path_posterior", posterior);
  m.impl("laplace_marginal", forward);
  m.impl("laplace_marginal_backward", backward);
}

TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("laplace_path_posterior", posterior_meta);
  m.impl("laplace_marginal", forward_meta);
  m.impl("laplace_marginal_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("laplace_marginal", autograd);
  m.impl("laplace_marginal_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("laplace_path_posterior", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace topreach
