#include "ratio_ranking.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "../../kernels/ratio_ranking.h"
#include "../require.h"
#include "autograd.h"
#include "common.h"
#include "ratio_ranking_checks.h"
#include "sum_blocks.h"

namespace topreach {

void check_ratio_ranking(const at::Tensor& samples, const std::optional<at::Tensor>& log_prob,
                         double offset, std::string_view estimator) {
  constexpr const char* name = "ratio_ranking";
  TR_REQUIRE_TYPE(samples.scalar_type() == at::kFloat || samples.scalar_type() == at::kDouble,
                  "{}: samples must be float32 or float64, got {}; convert with "
                  "samples.float()",
                  name, samples.scalar_type());
  TR_REQUIRE(samples.dim() >= 2, "{}: samples must have shape [M, ..., S], got {}", name,
             samples.sizes());
  TR_REQUIRE(samples.size(0) >= 1,
             "{}: samples must hold at least one sample (M >= 1), got shape {}", name,
             samples.sizes());
  TR_REQUIRE(std::isfinite(offset) && offset >= 0,
             "{}: offset must be finite and not negative, got {}", name, offset);
  const bool diagonal = estimator == "diagonal";
  TR_REQUIRE(estimator != "go",
             "{}: log_prob and cdf must be given for estimator 'go'; see count_cdf", name);
  TR_REQUIRE(diagonal || estimator == "score" || estimator == "score_loo",
             "{}: estimator must be 'score', 'score_loo', 'diagonal' or 'go', got "
             "'{}'",
             name, estimator);
  if (!log_prob) return;
  const auto wanted = diagonal ? samples.sizes() : samples.sizes().slice(0, samples.dim() - 1);
  TR_REQUIRE(log_prob->sizes() == wanted,
             "{}: log_prob must have shape {} for estimator '{}' and samples of "
             "shape {}, got {}{}",
             name, wanted, estimator, samples.sizes(), log_prob->sizes(),
             diagonal ? "; give the log-probability site by site" : "");
  TR_REQUIRE_TYPE(log_prob->scalar_type() == samples.scalar_type(),
                  "{}: log_prob must have the dtype of samples ({}), got {}", name,
                  samples.scalar_type(), log_prob->scalar_type());
  TR_REQUIRE(log_prob->device() == samples.device(),
             "{}: log_prob must be on the device of samples ({}), got {}", name, samples.device(),
             log_prob->device());
  TR_REQUIRE(estimator != "score_loo" || samples.size(0) >= 2,
             "{}: samples must number at least 2 for estimator 'score_loo', got 1; "
             "draw more, or use 'score'",
             name);
}

void check_ratio_ranking_backward(const at::Tensor& grad, const at::Tensor& samples,
                                  const at::Tensor& ranking, double offset,
                                  std::string_view estimator) {
  check_ratio_ranking(samples, std::nullopt, offset, estimator);
  const auto wanted = samples.sizes().slice(1);
  TR_REQUIRE(grad.sizes() == wanted && ranking.sizes() == wanted,
             "ratio_ranking_backward: grad and ranking must have the shape of one "
             "sample, {}, got {} and {}",
             wanted, grad.sizes(), ranking.sizes());
}

namespace {

auto forward_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::ratio_ranking", "")
                             .typed<at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&,
                                               double, std::string_view)>();
  return op;
}

auto go_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::ratio_ranking_go", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>();
  return op;
}

auto backward_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::ratio_ranking_backward", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&,
                                               const at::Tensor&, double, std::string_view)>();
  return op;
}

struct Shape {
  int64_t samples, rows, sites;
};

Shape shape_of(const at::Tensor& samples) {
  const auto [all_rows, sites] = rows_of(samples);
  return {samples.size(0), all_rows / samples.size(0), sites};
}

at::Tensor ratio_ranking_cpu(const at::Tensor& samples, const std::optional<at::Tensor>& log_prob,
                             double offset, std::string_view estimator) {
  check_ratio_ranking(samples, log_prob, offset, estimator);
  const at::Tensor y = samples.contiguous();
  const auto [draws, rows, sites] = shape_of(y);
  at::Tensor ranking = at::zeros(y.sizes().slice(1), y.options());
  const int64_t blocks = (draws + kernels::kSampleBlock - 1) / kernels::kSampleBlock;
  std::atomic<int64_t> bad{-1};  // m * rows + row of a sample that is not a count
  AT_DISPATCH_FLOATING_TYPES(
      y.scalar_type(), "ratio_ranking", [&, draws = draws, rows = rows, sites = sites] {
        const scalar_t* data = y.const_data_ptr<scalar_t>();
        scalar_t* r = ranking.mutable_data_ptr<scalar_t>();
        const auto& cpu = kernels::ratio_cpu<scalar_t>();
        sum_blocks(rows, sites, blocks, 1 + 40'000 / (sites * kernels::kSampleBlock + 1), 0, r,
                   [&](int64_t row, int64_t block, scalar_t* sums, void*) {
                     const int64_t begin = block * kernels::kSampleBlock;
                     const int64_t m =
                         cpu.forward(data + row * sites, rows * sites, sites, scalar_t(offset),
                                     begin, std::min(draws, begin + kernels::kSampleBlock), sums);
                     if (m >= 0) bad = m * rows + row;
                   });
        for (int64_t i = 0; i < rows * sites; ++i) r[i] /= scalar_t(draws);
      });
  if (bad >= 0) {
    TR_REQUIRE(false,
               "ratio_ranking: samples must be finite counts, not negative, got "
               "another value in sample {}, row {}",
               bad / rows, bad % rows);
  }
  return ranking;
}

at::Tensor ratio_ranking_backward_cpu(const at::Tensor& grad, const at::Tensor& samples,
                                      const at::Tensor& ranking, double offset,
                                      std::string_view estimator) {
  check_ratio_ranking_backward(grad, samples, ranking, offset, estimator);
  const at::Tensor y = samples.contiguous(), g = grad.contiguous(), r = ranking.contiguous();
  const auto [draws, rows, sites] = shape_of(y);
  const bool diagonal = estimator == "diagonal", leave_one_out = estimator == "score_loo";
  at::Tensor weights =
      at::empty(diagonal ? y.sizes() : y.sizes().slice(0, y.dim() - 1), y.options());
  AT_DISPATCH_FLOATING_TYPES(
      y.scalar_type(), "ratio_ranking_backward", [&, draws = draws, rows = rows, sites = sites] {
        const scalar_t* y_data = y.const_data_ptr<scalar_t>();
        const scalar_t* g_data = g.const_data_ptr<scalar_t>();
        const scalar_t* r_data = r.const_data_ptr<scalar_t>();
        scalar_t* w = weights.mutable_data_ptr<scalar_t>();
        const auto& cpu = kernels::ratio_cpu<scalar_t>();
        std::vector<scalar_t> centre(size_t(rows), scalar_t(0));
        if (leave_one_out) {
          for (int64_t row = 0; row < rows; ++row) {
            double sum = 0;
            for (int64_t i = row * sites; i < (row + 1) * sites; ++i)
              sum += double(g_data[i]) * double(r_data[i]);
            centre[size_t(row)] = scalar_t(sum);
          }
        }
        const scalar_t scale = scalar_t(1) / scalar_t(leave_one_out ? draws - 1 : draws);
        at::parallel_for(
            0, draws * rows, 1 + 40'000 / (sites + 1), [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) {
                const scalar_t* sample = y_data + i * sites;
                const scalar_t* g_row = g_data + (i % rows) * sites;
                if (diagonal) {
                  cpu.diagonal(sample, g_row, sites, scalar_t(offset), scale, w + i * sites);
                } else {
                  w[i] = scale * (cpu.reach(sample, g_row, sites, scalar_t(offset)) -
                                  centre[size_t(i % rows)]);
                }
              }
            });
      });
  return weights;
}

at::Tensor ratio_ranking_meta(const at::Tensor& samples, const std::optional<at::Tensor>&, double,
                              std::string_view) {
  return at::empty_symint(samples.sym_sizes().slice(1), samples.options());
}

at::Tensor ratio_ranking_backward_meta(const at::Tensor&, const at::Tensor& samples,
                                       const at::Tensor&, double, std::string_view estimator) {
  const auto sizes = samples.sym_sizes();
  return at::empty_symint(estimator == "diagonal" ? sizes : sizes.slice(0, sizes.size() - 1),
                          samples.options());
}

// The transpose of backward: sum_m t^m (y^m / (offset + 1.y^m) - centre), for a tangent t of log_prob.
at::Tensor ratio_ranking_jvp(const at::Tensor& tangent, const at::Tensor& samples,
                             const at::Tensor& ranking, double offset, std::string_view estimator) {
  const at::Tensor total = samples.sum(-1, true) + offset;
  const at::Tensor share = samples / at::where(total.gt(0), total, 1);
  const double draws = double(samples.size(0));
  if (estimator == "diagonal") return (tangent * share).sum(0) / draws;
  const at::Tensor t = tangent.unsqueeze(-1);
  if (estimator == "score") return (t * share).sum(0) / draws;
  return (t * (share - ranking)).sum(0) / (draws - 1);
}

at::Tensor ratio_ranking_autograd(const at::Tensor& samples,
                                  const std::optional<at::Tensor>& log_prob, double offset,
                                  std::string_view estimator) {
  const at::Tensor result = [&] {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return forward_op().call(samples, log_prob, offset, estimator);
  }();
  if (!log_prob) return result;
  const at::Tensor ranking = result.detach(), y = primal_of(samples.detach());
  set_derivative(
      "RatioRanking", result, {*log_prob}, {y, ranking},
      [=, estimator = std::string(estimator)](const at::Tensor& v, const Tensors& saved) {
        return Tensors{backward_op().call(v, saved[0], saved[1], offset, estimator)};
      });
  const at::Tensor tangent = tangent_of(*log_prob);
  if (tangent.defined())
    set_tangent(result, ratio_ranking_jvp(tangent, y, ranking, offset, estimator));
  return result;
}

}  // namespace

at::Tensor ratio_ranking(const at::Tensor& samples, const std::optional<at::Tensor>& log_prob,
                         double offset, std::string_view estimator,
                         const std::optional<at::Tensor>& cdf) {
  check_defined("ratio_ranking", "samples", samples);
  if (log_prob) check_defined("ratio_ranking", "log_prob", *log_prob);
  if (cdf) check_defined("ratio_ranking", "cdf", *cdf);
  if (estimator == "go" && log_prob && cdf) return go_op().call(samples, *log_prob, *cdf, offset);
  if (log_prob && estimator != "diagonal" && log_prob->sizes() == samples.sizes()) {
    return forward_op().call(samples, log_prob->sum(-1), offset, estimator);
  }
  return forward_op().call(samples, log_prob, offset, estimator);
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("ratio_ranking", ratio_ranking_cpu);
  m.impl("ratio_ranking_backward", ratio_ranking_backward_cpu);
}

TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("ratio_ranking", ratio_ranking_meta);
  m.impl("ratio_ranking_backward", ratio_ranking_backward_meta);
}

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("ratio_ranking", ratio_ranking_autograd);
  m.impl("ratio_ranking_backward",
         torch::CppFunction::makeFromBoxedFunction<&differentiable_once>());
}

}  // namespace topreach
