#include "perturbed_topk.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <tuple>
#include <vector>

#include "../../kernels/perturbed_topk.h"
#include "../require.h"
#include "autograd.h"
#include "key.h"
#include "perturbed_topk_checks.h"
#include "scratch.h"
#include "sum_blocks.h"
#include "topk_mask.h"
#include "topk_rows.h"

namespace topreach {

void check_perturbed_topk(const at::Tensor& scores, int64_t k, double sigma, int64_t num_samples,
                          std::string_view estimator, const at::Tensor& key, int64_t row_offset) {
  constexpr const char* name = "perturbed_topk";
  check_scores(name, scores, k);
  TR_REQUIRE(std::isfinite(sigma) && sigma >= 0,
             "{}: sigma must be finite and not negative, got {}", name, sigma);
  TR_REQUIRE(estimator == "score" || estimator == "score_loo" || estimator == "conditional",
             "{}: estimator must be 'score', 'score_loo' or 'conditional', got '{}'", name,
             estimator);
  const int64_t fewest = estimator == "score_loo" ? 2 : 1;
  TR_REQUIRE(num_samples >= fewest && num_samples <= INT32_MAX,
             "{}: num_samples must be at least {} for estimator '{}' and below "
             "2^31, got {}",
             name, fewest, estimator, num_samples);
  check_key(name, key, scores.device());
  check_row_range(name, row_offset, rows_of(scores).rows);
}

void check_perturbed_topk_backward(const at::Tensor& grad, const at::Tensor& scores,
                                   const at::Tensor& membership, const at::Tensor& threshold,
                                   const at::Tensor& last_tied, const at::Tensor& boundary,
                                   int64_t k, double sigma, int64_t num_samples,
                                   std::string_view estimator, const at::Tensor& key,
                                   int64_t row_offset) {
  check_perturbed_topk(scores, k, sigma, num_samples, estimator, key, row_offset);
  constexpr const char* name = "perturbed_topk_backward";
  auto per_draw_sizes = scores.sizes().vec();
  per_draw_sizes.back() = num_samples;
  TR_REQUIRE(grad.sizes() == scores.sizes() && membership.sizes() == scores.sizes(),
             "{}: grad and membership must have the shape of scores, {}, got {} and "
             "{}",
             name, scores.sizes(), grad.sizes(), membership.sizes());
  TR_REQUIRE(threshold.sizes() == at::IntArrayRef(per_draw_sizes) &&
                 last_tied.sizes() == at::IntArrayRef(per_draw_sizes),
             "{}: threshold and last_tied must have shape {}, as perturbed_topk "
             "returns them, got {} and {}",
             name, at::IntArrayRef(per_draw_sizes), threshold.sizes(), last_tied.sizes());
  auto boundary_sizes = per_draw_sizes;
  boundary_sizes.back() = estimator == "conditional" ? num_samples : 0;
  boundary_sizes.push_back(2);
  TR_REQUIRE(boundary.sizes() == at::IntArrayRef(boundary_sizes),
             "{}: boundary must have shape {}, as perturbed_topk returns it, got {}", name,
             at::IntArrayRef(boundary_sizes), boundary.sizes());
}

void check_row_range(const char* function, int64_t row_offset, int64_t rows) {
  constexpr int64_t row_numbers = int64_t{1} << 32;
  TR_REQUIRE(row_offset >= 0 && row_offset <= row_numbers - rows,
             "{}: row_offset must keep row numbers between 0 and 2^32 - 1, got {} "
             "with {} rows",
             function, row_offset, rows);
}

void check_noise_arguments(const char* function, const at::Tensor& key, int64_t num_samples,
                           int64_t rows, int64_t sites, int64_t row_offset) {
  check_key(function, key, key.device());
  TR_REQUIRE(num_samples >= 0 && rows >= 0 && sites >= 0,
             "{}: num_samples, rows and sites must not be negative, got {}, {}, {}", function,
             num_samples, rows, sites);
  check_row_range(function, row_offset, rows);
}

at::Tensor per_draw(const at::Tensor& scores, int64_t num_samples, at::ScalarType dtype) {
  auto sizes = scores.sym_sizes().vec();
  sizes.back() = num_samples;
  return at::empty_symint(sizes, scores.options().dtype(dtype));
}

at::Tensor empty_boundary(const at::Tensor& scores, int64_t num_samples,
                          std::string_view estimator) {
  auto sizes = scores.sym_sizes().vec();
  sizes.back() = estimator == "conditional" ? num_samples : 0;
  sizes.emplace_back(2);
  return at::empty_symint(sizes, scores.options().dtype(at::kInt));
}

bool is_hard(const at::Tensor& scores, int64_t k, double sigma) {
  const double least = scores.scalar_type() == at::kDouble
                           ? std::numeric_limits<double>::min()
                           : double(std::numeric_limits<float>::min());
  return k == 0 || k == scores.size(-1) || sigma < least;
}

namespace {

using Forward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

auto forward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::perturbed_topk", "")
          .typed<Forward(const at::Tensor&, int64_t, double, int64_t, std::string_view,
                         std::string_view, const at::Tensor&, int64_t)>();
  return op;
}

auto backward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::perturbed_topk_backward", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                            const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t,
                            double, int64_t, std::string_view, std::string_view, const at::Tensor&,
                            int64_t)>();
  return op;
}

// Users can call the operator directly, so this checks that a boundary names sites.
void check_boundary(const at::Tensor& boundary, int64_t sites) {
  const int32_t* site = boundary.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < boundary.numel(); ++i)
    TR_REQUIRE(site[i] >= 0 && site[i] < sites,
               "perturbed_topk_backward: boundary must hold sites, 0 to {}, as "
               "perturbed_topk returns it, got {}",
               sites - 1, site[i]);
}

template <typename T>
kernels::TopKProblem<T> problem_of(const at::Tensor& scores, int64_t k, double sigma,
                                   int64_t num_samples, const at::Tensor& key, int64_t row_offset) {
  const auto [rows, sites] = rows_of(scores);
  return {scores.const_data_ptr<T>(),
          rows,
          sites,
          k,
          T(sigma),
          num_samples,
          key_words(key),
          row_offset};
}

// A task is one block of draws of one row.
struct Tasks {
  int64_t blocks, count;
  Tasks(int64_t rows, int64_t draws)
      : blocks((draws + kernels::kDrawBlock - 1) / kernels::kDrawBlock),
        count(rows * blocks) {}
};

// The least number of tasks for one worker, so that it has some 50 microseconds of work.
int64_t grain(int64_t sites) {
  return 1 + 20'000 / (kernels::padded_sites(sites) * kernels::kDrawBlock);
}

template <typename T>
void forward_kernel(const kernels::TopKProblem<T>& p, kernels::Noise noise, T* membership,
                    T* threshold, int32_t* last_tied) {
  const auto& cpu = kernels::topk_cpu<T>();
  const at::Tensor count_tensor = at::zeros({p.rows, p.sites}, at::kInt);
  int32_t* counts = count_tensor.mutable_data_ptr<int32_t>();
  const Tasks tasks(p.rows, p.draws);
  std::mutex shared_row;
  at::parallel_for(0, tasks.count, grain(p.sites), [&](int64_t begin, int64_t end) {
    Scratch scratch(kernels::TopKScratch<T>::bytes(p.sites));
    std::vector<int32_t> part;
    for (int64_t task = begin; task < end;) {
      const int64_t row = task / tasks.blocks;
      const int64_t last = std::min(end, (row + 1) * tasks.blocks);
      const int64_t first_draw = (task - row * tasks.blocks) * kernels::kDrawBlock;
      const int64_t end_draw = std::min(p.draws, (last - row * tasks.blocks) * kernels::kDrawBlock);
      const bool whole = first_draw == 0 && end_draw == p.draws;
      int32_t* into = counts + row * p.sites;
      if (!whole) {
        part.assign(size_t(p.sites), 0);
        into = part.data();
      }
      const auto bracket = cpu.bracket(p, noise, row, scratch.get());
      cpu.forward(p, noise, row, bracket, first_draw, end_draw, into, threshold + row * p.draws,
                  last_tied + row * p.draws, scratch.get());
      if (!whole) {  // integer sums: order does not matter
        const std::lock_guard<std::mutex> lock(shared_row);
        for (int64_t s = 0; s < p.sites; ++s) counts[row * p.sites + s] += part[size_t(s)];
      }
      task = last;
    }
  });
  at::parallel_for(0, p.rows * p.sites, 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) membership[i] = T(counts[i]) / T(p.draws);
  });
}

// Whether a site with an infinite score is chosen; the noise does not matter.
template <typename T>
bool is_chosen(T score, int64_t site, T threshold, int32_t last_tied) {
  return score > threshold || (score == threshold && site <= last_tied);
}

template <typename T>
void conditional_forward_kernel(const kernels::TopKProblem<T>& p, kernels::Noise noise,
                                T* membership, T* threshold, int32_t* last_tied,
                                int32_t* boundary) {
  const auto& cpu = kernels::topk_cpu<T>();
  const int64_t scratch_bytes = kernels::TopKScratch<T>::bytes(p.sites);
  std::vector<kernels::Bracket<T>> brackets(size_t(p.rows));
  at::parallel_for(0, p.rows, grain(p.sites), [&](int64_t begin, int64_t end) {
    Scratch scratch(scratch_bytes);
    for (int64_t row = begin; row < end; ++row)
      brackets[size_t(row)] = cpu.bracket(p, noise, row, scratch.get());
  });
  sum_blocks(p.rows, p.sites, Tasks(p.rows, p.draws).blocks, grain(p.sites), scratch_bytes,
             membership, [&](int64_t row, int64_t block, T* sums, void* scratch) {
               const int64_t first = block * kernels::kDrawBlock;
               cpu.conditional_forward(p, noise, row, brackets[size_t(row)], first,
                                       std::min(p.draws, first + kernels::kDrawBlock), sums,
                                       threshold + row * p.draws, last_tied + row * p.draws,
                                       boundary + 2 * row * p.draws, scratch);
             });
  at::parallel_for(0, p.rows * p.sites, 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / p.sites, first_draw = row * p.draws;
      membership[i] = std::isinf(p.scores[i])
                          ? T(is_chosen(p.scores[i], i - row * p.sites, threshold[first_draw],
                                        last_tied[first_draw]))
                          : membership[i] / T(p.draws);
    }
  });
}

// grad = scale times the sums over draws that `block_of_draws(row, begin, end, sums, scratch)` forms.
template <typename T, typename BlockOfDraws>
void backward_kernel(const kernels::TopKProblem<T>& p, T scale, T* grad,
                     const BlockOfDraws& block_of_draws) {
  sum_blocks(p.rows, p.sites, Tasks(p.rows, p.draws).blocks, grain(p.sites),
             kernels::TopKScratch<T>::bytes(p.sites), grad,
             [&](int64_t row, int64_t block, T* sums, void* scratch) {
               const int64_t first = block * kernels::kDrawBlock;
               block_of_draws(row, first, std::min(p.draws, first + kernels::kDrawBlock), sums,
                              scratch);
             });
  at::parallel_for(0, p.rows * p.sites, 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      grad[i] = std::isinf(p.scores[i]) ? T(0) : grad[i] * scale;
  });
}

Forward perturbed_topk_cpu(const at::Tensor& scores, int64_t k, double sigma, int64_t num_samples,
                           std::string_view estimator, std::string_view noise_name,
                           const at::Tensor& key, int64_t row_offset) {
  check_perturbed_topk(scores, k, sigma, num_samples, estimator, key, row_offset);
  const auto noise = parse_noise("perturbed_topk", noise_name);
  check_no_nan("perturbed_topk", "scores", scores);
  const at::Tensor input = scores.contiguous();
  at::Tensor threshold = per_draw(input, num_samples, input.scalar_type());
  at::Tensor last_tied = per_draw(input, num_samples, at::kInt);
  at::Tensor boundary = empty_boundary(input, num_samples, estimator);
  if (is_hard(input, k, sigma)) {
    return {topk_mask(input, k), threshold.fill_(0), last_tied.fill_(kernels::kNoSplitTie),
            boundary.fill_(0)};
  }
  at::Tensor membership = at::zeros_like(input, at::MemoryFormat::Contiguous);
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "perturbed_topk", [&] {
    const auto p = problem_of<scalar_t>(input, k, sigma, num_samples, key, row_offset);
    auto* b = membership.mutable_data_ptr<scalar_t>();
    auto* value = threshold.mutable_data_ptr<scalar_t>();
    auto* tied = last_tied.mutable_data_ptr<int32_t>();
    if (estimator == "conditional") {
      conditional_forward_kernel(p, noise, b, value, tied, boundary.mutable_data_ptr<int32_t>());
    } else {
      forward_kernel(p, noise, b, value, tied);
    }
  });
  return {membership, threshold, last_tied, boundary};
}

at::Tensor perturbed_topk_backward_cpu(const at::Tensor& grad, const at::Tensor& scores,
                                       const at::Tensor& membership, const at::Tensor& threshold,
                                       const at::Tensor& last_tied, const at::Tensor& boundary,
                                       int64_t k, double sigma, int64_t num_samples,
                                       std::string_view estimator, std::string_view noise_name,
                                       const at::Tensor& key, int64_t row_offset) {
  check_perturbed_topk_backward(grad, scores, membership, threshold, last_tied, boundary, k, sigma,
                                num_samples, estimator, key, row_offset);
  const auto noise = parse_noise("perturbed_topk", noise_name);
  const at::Tensor input = scores.contiguous();
  at::Tensor result = at::zeros_like(input, at::MemoryFormat::Contiguous);
  if (is_hard(input, k, sigma)) return result;
  const at::Tensor v = grad.contiguous(), b = membership.contiguous();
  const at::Tensor values = threshold.contiguous(), ties = last_tied.contiguous();
  const at::Tensor pairs = boundary.contiguous();
  check_boundary(pairs, input.size(-1));
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "perturbed_topk_backward", [&] {
    const auto p = problem_of<scalar_t>(input, k, sigma, num_samples, key, row_offset);
    const auto& cpu = kernels::topk_cpu<scalar_t>();
    const scalar_t* v_data = v.const_data_ptr<scalar_t>();
    const scalar_t* value = values.const_data_ptr<scalar_t>();
    const int32_t* tied = ties.const_data_ptr<int32_t>();
    scalar_t* out = result.mutable_data_ptr<scalar_t>();
    if (estimator == "conditional") {
      const int32_t* pair = pairs.const_data_ptr<int32_t>();
      backward_kernel(p, scalar_t(1 / (double(num_samples) * sigma)), out,
                      [&](int64_t row, int64_t begin, int64_t end, scalar_t* sums, void* scratch) {
                        cpu.conditional_backward(p, noise, row, v_data + row * p.sites, begin, end,
                                                 value + row * p.draws, tied + row * p.draws,
                                                 pair + 2 * row * p.draws, sums, scratch);
                      });
      return;
    }
    // The mean over draws of b_j . v is b . v.
    std::vector<scalar_t> centre(size_t(p.rows), scalar_t(0));
    const bool leave_one_out = estimator == "score_loo";
    if (leave_one_out) {
      const scalar_t* b_data = b.const_data_ptr<scalar_t>();
      for (int64_t row = 0; row < p.rows; ++row) {
        double sum = 0;
        for (int64_t i = row * p.sites; i < (row + 1) * p.sites; ++i)
          sum += double(b_data[i]) * double(v_data[i]);
        centre[size_t(row)] = scalar_t(sum);
      }
    }
    const double draws = double(leave_one_out ? num_samples - 1 : num_samples);
    backward_kernel(p, scalar_t(1 / (draws * sigma)), out,
                    [&](int64_t row, int64_t begin, int64_t end, scalar_t* sums, void* scratch) {
                      cpu.backward(p, noise, row, v_data + row * p.sites, centre[size_t(row)],
                                   begin, end, value + row * p.draws, tied + row * p.draws, sums,
                                   scratch);
                    });
  });
  return result;
}

Forward perturbed_topk_meta(const at::Tensor& scores, int64_t, double, int64_t num_samples,
                            std::string_view estimator, std::string_view, const at::Tensor&,
                            int64_t) {
  return {at::empty_like(scores, at::MemoryFormat::Contiguous),
          per_draw(scores, num_samples, scores.scalar_type()),
          per_draw(scores, num_samples, at::kInt), empty_boundary(scores, num_samples, estimator)};
}

at::Tensor perturbed_topk_backward_meta(const at::Tensor&, const at::Tensor& scores,
                                        const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                        const at::Tensor&, int64_t, double, int64_t,
                                        std::string_view, std::string_view, const at::Tensor&,
                                        int64_t) {
  return at::empty_like(scores, at::MemoryFormat::Contiguous);
}

at::Tensor topk_noise_meta(const at::Tensor& key, int64_t num_samples, int64_t rows, int64_t sites,
                           std::string_view, int64_t) {
  return at::empty({num_samples, rows, sites}, key.options().dtype(at::kFloat));
}

at::Tensor topk_noise_checksum_meta(const at::Tensor& key, int64_t, int64_t rows, int64_t,
                                    std::string_view, int64_t) {
  return at::empty({rows}, key.options());
}

// Forward mode. The expected mask is the gradient of a convex function of the scores [Berthet et al.
// 2020], so its Jacobian J is symmetric: what backward gives for v estimates J v as well as J^T v.
Forward perturbed_topk_autograd(const at::Tensor& scores, int64_t k, double sigma,
                                int64_t num_samples, std::string_view estimator,
                                std::string_view noise, const at::Tensor& key, int64_t row_offset) {
  const Forward results = [&] {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return forward_op().call(scores, k, sigma, num_samples, estimator, noise, key, row_offset);
  }();
  const auto& [membership, threshold, last_tied, boundary] = results;
  const auto product = [=, estimator = std::string(estimator), noise = std::string(noise)](
                           const at::Tensor& v, const Tensors& saved) {
    return backward_op().call(v, saved[0], saved[1], saved[2], saved[3], saved[4], k, sigma,
                              num_samples, estimator, noise, saved[5], row_offset);
  };
  const Tensors draws = {membership.detach(), threshold, last_tied, boundary, key};
  Tensors saved = {scores};
  saved.insert(saved.end(), draws.begin(), draws.end());
  set_derivative(
      "PerturbedTopK", membership, {scores}, saved,
      [product](const at::Tensor& v, const Tensors& s) { return Tensors{product(v, s)}; });
  const at::Tensor tangent = tangent_of(scores);
  if (tangent.defined()) {
    saved[0] = primal_of(scores);
    set_tangent(membership, product(tangent, saved));
  }
  return results;
}

at::Tensor topk_noise_cpu(const at::Tensor& key, int64_t num_samples, int64_t rows, int64_t sites,
                          std::string_view noise_name, int64_t row_offset) {
  check_noise_arguments("topk_noise", key, num_samples, rows, sites, row_offset);
  const auto noise = parse_noise("topk_noise", noise_name);
  at::Tensor result = at::empty({num_samples, rows, sites}, at::kFloat);
  float* out = result.mutable_data_ptr<float>();
  const auto words = key_words(key);
  at::parallel_for(0, num_samples * rows, 1 + 20'000 / (sites + 1),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i)
                       kernels::noise_row_cpu(words, noise, sites, uint32_t(i / rows),
                                              uint32_t(row_offset + i % rows), out + i * sites);
                   });
  return result;
}

at::Tensor topk_noise_checksum_cpu(const at::Tensor& key, int64_t num_samples, int64_t rows,
                                   int64_t sites, std::string_view noise_name, int64_t row_offset) {
  check_noise_arguments("topk_noise_checksum", key, num_samples, rows, sites, row_offset);
  const auto noise = parse_noise("topk_noise_checksum", noise_name);
  at::Tensor result = at::zeros({rows}, at::kLong);
  int64_t* out = result.mutable_data_ptr<int64_t>();
  const auto words = key_words(key);
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      out[row] =
          kernels::noise_checksum_cpu(words, noise, sites, num_samples, uint32_t(row_offset + row));
  });
  return result;
}

}  // namespace

at::Tensor perturbed_topk(const at::Tensor& scores, int64_t k,
                          const PerturbedTopKOptions& options) {
  check_defined("perturbed_topk", "scores", scores);
  if (options.key) check_defined("perturbed_topk", "key", *options.key);
  const at::Tensor key = options.key ? *options.key : draw_key(options.generator, scores.device());
  if (options.row_k || options.row_sigma) return perturbed_topk_rows(scores, k, options, key);
  return std::get<0>(forward_op().call(scores, k, options.sigma, options.num_samples,
                                       options.estimator, options.noise, key, options.row_offset));
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("perturbed_topk", perturbed_topk_cpu);
  m.impl("perturbed_topk_backward", perturbed_topk_backward_cpu);
  m.impl("topk_noise", topk_noise_cpu);
  m.impl("topk_noise_checksum", topk_noise_checksum_cpu);
}

TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("perturbed_topk", perturbed_topk_meta);
  m.impl("perturbed_topk_backward", perturbed_topk_backward_meta);
  m.impl("topk_noise", topk_noise_meta);
  m.impl("topk_noise_checksum", topk_noise_checksum_meta);
}

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("perturbed_topk", perturbed_topk_autograd);
  m.impl("perturbed_topk_backward",
         torch::CppFunction::makeFromBoxedFunction<&differentiable_once>());
}

}  // namespace topreach
