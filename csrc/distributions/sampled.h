// A forecast that consists of simulated draws alone.
#pragma once

#include <torch/types.h>

#include "../ops/negbin.h"

namespace topreach {

/// Draws y [M, ..., S], each a joint draw of all sites and periods. Mean, variance, distribution
/// function, quantiles and ratio ranking are those of the draws. It has no log-probability.
///
///   topreach::SampledForecast forecast(draws);
///   auto r = forecast.expected_ratio();
class SampledForecast {
 public:
  /// Raises c10::ValueError unless `draws` has at least two dimensions and one draw.
  explicit SampledForecast(torch::Tensor draws);

  const torch::Tensor& draws() const { return draws_; }
  torch::Tensor mean() const { return draws_.mean(0); }
  /// Unbiased, [..., S]; 0 for one draw.
  torch::Tensor variance() const;
  /// `num_samples` draws by resampling whole draws with replacement.
  torch::Tensor sample(int64_t num_samples, const NegBinSampleOptions& options = {}) const;
  /// Raises c10::TypeError: draws have no probability.
  torch::Tensor site_log_prob(const torch::Tensor& y) const;
  /// Share of the draws <= y [..., S] (or [N, ..., S]), float64.
  torch::Tensor cdf(const torch::Tensor& y) const;
  /// The least draw with cdf >= probability, [..., S].
  torch::Tensor quantile(double probability) const;
  /// mean_m y_s^m / (offset + 1.y^m).
  torch::Tensor expected_ratio(double offset = 0.0) const;
  /// The sites `index` [n] alone.
  SampledForecast at_sites(const torch::Tensor& index) const {
    return SampledForecast(draws_.index_select(-1, index));
  }
  bool independent_sites() const { return false; }

 private:
  torch::Tensor draws_;
};

}  // namespace topreach
