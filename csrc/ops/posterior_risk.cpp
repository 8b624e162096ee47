#include "posterior_risk.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "../../kernels/posterior_risk.h"
#include "../require.h"
#include "scratch.h"
#include "sum_blocks.h"

namespace topreach {
namespace {

constexpr int64_t kCellsPerBlock = 512;
constexpr int64_t kTilesPerBlock = 128;
constexpr double kSpread = 1e-6;  // share of the mass that stays spread over all points

auto forward_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::posterior_risk", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&,
                                               const at::Tensor&, const at::Tensor&)>();
  return op;
}

auto backward_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::posterior_risk_backward", "")
                             .typed<std::tuple<at::Tensor, at::Tensor, at::Tensor>(
                                 const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, const at::Tensor&)>();
  return op;
}

auto prior_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::discrete_prior", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t)>();
  return op;
}

void check(const at::Tensor& counts, const at::Tensor& expected, const at::Tensor& prior,
           const at::Tensor& support) {
  constexpr const char* name = "posterior_risk";
  TR_REQUIRE(counts.dim() >= 1 && counts.is_floating_point(),
             "{}: counts must be a float tensor [..., H], got {} of shape {}", name,
             counts.scalar_type(), counts.sym_sizes());
  TR_REQUIRE(expected.sym_sizes() == counts.sym_sizes(),
             "{}: expected must have the shape of counts, {}, got {}", name, counts.sym_sizes(),
             expected.sym_sizes());
  TR_REQUIRE_TYPE(expected.scalar_type() == counts.scalar_type(),
                  "{}: expected must have the dtype of counts ({}), got {}", name,
                  counts.scalar_type(), expected.scalar_type());
  TR_REQUIRE(prior.dim() == 2 && prior.sym_size(0) == counts.sym_size(-1),
             "{}: prior must have shape [H, G] with H = {}, got {}", name, counts.sym_size(-1),
             prior.sym_sizes());
  TR_REQUIRE(support.dim() == 1 && support.sym_size(0) == prior.sym_size(1),
             "{}: support must have shape [G] with G = {}, got {}", name, prior.sym_size(1),
             support.sym_sizes());
}

// Owns both, as float64 on the CPU.
struct Prior {
  at::Tensor log_prior, support, log_support;

  Prior(const at::Tensor& prior, const at::Tensor& points)
      : log_prior(prior.to(at::kCPU, at::kDouble).contiguous()),
        support(points.to(at::kCPU, at::kDouble).contiguous()),
        log_support(support.log()) {}

  template <typename T>
  kernels::PosteriorRisk<T> problem(const at::Tensor& counts, const at::Tensor& expected) const {
    const int64_t memories = log_prior.size(0);
    return {counts.const_data_ptr<T>(),
            expected.const_data_ptr<T>(),
            log_prior.const_data_ptr<double>(),
            support.const_data_ptr<double>(),
            log_support.const_data_ptr<double>(),
            memories > 0 ? counts.numel() / memories : 0,
            memories,
            support.size(0)};
  }
};

// ------------------------------------------------------------------------------- CPU

at::Tensor forward_cpu(const at::Tensor& counts, const at::Tensor& expected,
                       const at::Tensor& prior, const at::Tensor& support) {
  check(counts, expected, prior, support);
  const at::Tensor a = counts.contiguous(), x = expected.contiguous();
  const Prior weights(prior, support);
  at::Tensor risk = at::empty_like(a);
  AT_DISPATCH_FLOATING_TYPES(a.scalar_type(), "posterior_risk", [&] {
    const auto problem = weights.problem<scalar_t>(a, x);
    scalar_t* out = risk.mutable_data_ptr<scalar_t>();
    const int64_t blocks = (problem.cells + kCellsPerBlock - 1) / kCellsPerBlock;
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      Scratch scratch(int64_t(sizeof(double)) * kernels::posterior_risk_scratch(problem.points));
      kernels::posterior_risk_cpu<scalar_t>().forward(problem, begin * kCellsPerBlock,
                                                      std::min(end * kCellsPerBlock, problem.cells),
                                                      out, static_cast<double*>(scratch.get()));
    });
  });
  return risk;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_cpu(const at::Tensor& grad,
                                                            const at::Tensor& counts,
                                                            const at::Tensor& expected,
                                                            const at::Tensor& prior,
                                                            const at::Tensor& support) {
  check(counts, expected, prior, support);
  const at::Tensor g = grad.contiguous(), a = counts.contiguous(), x = expected.contiguous();
  const Prior weights(prior, support);
  at::Tensor d_counts = at::empty_like(a), d_expected = at::empty_like(a);
  at::Tensor d_prior = at::zeros_like(weights.log_prior);
  AT_DISPATCH_FLOATING_TYPES(a.scalar_type(), "posterior_risk_backward", [&] {
    const auto problem = weights.problem<scalar_t>(a, x);
    scalar_t* da = d_counts.mutable_data_ptr<scalar_t>();
    scalar_t* dx = d_expected.mutable_data_ptr<scalar_t>();
    const int64_t blocks = (problem.cells + kCellsPerBlock - 1) / kCellsPerBlock;
    sum_blocks<double>(1, d_prior.numel(), blocks, 1,
                       int64_t(sizeof(double)) * kernels::posterior_risk_scratch(problem.points),
                       d_prior.mutable_data_ptr<double>(),
                       [&](int64_t, int64_t block, double* sums, void* scratch) {
                         const int64_t begin = block * kCellsPerBlock;
                         kernels::posterior_risk_cpu<scalar_t>().backward(
                             problem, g.const_data_ptr<scalar_t>(), begin,
                             std::min(begin + kCellsPerBlock, problem.cells), da, dx, sums,
                             static_cast<double*>(scratch));
                       });
  });
  return {d_counts, d_expected, d_prior.to(prior.scalar_type())};
}

at::Tensor discrete_prior_cpu(const at::Tensor& counts, const at::Tensor& expected,
                              const at::Tensor& support, int64_t steps) {
  constexpr const char* name = "discrete_prior";
  TR_REQUIRE(counts.dim() == 2 && expected.sizes() == counts.sizes(),
             "{}: counts and expected must both have shape [S, H], got {} and {}", name,
             counts.sizes(), expected.sizes());
  TR_REQUIRE(support.dim() == 1 && support.size(0) > 0,
             "{}: support must have shape [G] with G >= 1, got {}", name, support.sizes());
  TR_REQUIRE(steps >= 0, "{}: steps must not be negative, got {}", name, steps);
  const int64_t sites = counts.size(0), memories = counts.size(1), points = support.size(0);
  const int64_t tiles = (sites + kernels::kRiskLanes - 1) / kernels::kRiskLanes;
  const int64_t blocks = (tiles + kTilesPerBlock - 1) / kTilesPerBlock;
  const at::Tensor u = support.to(at::kDouble).contiguous(), log_u = u.log();
  const double* u_data = u.const_data_ptr<double>();
  const double* log_u_data = log_u.const_data_ptr<double>();
  at::Tensor result = at::empty({memories, points}, at::kDouble);
  const at::Tensor likelihood = at::empty({tiles * points * kernels::kRiskLanes}, at::kDouble);
  double* l = likelihood.mutable_data_ptr<double>();
  const auto& em = kernels::prior_em_cpu();
  for (int64_t h = 0; h < memories; ++h) {
    const at::Tensor a = counts.select(1, h).to(at::kDouble).contiguous();
    const at::Tensor x = expected.select(1, h).to(at::kDouble).contiguous();
    at::parallel_for(0, tiles, kTilesPerBlock, [&](int64_t begin, int64_t end) {
      em.likelihood(a.const_data_ptr<double>(), x.const_data_ptr<double>(), u_data, log_u_data,
                    sites, points, begin, end, l);
    });
    std::vector<double> w(size_t(points), 1.0 / double(points)), sums(w.size());
    for (int64_t step = 0; step < steps && sites > 0; ++step) {
      std::ranges::fill(sums, 0.0);
      sum_blocks<double>(
          1, points, blocks, 1, int64_t(sizeof(double)) * kernels::posterior_risk_scratch(points),
          sums.data(), [&](int64_t, int64_t block, double* part, void* scratch) {
            const int64_t begin = block * kTilesPerBlock;
            em.step(l, w.data(), points, begin, std::min(begin + kTilesPerBlock, tiles),
                    static_cast<double*>(scratch), part);
          });
      for (size_t g = 0; g < w.size(); ++g) w[g] *= sums[g] / double(sites);
    }
    double* out = result.mutable_data_ptr<double>() + h * points;
    for (int64_t g = 0; g < points; ++g)
      out[g] = std::log((1 - kSpread) * w[size_t(g)] + kSpread / double(points));
  }
  return result;
}

// ------------------------------------------------------------------------------- CUDA

// Plain ATen, one memory at a time: p [..., G] of one memory, for its counts and expected [...].
at::Tensor posterior_of(const at::Tensor& counts, const at::Tensor& expected,
                        const at::Tensor& log_prior, const at::Tensor& u) {
  const at::Tensor logits = log_prior + counts.unsqueeze(-1) * u.log() - expected.unsqueeze(-1) * u;
  return logits.softmax(-1);
}

at::Tensor forward_cuda(const at::Tensor& counts, const at::Tensor& expected,
                        const at::Tensor& prior, const at::Tensor& support) {
  check(counts, expected, prior, support);
  const at::Tensor u = support.to(counts.device(), at::kDouble), log_w = prior.to(at::kDouble);
  at::Tensor risk = at::empty_like(counts, at::MemoryFormat::Contiguous);
  for (int64_t h = 0; h < prior.size(0); ++h) {
    const at::Tensor p = posterior_of(counts.select(-1, h).to(at::kDouble),
                                      expected.select(-1, h).to(at::kDouble), log_w[h], u);
    risk.select(-1, h).copy_(p.matmul(u));
  }
  return risk;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_cuda(const at::Tensor& grad,
                                                             const at::Tensor& counts,
                                                             const at::Tensor& expected,
                                                             const at::Tensor& prior,
                                                             const at::Tensor& support) {
  const at::Tensor u = support.to(counts.device(), at::kDouble), log_w = prior.to(at::kDouble);
  at::Tensor d_counts = at::empty_like(counts, at::MemoryFormat::Contiguous),
             d_expected = at::empty_like(d_counts), d_prior = at::empty_like(log_w);
  for (int64_t h = 0; h < prior.size(0); ++h) {
    const at::Tensor p = posterior_of(counts.select(-1, h).to(at::kDouble),
                                      expected.select(-1, h).to(at::kDouble), log_w[h], u);
    const at::Tensor apart = u - p.matmul(u).unsqueeze(-1),
                     log_apart = u.log() - p.matmul(u.log()).unsqueeze(-1),
                     part = grad.select(-1, h).to(at::kDouble).unsqueeze(-1) * p * apart;
    d_counts.select(-1, h).copy_((part * log_apart).sum(-1));
    d_expected.select(-1, h).copy_((part * apart).sum(-1).neg());
    d_prior[h].copy_(part.reshape({-1, u.size(0)}).sum(0));
  }
  return {d_counts, d_expected, d_prior.to(prior.scalar_type())};
}

// ------------------------------------------------------------------------------- Meta, autograd

at::Tensor forward_meta(const at::Tensor& counts, const at::Tensor& expected,
                        const at::Tensor& prior, const at::Tensor& support) {
  check(counts, expected, prior, support);
  return at::empty_like(counts, at::MemoryFormat::Contiguous);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_meta(const at::Tensor&,
                                                             const at::Tensor& counts,
                                                             const at::Tensor&,
                                                             const at::Tensor& prior,
                                                             const at::Tensor&) {
  return {at::empty_like(counts, at::MemoryFormat::Contiguous),
          at::empty_like(counts, at::MemoryFormat::Contiguous),
          at::empty_like(prior, at::MemoryFormat::Contiguous)};
}

at::Tensor discrete_prior_meta(const at::Tensor& counts, const at::Tensor&,
                               const at::Tensor& support, int64_t) {
  return at::empty_symint({counts.sym_size(1), support.sym_size(0)},
                          counts.options().dtype(at::kDouble));
}

class PosteriorRiskFunction : public torch::autograd::Function<PosteriorRiskFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& counts,
                            const at::Tensor& expected, const at::Tensor& prior,
                            const at::Tensor& support) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({counts, expected, prior, support});
    return forward_op().call(counts, expected, prior, support);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    auto [d_counts, d_expected, d_prior] =
        backward_op().call(grads[0], saved[0], saved[1], saved[2], saved[3]);
    return {d_counts, d_expected, d_prior, at::Tensor()};
  }
};

at::Tensor forward_autograd(const at::Tensor& counts, const at::Tensor& expected,
                            const at::Tensor& prior, const at::Tensor& support) {
  return PosteriorRiskFunction::apply(counts, expected, prior, support);
}

}  // namespace

at::Tensor posterior_risk(const at::Tensor& counts, const at::Tensor& expected,
                          const at::Tensor& prior, const at::Tensor& support) {
  return forward_op().call(counts, expected, prior, support);
}

at::Tensor discrete_prior(const at::Tensor& counts, const at::Tensor& expected,
                          const at::Tensor& support, int64_t steps) {
  return prior_op().call(counts, expected, support, steps);
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("posterior_risk", forward_cpu);
  m.impl("posterior_risk_backward", backward_cpu);
  m.impl("discrete_prior", discrete_prior_cpu);
}

TORCH_LIBRARY_IMPL(topreach, CUDA, m) {
  m.impl("posterior_risk", forward_cuda);
  m.impl("posterior_risk_backward", backward_cuda);
}

TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("posterior_risk", forward_meta);
  m.impl("posterior_risk_backward", backward_meta);
  m.impl("discrete_prior", discrete_prior_meta);
}

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("posterior_risk", forward_autograd);
  m.impl("posterior_risk_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("discrete_prior", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace topreach
