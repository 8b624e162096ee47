#include "site_mixture.h"

#include <torch/library.h>

#include <cmath>

#include "../ops/key.h"
#include "../require.h"
#include "count_functions.h"

namespace topreach {

namespace {

using at::Tensor;
using Optional = std::optional<Tensor>;

constexpr double kStep = 0.36;      // of the trapezoidal rule in log t
constexpr int64_t kHalfNodes = 77;  // e^(77 x .36) = 1e12
constexpr int64_t kComponentStream = 0x434F4D50, kValueStream = 0x56414C55;

bool is_normal(const char* function, std::string_view family, const Tensor& logits,
               const Tensor& first, const Optional& second) {
  TR_REQUIRE(family == "truncated_normal" || family == "poisson",
             "{}: family must be 'truncated_normal' or 'poisson', got '{}'", function, family);
  const bool normal = family == "truncated_normal";
  TR_REQUIRE(normal == second.has_value(), "{}: second must be {}", function,
             normal ? "the scale of 'truncated_normal', got nothing"
                    : "absent for 'poisson', got a tensor");
  TR_REQUIRE_TYPE(at::isFloatingType(logits.scalar_type()),
                  "{}: logits must be floating point, got {}", function, logits.scalar_type());
  TR_REQUIRE(logits.dim() >= 2 && logits.sym_size(-1) >= 1,
             "{}: logits must have shape [..., S, L] with L >= 1, got {}", function,
             logits.sym_sizes());
  for (const Tensor& parameter : {first, second.value_or(first)})
    TR_REQUIRE(at::is_expandable_to(parameter.sym_sizes(), logits.sym_sizes()),
               "{}: parameters of the components must broadcast to the shape of "
               "logits, {}, got {}",
               function, logits.sym_sizes(), parameter.sym_sizes());
  return normal;
}

// phi(a) / Phi(a) for a >= -100: 0 from a = 26 on, where it is below 1e-147.
Tensor inverse_mills(const Tensor& a) {
  return std::sqrt(2 / M_PI) / at::special_erfcx(a.clamp(-100, 26) * -M_SQRT1_2);
}

// Mean of N+(a, 1): a + phi(a) / Phi(a); far out its asymptotic series, free of cancellation.
Tensor truncated_mean(const Tensor& a) {
  const Tensor x = (-a).clamp_min(100), x2 = x * x;
  const Tensor far = (1 - (2 - (10 - 74 / x2) / x2) / x2) / x;
  return at::where(a < -100, far, a + inverse_mills(a));
}

// log of L(t), t [..., 1, 1].
Tensor normal_log_transform(const Tensor& loc, const Tensor& scale, const Tensor& t) {
  const Tensor a0 = loc / scale, a = a0 - scale * t;
  // With log Phi(a) = -a^2/2 + log(erfcx(-a / sqrt 2) / 2) the squares of a <= 0 cancel in closed form.
  const Tensor below =
      -0.5 * a0 * a0 + (0.5 * at::special_erfcx(a.clamp_max(0) * -M_SQRT1_2)).log();
  const Tensor above = t * (0.5 * scale * scale * t - loc) + at::special_log_ndtr(a.clamp_min(0));
  return at::where(a > 0, above, below) - at::special_log_ndtr(a0);
}

Tensor log_prob_of(std::string_view family, const Tensor& y, const Tensor& logits,
                   const Tensor& first, const Optional& second) {
  const bool normal = is_normal("site_mixture_log_prob", family, logits, first, second);
  TR_REQUIRE(y.dim() >= 1 && (y.sym_size(-1) == logits.sym_size(-2) || y.sym_size(-1) == 1),
             "site_mixture_log_prob: y must have shape [..., S] with S = {}, got {}",
             logits.sym_size(-2), y.sym_sizes());
  const Tensor value = y.detach().to(logits.scalar_type()).unsqueeze(-1);
  const Tensor inside = value.clamp_min(0);
  Tensor density;
  if (normal) {
    const Tensor z = (inside - first) / *second;
    density = -0.5 * z * z - second->log() - 0.5 * std::log(2 * M_PI) -
              at::special_log_ndtr(first / *second);
  } else {
    density = at::xlogy(inside, first) - first - at::lgamma(inside + 1);
  }
  const Tensor result = at::logsumexp(at::log_softmax(logits, -1) + density, {-1});
  return result.masked_fill(value.squeeze(-1) < 0, -INFINITY);
}

std::tuple<Tensor, Tensor> moments_of(std::string_view family, const Tensor& logits,
                                      const Tensor& first, const Optional& second) {
  const bool normal = is_normal("site_mixture_moments", family, logits, first, second);
  const Tensor weights = at::softmax(logits, -1);
  Tensor mean = first, variance = first;
  if (normal) {
    const Tensor a = first / *second, ratio = truncated_mean(a);
    mean = *second * ratio;
    variance = *second * *second * (1 - ratio * (ratio - a));  // ratio - a = phi(a) / Phi(a)
  }
  const Tensor site_mean = (weights * mean).sum(-1);
  const Tensor between = (mean - site_mean.unsqueeze(-1)).square();
  return {site_mean, (weights * (variance + between)).sum(-1)};
}

Tensor ranking_of(std::string_view family, const Tensor& logits, const Tensor& first,
                  const Optional& second, double offset) {
  constexpr const char* name = "site_mixture_expected_ratio_ranking";
  const bool normal = is_normal(name, family, logits, first, second);
  TR_REQUIRE(offset >= 0 && std::isfinite(offset),
             "{}: offset must be finite and not negative, got {}", name, offset);
  const Optional second64 = second ? Optional(second->to(at::kDouble)) : std::nullopt;
  const Tensor logits64 = logits.to(at::kDouble), first64 = first.to(at::kDouble);
  const Tensor total =
      std::get<0>(moments_of(family, logits64.detach(), first64.detach(),
                             second64 ? Optional(second64->detach()) : std::nullopt))
          .sum(-1, true);
  const Tensor steps =
      at::arange(-kHalfNodes, kHalfNodes + 1, logits64.options().requires_grad(false));
  const Tensor nodes = (kStep * steps).exp() / (1 + offset + total);  // t [..., Q]
  const Tensor t = nodes.unsqueeze(-1).unsqueeze(-1);                 // [..., Q, 1, 1]
  const auto per_node = [](const Tensor& p) { return p.dim() < 2 ? p : p.unsqueeze(-3); };
  const Tensor p1 = per_node(first64);
  Tensor log_transform, tilted;
  if (normal) {
    const Tensor scale = per_node(*second64);
    log_transform = normal_log_transform(p1, scale, t);
    tilted = scale * truncated_mean(p1 / scale - scale * t);
  } else {
    log_transform = p1 * at::expm1(-t);
    tilted = p1 * at::exp(-t);
  }
  const Tensor joint = at::log_softmax(logits64, -1).unsqueeze(-3) + log_transform;
  const Tensor of_site = at::logsumexp(joint, {-1});              // log L_s, [..., Q, S]
  const Tensor mean = (at::softmax(joint, -1) * tilted).sum(-1);  // m_s
  const Tensor weight = kStep * nodes * (of_site.sum(-1) - offset * nodes).exp();  // [..., Q]
  return at::matmul(weight.unsqueeze(-2), mean).squeeze(-2).to(logits.scalar_type());
}

// Uniforms in (0, 1), float64 [M, rows, S].
Tensor uniforms(const Tensor& key, int64_t stream, int64_t draws, int64_t rows, int64_t sites,
                int64_t row_offset) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::topk_noise", "")
          .typed<Tensor(const Tensor&, int64_t, int64_t, int64_t, std::string_view, int64_t)>();
  const Tensor gumbel =
      op.call(at::bitwise_xor(key, stream), draws, rows, sites, "gumbel", row_offset);
  return gumbel.to(at::kDouble).neg_().exp_().neg_().exp_();
}

Tensor sample_of(std::string_view family, const Tensor& logits, const Tensor& first,
                 const Optional& second, int64_t num_samples, const Tensor& key,
                 int64_t row_offset) {
  constexpr const char* name = "site_mixture_sample";
  const bool normal = is_normal(name, family, logits, first, second);
  TR_REQUIRE(num_samples >= 1, "{}: num_samples must be at least 1, got {}", name, num_samples);
  const auto check = [&](const Tensor& values, const char* what, bool zero_allowed) {
    if (!values.device().is_cpu()) return;
    const Tensor good =
        (zero_allowed ? values.ge(0) : values.gt(0)).logical_and_(values.isfinite());
    TR_REQUIRE(good.all().item<bool>(), "{}: {} must be finite and {}, got another value", name,
               what, zero_allowed ? "not negative" : "positive");
  };
  check(first, normal ? "loc" : "rate", normal);
  if (normal) check(*second, "scale", false);
  const int64_t sites = logits.size(-2), components = logits.size(-1);
  std::vector<int64_t> shape = logits.sizes().slice(0, logits.dim() - 1).vec();
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < shape.size(); ++d) rows *= shape[d];
  shape.insert(shape.begin(), num_samples);
  if (rows == 0 || sites == 0) return at::empty(shape, logits.options());

  const Tensor u = uniforms(key, kComponentStream, num_samples, rows, sites, row_offset);
  const Tensor steps =
      at::softmax(logits.to(at::kDouble), -1).cumsum(-1).reshape({rows, sites, components});
  Tensor component = at::zeros(u.sizes(), u.options().dtype(at::kLong));
  for (int64_t l = 0; l + 1 < components; ++l) component += u.gt(steps.select(-1, l));
  const Tensor v = uniforms(key, kValueStream, num_samples, rows, sites, row_offset);
  const auto of_component = [&](const Tensor& parameter) {
    return parameter.expand(logits.sizes())
        .reshape({1, rows, sites, components})
        .expand({num_samples, rows, sites, components})
        .gather(-1, component.unsqueeze(-1))
        .squeeze(-1);
  };
  Tensor y;
  if (normal) {
    // By symmetry from the upper end: y = loc - scale z with P(Z < z) = v Phi(loc / scale).
    const Tensor loc = of_component(first.to(at::kDouble));
    const Tensor scale = of_component(second->to(at::kDouble));
    y = (loc - scale * at::special_ndtri(v * at::special_ndtr(loc / scale))).clamp_min_(0);
  } else {
    // One sorted list of P(Y <= n), shifted by the number of the rate, serves all rates at once.
    const Tensor rate = first.to(at::kDouble).reshape(-1);
    const double largest = rate.max().item<double>();
    const int64_t counts = int64_t(largest + 12 * std::sqrt(largest)) + 50;
    const Tensor n = at::arange(1, counts + 1, rate.options());
    const Tensor number = at::arange(rate.size(0), rate.options());
    Tensor cdf = at::special_gammaincc(n, rate.unsqueeze(-1));
    cdf.select(-1, counts - 1).fill_(1);
    const Tensor table = (cdf + number.unsqueeze(-1)).reshape(-1);
    const Tensor which = of_component(number.reshape(first.sizes()));
    y = at::searchsorted(table, v + which).to(at::kDouble) - which * double(counts);
  }
  return y.to(logits.scalar_type()).reshape(shape);
}

Tensor sample_meta(std::string_view family, const Tensor& logits, const Tensor& first,
                   const Optional& second, int64_t num_samples, const Tensor&, int64_t) {
  is_normal("site_mixture_sample", family, logits, first, second);
  std::vector<c10::SymInt> shape = {num_samples};
  for (int64_t d = 0; d + 1 < logits.dim(); ++d) shape.push_back(logits.sym_size(d));
  return at::empty_symint(shape, logits.options());
}

auto sample_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::site_mixture_sample", "")
                             .typed<Tensor(std::string_view, const Tensor&, const Tensor&,
                                           const Optional&, int64_t, const Tensor&, int64_t)>();
  return op;
}

Tensor sample_autograd(std::string_view family, const Tensor& logits, const Tensor& first,
                       const Optional& second, int64_t num_samples, const Tensor& key,
                       int64_t row_offset) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return sample_op().call(family, logits, first, second, num_samples, key, row_offset);
}

// Name and parameters of a family's struct.
struct Parameters {
  const char* family;
  Tensor first;
  Optional second;
};
Parameters parameters(const TruncatedNormal& c) { return {"truncated_normal", c.loc, c.scale}; }
Parameters parameters(const Poisson& c) { return {"poisson", c.rate, std::nullopt}; }

}  // namespace

Tensor site_mixture_log_prob(const std::string& family, const Tensor& y, const Tensor& logits,
                             const Tensor& first, const Optional& second) {
  return log_prob_of(family, y, logits, first, second);
}

Moments site_mixture_moments(const std::string& family, const Tensor& logits, const Tensor& first,
                             const Optional& second) {
  auto [mean, variance] = moments_of(family, logits, first, second);
  return {mean, variance};
}

Tensor site_mixture_sample(const std::string& family, const Tensor& logits, const Tensor& first,
                           const Optional& second, int64_t num_samples,
                           const NegBinSampleOptions& options) {
  const Tensor key = options.key ? *options.key : draw_key(options.generator, logits.device());
  return sample_op().call(family, logits, first, second, num_samples, key, options.row_offset);
}

Tensor site_mixture_expected_ratio_ranking(const std::string& family, const Tensor& logits,
                                           const Tensor& first, const Optional& second,
                                           double offset) {
  return ranking_of(family, logits, first, second, offset);
}

template <typename Component>
Tensor SiteMixture<Component>::mean() const {
  const auto [family, first, second] = parameters(components);
  return site_mixture_moments(family, logits, first, second).mean;
}

template <typename Component>
Tensor SiteMixture<Component>::variance() const {
  const auto [family, first, second] = parameters(components);
  return site_mixture_moments(family, logits, first, second).variance;
}

template <typename Component>
Tensor SiteMixture<Component>::site_log_prob(const Tensor& y) const {
  const auto [family, first, second] = parameters(components);
  return log_prob_of(family, y, logits, first, second);
}

template <typename Component>
Tensor SiteMixture<Component>::sample(int64_t num_samples,
                                      const NegBinSampleOptions& options) const {
  const auto [family, first, second] = parameters(components);
  return site_mixture_sample(family, logits, first, second, num_samples, options);
}

template <typename Component>
Tensor SiteMixture<Component>::expected_ratio(double offset) const {
  const auto [family, first, second] = parameters(components);
  return ranking_of(family, logits, first, second, offset);
}

template <typename Component>
bool SiteMixture<Component>::whole_counts() const {
  return std::is_same_v<Component, Poisson>;
}

template <typename Component>
Tensor SiteMixture<Component>::cdf(const Tensor& y) const {
  at::NoGradGuard no_grad;
  const Tensor weights = at::softmax(logits.to(at::kDouble), -1);
  const Tensor value = y.to(at::kDouble).unsqueeze(-1);
  Tensor below;
  if constexpr (std::is_same_v<Component, Poisson>) {
    below = components.cdf(value);
  } else {
    // P(Y > y) = Phi((mu - y) / s) / Phi(mu / s).
    const Tensor loc = components.loc.to(at::kDouble), scale = components.scale.to(at::kDouble);
    below = at::expm1(at::special_log_ndtr((loc - value.clamp_min(0)) / scale) -
                      at::special_log_ndtr(loc / scale))
                .neg();
  }
  return (weights * below).sum(-1);
}

template <typename Component>
Tensor SiteMixture<Component>::quantile(double probability) const {
  constexpr const char* name = "SiteMixture.quantile";
  const auto of = [this](const Tensor& y) { return cdf(y); };
  if (whole_counts()) return count_quantile(name, of, mean(), variance(), probability);
  return density_quantile(name, of, mean(), variance(), probability);
}

MixtureStart mixture_start(const char* model, int64_t num_sites, int64_t num_components,
                           const MixtureOptions& options) {
  TR_REQUIRE(num_sites >= 1 && num_components >= 1,
             "{}: num_sites and num_components must be at least 1, got {} and {}", model, num_sites,
             num_components);
  TR_REQUIRE(options.low >= 0 && options.low < options.high && std::isfinite(options.high),
             "{}: low and high must be 0 <= low < high, finite, got {} and {}", model, options.low,
             options.high);
  std::vector<int64_t> shape = options.batch;
  shape.push_back(num_components);
  std::vector<int64_t> of_sites = options.batch;
  of_sites.push_back(num_sites);
  of_sites.push_back(num_components);
  // The square of a normal variable has a gamma distribution of shape 1/2.
  const Tensor gamma = torch::randn(of_sites, torch::kFloat).square().clamp_min(1e-30);
  const Tensor location = torch::empty(shape, torch::kFloat).uniform_(options.low, options.high);
  return {location.clamp_min(1e-3), torch::log_softmax(gamma.log(), -1)};
}

Tensor mixture_over_time(const Tensor& parameter, const Tensor& time) {
  std::vector<int64_t> shape = parameter.sizes().vec();
  shape.insert(shape.end() - 2, time.sizes().begin(), time.sizes().end());
  Tensor view = parameter;
  for (int64_t d = 0; d < time.dim(); ++d) view = view.unsqueeze(-3);
  return view.expand(shape);
}

template struct SiteMixture<TruncatedNormal>;
template struct SiteMixture<Poisson>;

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("mixture_over_time", mixture_over_time);
  m.impl("site_mixture_log_prob", log_prob_of);
  m.impl("site_mixture_moments", moments_of);
  m.impl("site_mixture_expected_ratio_ranking", ranking_of);
}
TORCH_LIBRARY_IMPL(topreach, CPU, m) { m.impl("site_mixture_sample", sample_of); }
TORCH_LIBRARY_IMPL(topreach, CUDA, m) { m.impl("site_mixture_sample", sample_of); }
TORCH_LIBRARY_IMPL(topreach, Meta, m) { m.impl("site_mixture_sample", sample_meta); }
TORCH_LIBRARY_IMPL(topreach, Autograd, m) { m.impl("site_mixture_sample", sample_autograd); }

}  // namespace topreach
