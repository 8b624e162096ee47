#include "site_history.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "../require.h"

namespace topreach {

namespace {

constexpr double kFloor = 1e-3;  // of a relative risk

// Holt-Winters on the logarithm of the total, without a trend.
class Level {
 public:
  explicit Level(const SiteHistory& history)
      : smoothing_(history.smoothing),
        seasonal_smoothing_(history.seasonal_smoothing),
        seasons_(size_t(std::max<int64_t>(history.season, 1)), 0.0) {}

  std::optional<double> forecast(size_t row) const {
    if (updates_ == 0) return std::nullopt;
    return std::exp(level_ + seasons_[row % seasons_.size()]);
  }

  void update(size_t row, double total) {
    double& season = seasons_[row % seasons_.size()];
    const double value = std::log(total + 0.5);
    level_ = updates_ == 0 ? value : level_ + smoothing_ * (value - season - level_);
    ++updates_;
    if (seasons_.size() > 1) {
      const double cycles = double((updates_ - 1) / seasons_.size());
      season += std::max(seasonal_smoothing_, 0.5 / (1 + cycles)) * (value - level_ - season);
    }
  }

 private:
  double smoothing_, seasonal_smoothing_;
  std::vector<double> seasons_;
  double level_ = 0.0;
  size_t updates_ = 0;
};

}  // namespace

torch::Tensor Neighbours::sum(const torch::Tensor& values) const {
  return std::get<0>(at::embedding_bag(values.to(torch::kDouble), sites, start,
                                       /*scale_grad_by_freq=*/false, /*mode=*/0, /*sparse=*/false,
                                       weights, /*include_last_offset=*/true));
}

torch::Tensor SiteHistory::statistics(const torch::Tensor& past) const {
  const int64_t sites = counts.size(1);
  TR_REQUIRE(past.dim() == 2 && past.size(1) == sites,
             "SiteHistory::statistics: past must have shape [N, S] with the S = {} "
             "sites of training, got {}",
             sites, past.sizes());
  const torch::Tensor decay = torch::exp2(-1 / torch::tensor(half_lives, torch::kDouble));
  const int64_t size = decay.size(0);
  torch::Tensor a = torch::zeros({sites, size}, torch::kDouble);
  torch::Tensor e = torch::zeros({size}, torch::kDouble);
  Level total(*this);
  const torch::Tensor y = past.to(torch::kDouble);
  for (int64_t row = 0; row < y.size(0); ++row) {
    const torch::Tensor now = y[row];
    if (now.isnan().any().item<bool>()) continue;
    a = decay * a + now.unsqueeze(1);
    e = decay * e + now.mean();
    total.update(size_t(row), now.sum().item<double>());
  }
  torch::Tensor m = torch::ones_like(a);
  for (size_t j = 0; j < graphs.size(); ++j) {
    const double kappa = concentration[j];
    const torch::Tensor degree = graphs[j].sum(torch::ones({sites, 1}, torch::kDouble));
    m = (graphs[j].sum(a) + kappa) / (degree * e + kappa / m.clamp_min(kFloor));
  }
  const std::optional<double> forecast = total.forecast(size_t(y.size(0)));
  const double rate = forecast ? *forecast / double(sites) : level;
  return torch::cat({a, m * e, m * rate}, 1).to(torch::kFloat);
}

}  // namespace topreach
