#include "expected_topk.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "../../kernels/expected_topk.h"
#include "../../kernels/perturbed_topk.h"
#include "../require.h"
#include "autograd.h"
#include "common.h"
#include "expected_topk_checks.h"
#include "scratch.h"
#include "topk_mask.h"
#include "topk_rows.h"

namespace topreach {

ExpectedTopKMethod check_expected_topk(const at::Tensor& scores, int64_t k, double sigma,
                                       std::string_view method) {
  constexpr const char* name = "expected_topk";
  check_scores(name, scores, k);
  TR_REQUIRE(std::isfinite(sigma) && sigma >= 0,
             "{}: sigma must be finite and not negative, got {}", name, sigma);
  TR_REQUIRE(method == "exact" || method == "mean_field",
             "{}: method must be 'exact' or 'mean_field', got '{}'", name, method);
  return method == "exact" ? ExpectedTopKMethod::kExact : ExpectedTopKMethod::kMeanField;
}

ExpectedTopKMethod check_expected_topk_jvp(const at::Tensor& v, const at::Tensor& scores,
                                           const at::Tensor& bounds, int64_t k, double sigma,
                                           std::string_view method) {
  constexpr const char* name = "expected_topk_jvp";
  auto sizes = scores.sizes().vec();
  if (!sizes.empty()) sizes.back() = 2;
  TR_REQUIRE(v.sizes() == scores.sizes() && v.scalar_type() == scores.scalar_type() &&
                 v.device() == scores.device(),
             "{}: v must have the shape, dtype and device of scores, {} {}, got {} "
             "{}",
             name, scores.sizes(), scores.scalar_type(), v.sizes(), v.scalar_type());
  TR_REQUIRE(bounds.sizes() == at::IntArrayRef(sizes) && bounds.scalar_type() == at::kDouble &&
                 bounds.device() == scores.device(),
             "{}: bounds must be float64 of shape {}, as expected_topk returns it, "
             "got {} {}",
             name, at::IntArrayRef(sizes), bounds.scalar_type(), bounds.sizes());
  return check_expected_topk(scores, k, sigma, method);
}

at::Tensor bounds_like(const at::Tensor& scores) {
  auto sizes = scores.sym_sizes().vec();
  sizes.back() = 2;
  return at::empty_symint(sizes, scores.options().dtype(at::kDouble));
}

namespace {

using Forward = std::tuple<at::Tensor, at::Tensor>;

auto forward_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::expected_topk", "")
          .typed<Forward(const at::Tensor&, int64_t, double, std::string_view)>();
  return op;
}

auto jvp_op() {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("topreach::expected_topk_jvp", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t,
                            double, std::string_view)>();
  return op;
}

constexpr int64_t kChunk = 1 << 13;  // sites that one worker takes at a time

int64_t chunks_of(int64_t sites) { return (sites + kChunk - 1) / kChunk; }

// Rows of a problem whose scores are given, and the steps for each; see kernels/expected_topk.h.
template <typename T>
class ExpectedTopK {
 public:
  ExpectedTopK(const at::Tensor& scores, const T* v, int64_t k, double sigma)
      : scores_(scores.const_data_ptr<T>()),
        v_(v),
        k_(k),
        sigma_(sigma) {
    std::tie(rows_, sites_) = std::pair(rows_of(scores).rows, rows_of(scores).sites);
  }

  // bounds[2 row ..]: the K-th and (K+1)-th largest score.
  void find_bounds(double* bounds) const {
    at::parallel_for(0, rows_, 1 + 20'000 / sites_, [&](int64_t begin, int64_t end) {
      Scratch scratch(kernels::TopKScratch<T>::bytes(sites_));
      for (int64_t row = begin; row < end; ++row)
        for (int64_t i = 0; i < 2; ++i) {
          T value;
          int32_t last_tied;
          kernels::topk_cpu<T>().threshold(scores_ + row * sites_, sites_, k_ + i, &value,
                                           &last_tied, scratch.get());
          bounds[2 * row + i] = double(value);
        }
    });
  }

  kernels::TopKFrame frame(const double* bounds, int64_t row) const {
    return kernels::frame_of(bounds[2 * row], bounds[2 * row + 1], sigma_);
  }

  // Takes a few rows at a time, so that memory stays small, and their sites in chunks.
  template <typename Work>
  void for_rows(const double* bounds, const Work& work) const {
    const int64_t wave = std::max<int64_t>(1, std::min<int64_t>(rows_, kWave / chunks_of(sites_)));
    std::vector<int64_t> soft;
    for (int64_t row = 0; row < rows_; ++row)
      if (!frame(bounds, row).hard()) soft.push_back(row);
    for (size_t first = 0; first < soft.size(); first += size_t(wave)) {
      const size_t last = std::min(soft.size(), first + size_t(wave));
      work(std::vector<int64_t>(soft.begin() + int64_t(first), soft.begin() + int64_t(last)));
    }
  }

  // Calls f(index in rows, row, first site, sites, chunk number) for every chunk of the rows.
  template <typename F>
  void for_chunks(const std::vector<int64_t>& rows, const F& f) const {
    const int64_t chunks = chunks_of(sites_);
    at::parallel_for(0, int64_t(rows.size()) * chunks, 1 + 2'000 / std::min(sites_, kChunk),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t task = begin; task < end; ++task) {
                         const int64_t i = task / chunks, from = (task - i * chunks) * kChunk;
                         f(i, rows[size_t(i)], from, std::min(kChunk, sites_ - from), task);
                       }
                     });
  }

  // Spreads rows over their grids. Chunks are spread separately and added in order.
  struct Spread {
    std::vector<double> grids;  // [rows][2][kGridSize]
    std::vector<kernels::TopKSpread> counts;
  };
  Spread spread(const std::vector<int64_t>& rows, const double* bounds) const {
    constexpr int64_t size = 2 * kernels::kGridSize;
    const int64_t chunks = chunks_of(sites_);
    std::vector<double> parts(size_t(int64_t(rows.size()) * chunks * size), 0.0);
    std::vector<kernels::TopKSpread> counts(rows.size() * size_t(chunks));
    for_chunks(rows, [&](int64_t, int64_t row, int64_t from, int64_t count, int64_t task) {
      const int64_t at = row * sites_ + from;
      counts[size_t(task)] = kernels::expected_topk_cpu<T>().spread(
          scores_ + at, v_ != nullptr ? v_ + at : nullptr, count, frame(bounds, row),
          &parts[size_t(task * size)]);
    });
    if (chunks == 1) return {std::move(parts), std::move(counts)};
    Spread result{std::vector<double>(rows.size() * size_t(size), 0.0),
                  std::vector<kernels::TopKSpread>(rows.size(), {0, 0})};
    for (size_t task = 0; task < counts.size(); ++task) {
      const size_t row = task / size_t(chunks);
      for (int64_t i = 0; i < size; ++i)
        result.grids[row * size_t(size) + size_t(i)] += parts[task * size_t(size) + size_t(i)];
      result.counts[row].above += counts[task].above;
      result.counts[row].active += counts[task].active;
    }
    return result;
  }

  void exact(const double* bounds, T* out) const {
    const auto& cpu = kernels::expected_topk_cpu<T>();
    for_rows(bounds, [&](const std::vector<int64_t>& rows) {
      Spread spreads = spread(rows, bounds);
      std::vector<kernels::TopKTable> tables(rows.size());
      at::parallel_for(0, int64_t(rows.size()), 1, [&](int64_t begin, int64_t end) {
        Scratch scratch(cpu.scratch_bytes(sites_));
        for (int64_t i = begin; i < end; ++i) {
          const int64_t at = rows[size_t(i)] * sites_;
          cpu.solve(scores_ + at, v_ != nullptr ? v_ + at : nullptr, sites_, k_,
                    frame(bounds, rows[size_t(i)]), spreads.counts[size_t(i)],
                    &spreads.grids[size_t(2 * kernels::kGridSize * i)], &tables[size_t(i)],
                    out + at, scratch.get());
        }
      });
      for_chunks(rows, [&](int64_t i, int64_t row, int64_t from, int64_t count, int64_t) {
        const int64_t at = row * sites_ + from;
        cpu.interpolate(scores_ + at, v_ != nullptr ? v_ + at : nullptr, count, frame(bounds, row),
                        &tables[size_t(i)], out + at);
      });
    });
  }

  // Replaces the bounds of a row by (tau, tau), or by NaN if its choice is certain.
  void mean_field(double* bounds, T* out) const {
    const auto& cpu = kernels::expected_topk_cpu<T>();
    std::vector<double> tau(size_t(rows_), std::numeric_limits<double>::quiet_NaN());
    for_rows(bounds, [&](const std::vector<int64_t>& rows) {
      Spread spreads = spread(rows, bounds);
      at::parallel_for(0, int64_t(rows.size()), 1, [&](int64_t begin, int64_t end) {
        Scratch scratch(cpu.scratch_bytes(0));
        for (int64_t i = begin; i < end; ++i)
          tau[size_t(rows[size_t(i)])] = cpu.mean_field_threshold(
              k_, frame(bounds, rows[size_t(i)]), spreads.counts[size_t(i)],
              &spreads.grids[size_t(2 * kernels::kGridSize * i)], scratch.get());
      });
      for_chunks(rows, [&](int64_t, int64_t row, int64_t from, int64_t count, int64_t) {
        const int64_t at = row * sites_ + from;
        cpu.mean_field(scores_ + at, count, tau[size_t(row)], sigma_, out + at);
      });
    });
    for (int64_t row = 0; row < rows_; ++row)
      bounds[2 * row] = bounds[2 * row + 1] = tau[size_t(row)];
  }

  void mean_field_jvp(const double* bounds, T* out) const {
    const auto& cpu = kernels::expected_topk_cpu<T>();
    std::vector<int64_t> rows;
    for (int64_t row = 0; row < rows_; ++row)
      if (!std::isnan(bounds[2 * row])) rows.push_back(row);
    const int64_t chunks = chunks_of(sites_);
    std::vector<double> sums(rows.size() * size_t(2 * chunks));
    for_chunks(rows, [&](int64_t, int64_t row, int64_t from, int64_t count, int64_t task) {
      const int64_t at = row * sites_ + from;
      cpu.mean_field_sums(scores_ + at, v_ + at, count, bounds[2 * row], sigma_,
                          &sums[size_t(2 * task)], &sums[size_t(2 * task + 1)]);
    });
    for_chunks(rows, [&](int64_t i, int64_t row, int64_t from, int64_t count, int64_t) {
      double density = 0, weighted = 0;
      for (int64_t task = i * chunks; task < (i + 1) * chunks; ++task) {
        density += sums[size_t(2 * task)];
        weighted += sums[size_t(2 * task + 1)];
      }
      const int64_t at = row * sites_ + from;
      cpu.mean_field_jvp(scores_ + at, v_ + at, count, bounds[2 * row], sigma_,
                         density > 0 ? weighted / density : 0.0, out + at);
    });
  }

 private:
  static constexpr int64_t kWave = 256;  // chunks at a time: 1.8 MB of grids
  const T* scores_;
  const T* v_;
  int64_t rows_, sites_, k_;
  double sigma_;
};

Forward expected_topk_cpu(const at::Tensor& scores, int64_t k, double sigma,
                          std::string_view method_name) {
  const auto method = check_expected_topk(scores, k, sigma, method_name);
  const at::Tensor input = scores.contiguous();
  check_no_nan("expected_topk", "scores", input);
  at::Tensor membership = topk_mask(input, k);  // hard rows are done
  at::Tensor bounds = bounds_like(input);
  const bool hard = k == 0 || k == input.size(-1) || sigma == 0;
  if (hard || input.numel() == 0)
    return {membership, bounds.fill_(std::numeric_limits<double>::quiet_NaN())};
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "expected_topk", [&] {
    const ExpectedTopK<scalar_t> rows(input, nullptr, k, sigma);
    double* bounds_data = bounds.mutable_data_ptr<double>();
    rows.find_bounds(bounds_data);
    if (method == ExpectedTopKMethod::kExact) {
      rows.exact(bounds_data, membership.mutable_data_ptr<scalar_t>());
    } else {
      rows.mean_field(bounds_data, membership.mutable_data_ptr<scalar_t>());
    }
  });
  return {membership, bounds};
}

at::Tensor expected_topk_jvp_cpu(const at::Tensor& v, const at::Tensor& scores,
                                 const at::Tensor& bounds, int64_t k, double sigma,
                                 std::string_view method_name) {
  const auto method = check_expected_topk_jvp(v, scores, bounds, k, sigma, method_name);
  const at::Tensor input = scores.contiguous();
  at::Tensor result = at::zeros_like(input, at::MemoryFormat::Contiguous);
  if (k == 0 || k == input.size(-1) || sigma == 0 || input.numel() == 0) return result;
  const at::Tensor tangent = v.contiguous(), limits = bounds.contiguous();
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "expected_topk_jvp", [&] {
    const ExpectedTopK<scalar_t> rows(input, tangent.const_data_ptr<scalar_t>(), k, sigma);
    const double* bounds_data = limits.const_data_ptr<double>();
    if (method == ExpectedTopKMethod::kExact) {
      rows.exact(bounds_data, result.mutable_data_ptr<scalar_t>());
    } else {
      rows.mean_field_jvp(bounds_data, result.mutable_data_ptr<scalar_t>());
    }
  });
  return result;
}

Forward expected_topk_meta(const at::Tensor& scores, int64_t, double, std::string_view) {
  return {at::empty_like(scores, at::MemoryFormat::Contiguous), bounds_like(scores)};
}

at::Tensor expected_topk_jvp_meta(const at::Tensor&, const at::Tensor& scores, const at::Tensor&,
                                  int64_t, double, std::string_view) {
  return at::empty_like(scores, at::MemoryFormat::Contiguous);
}

Forward expected_topk_autograd(const at::Tensor& scores, int64_t k, double sigma,
                               std::string_view method) {
  const Forward results = [&] {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return forward_op().call(scores, k, sigma, method);
  }();
  const auto& [membership, bounds] = results;
  set_derivative("ExpectedTopK", membership, {scores}, {scores, bounds},
                 [=, method = std::string(method)](const at::Tensor& v, const Tensors& saved) {
                   return Tensors{jvp_op().call(v, saved[0], saved[1], k, sigma, method)};
                 });
  const at::Tensor tangent = tangent_of(scores);
  if (tangent.defined())
    set_tangent(membership, jvp_op().call(tangent, primal_of(scores), bounds, k, sigma, method));
  return results;
}

}  // namespace

at::Tensor expected_topk(const at::Tensor& scores, int64_t k, const ExpectedTopKOptions& options) {
  check_defined("expected_topk", "scores", scores);
  if (options.row_k || options.row_sigma) return expected_topk_rows(scores, k, options);
  return std::get<0>(forward_op().call(scores, k, options.sigma, options.method));
}

at::Tensor topk_probability(const at::Tensor& scores, int64_t k, double sigma) {
  return expected_topk(scores, k, {.sigma = sigma});
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("expected_topk", expected_topk_cpu);
  m.impl("expected_topk_jvp", expected_topk_jvp_cpu);
}

TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("expected_topk", expected_topk_meta);
  m.impl("expected_topk_jvp", expected_topk_jvp_meta);
}

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("expected_topk", expected_topk_autograd);
  m.impl("expected_topk_jvp", torch::CppFunction::makeFromBoxedFunction<&differentiable_once>());
}

}  // namespace topreach
