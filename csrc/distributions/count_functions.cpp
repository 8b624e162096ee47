#include "count_functions.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "../../kernels/incomplete_beta.h"
#include "../ops/negbin.h"
#include "../require.h"

namespace topreach {

at::Tensor poisson_cdf(const at::Tensor& value, const at::Tensor& rate) {
  at::NoGradGuard no_grad;
  const at::Tensor y = value.to(at::kDouble).floor(), of_rate = rate.to(at::kDouble);
  const at::Tensor inside = at::special_gammaincc(y.clamp_min(0) + 1, of_rate);
  return at::where(y.lt(0), at::zeros({}, inside.options()), inside);
}

at::Tensor negbin_cdf(const at::Tensor& value, const at::Tensor& total_count,
                      const at::Tensor& logits) {
  at::NoGradGuard no_grad;
  const auto all = at::broadcast_tensors({value, total_count, logits});
  const at::Tensor y = all[0].to(at::kCPU, at::kDouble).floor().contiguous();
  const at::Tensor n = all[1].to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor z = all[2].to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor inside = y.clamp_min(0).nan_to_num(0.0);
  const at::Tensor log_prob = negbin_log_prob(inside, n, z).contiguous();
  at::Tensor result = at::empty_like(y);
  const double *py = y.const_data_ptr<double>(), *pn = n.const_data_ptr<double>(),
               *pz = z.const_data_ptr<double>(), *pl = log_prob.const_data_ptr<double>();
  double* out = result.mutable_data_ptr<double>();
  at::parallel_for(0, y.numel(), 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = kernels::negbin_cdf(py[i], pn[i], pz[i], pl[i]);
  });
  return result.to(value.device());
}

namespace {

void check_probability(const char* function, double probability) {
  TR_REQUIRE(probability > 0 && probability < 1,
             "{}: probability must be above 0 and below 1, got {}", function, probability);
}

// Bounds that certainly enclose the quantile [Cantelli 1910]: P(Y <= low) < p <= P(Y <= high).
std::pair<at::Tensor, at::Tensor> bounds(const at::Tensor& mean, const at::Tensor& variance,
                                         double probability) {
  const at::Tensor sd = variance.clamp_min(0).sqrt();
  const double odds = probability / (1 - probability);
  // A little wider, for rounding.
  const at::Tensor low = mean - sd * (1.001 / std::sqrt(odds)) - 1e-6 * mean - 1;
  const at::Tensor high = mean + sd * (1.001 * std::sqrt(odds)) + 1e-6 * mean + 1;
  return {low, high};
}

}  // namespace

at::Tensor count_quantile(const char* function,
                          const std::function<at::Tensor(const at::Tensor&)>& cdf,
                          const at::Tensor& mean, const at::Tensor& variance, double probability) {
  check_probability(function, probability);
  at::NoGradGuard no_grad;
  const at::Tensor m = mean.to(at::kDouble), v = variance.to(at::kDouble);
  const at::Tensor known = m.isfinite().logical_and(v.isfinite());
  const auto [from, to] = bounds(m.masked_fill(known.logical_not(), 0.0),
                                 v.masked_fill(known.logical_not(), 0.0), probability);
  at::Tensor low = from.floor().clamp_min(-1), high = to.ceil();  // cdf(low) < p <= cdf(high)
  while (high.numel() > 0 && (high - low).max().item<double>() > 1) {
    const at::Tensor middle = ((low + high) / 2).floor();
    const at::Tensor enough = cdf(middle).ge(probability);
    // If the two are neighbours already, the middle is the lower one and nothing moves.
    const at::Tensor open = (high - low).gt(1);
    high = at::where(open.logical_and(enough), middle, high);
    low = at::where(open.logical_and(enough.logical_not()), middle, low);
  }
  return high.masked_fill(known.logical_not(), std::nan("")).to(mean.scalar_type());
}

at::Tensor density_quantile(const char* function,
                            const std::function<at::Tensor(const at::Tensor&)>& cdf,
                            const at::Tensor& mean, const at::Tensor& variance,
                            double probability) {
  check_probability(function, probability);
  at::NoGradGuard no_grad;
  const at::Tensor m = mean.to(at::kDouble), v = variance.to(at::kDouble);
  auto [low, high] = bounds(m, v, probability);
  low = low.clamp_min(0);
  for (int step = 0; step < 60; ++step) {
    const at::Tensor middle = (low + high) / 2, enough = cdf(middle).ge(probability);
    high = at::where(enough, middle, high);
    low = at::where(enough, low, middle);
  }
  return high.to(mean.scalar_type());
}

at::Tensor summed_cdf(const std::function<at::Tensor(const at::Tensor&)>& site_log_prob,
                      const at::Tensor& value, at::IntArrayRef shape) {
  at::NoGradGuard no_grad;
  const at::Tensor y = value.to(at::kDouble).floor();
  at::Tensor result = at::zeros(y.sizes(), y.options());
  const double last = y.numel() > 0 ? y.max().item<double>() : -1;
  TR_REQUIRE(last <= 1e7,
             "cdf: value must be at most 1e7 for a distribution that is summed count by count, got "
             "{}; give the distribution a cdf of its own",
             last);
  at::Tensor below = at::zeros(shape, y.options());
  for (double count = 0; count <= last; ++count) {
    below = below + site_log_prob(at::full(shape, count, value.options())).to(at::kDouble).exp();
    result = at::where(y.eq(count), below, result);
  }
  return at::where(y.isnan(), std::nan(""), result);
}

at::Tensor observed_sum(const std::function<at::Tensor(const at::Tensor&)>& site_log_prob,
                        const at::Tensor& y) {
  const at::Tensor unknown = y.isnan();
  const at::Tensor log_prob = site_log_prob(y.masked_fill(unknown, 0));
  return log_prob.masked_fill(unknown, 0).sum(-1);
}

}  // namespace topreach
