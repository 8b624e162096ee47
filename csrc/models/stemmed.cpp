#include "stemmed.h"

#include <torch/types.h>

#include <optional>

#include "../ops/hawkes.h"
#include "../require.h"

namespace topreach {

StemmedImpl::StemmedImpl() {
  const auto buffer = [this](const char* name, torch::Tensor& member,
                             torch::ScalarType type = torch::kDouble) {
    member = register_buffer(name, torch::zeros({0}, type));
  };
  buffer("base", base), buffer("decay", decay), buffer("excitation", excitation);
  buffer("jump", jump), buffer("second", second), buffer("weight", weight), buffer("end", end);
  buffer("known", known, torch::kLong);
  buffer("working", working), buffer("covariance", covariance);
}

void StemmedImpl::check(int64_t sites) const {
  const int64_t nodes = decay.numel();
  TR_REQUIRE(
      nodes > 0 && base.numel() == nodes && excitation.numel() == nodes &&
          jump.sizes() == at::IntArrayRef({nodes, nodes}) &&
          (second.numel() == 0 || second.sizes() == at::IntArrayRef({nodes, nodes, nodes})),
      "Stemmed: base, decay and excitation must have shape [M], jump [M, M] and second [M, M, "
      "M] or [0], got {}, {}, {}, {} and {}",
      base.sizes(), decay.sizes(), excitation.sizes(), jump.sizes(), second.sizes());
  TR_REQUIRE(weight.sizes() == at::IntArrayRef({sites, nodes}),
             "Stemmed: weight must have shape [S, M] = [{}, {}], got {}", sites, nodes,
             weight.sizes());
  TR_REQUIRE(end.numel() == 1 && known.numel() == 1,
             "Stemmed: end and known must be one number each, got shapes {} and {}", end.sizes(),
             known.sizes());
  const torch::Tensor children = jump.cpu() / decay.cpu().unsqueeze(1);
  const double radius = at::linalg_eigvals(children).abs().max().item<double>();
  TR_REQUIRE(
      radius < 1,
      "Stemmed: the spectral radius must be below 1 for a plan, got {:.3g}: each event has more "
      "than one child. Fit with anchor=12, or with stable=True",
      radius);
}

std::tuple<torch::Tensor, torch::Tensor> StemmedImpl::moments(double from, double to) const {
  const double origin = end.item<double>(), begin = from - origin;
  TR_REQUIRE(begin >= -1e-9 && to > from,
             "Stemmed: a period must begin at or after the fit's end, {}, got {} to {}", origin,
             from, to);
  std::vector<double> edges{0.0};
  if (begin > 1e-9) edges.push_back(begin);
  edges.push_back(to - origin);
  const auto [mean, variance] =
      hawkes_moments(base.expand({int64_t(edges.size()) - 1, -1}), decay, excitation, jump,
                     second.numel() > 0 ? std::optional<at::Tensor>(second) : std::nullopt,
                     torch::tensor(edges, torch::kDouble), true, false);
  const torch::Tensor cells = weight.cpu();
  return {cells.matmul(mean[-1]), (cells.matmul(variance[-1]) * cells).sum(1)};
}

NegativeBinomial StemmedImpl::forward(const std::vector<double>& edges) const {
  std::vector<torch::Tensor> means, variances;
  for (size_t h = 0; h + 1 < edges.size(); ++h) {
    auto [mean, variance] = moments(edges[h], edges[h + 1]);
    means.push_back(mean);
    variances.push_back(variance);
  }
  return negbin_of_moments(torch::stack(means), torch::stack(variances));
}

}  // namespace topreach
