// Moments of the future of a Hawkes process; the equations are in hawkes.h.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include <array>
#include <cmath>
#include <vector>

#include "../require.h"
#include "hawkes.h"

namespace topreach {
namespace {

constexpr const char* kName = "hawkes_moments";
constexpr double kLongestStep = 2.0;  // of the covariance, in the shortest memory
// Gauss-Legendre on (0, 1), four points.
constexpr std::array<double, 4> kNodes{0.06943184420297371, 0.33000947820757187, 0.6699905217924281,
                                       0.9305681557970263};
constexpr std::array<double, 4> kWeights{0.17392742256872692, 0.32607257743127307,
                                         0.32607257743127307, 0.17392742256872692};

at::Tensor doubles(const at::Tensor& t) {
  return t.detach().to(at::kCPU, at::kDouble).contiguous();
}

// Mean and covariance of (S, N) while the base rate is constant.
class Flow {
 public:
  Flow(const at::Tensor& mu, const at::Tensor& decay, const at::Tensor& jump,
       const std::optional<at::Tensor>& second)
      : mu_(mu),
        nodes_(mu.size(0)),
        jump_(jump),
        second_(second) {
    // d (S, N, 1) = generator (S, N, 1)
    generator_ = at::zeros({2 * nodes_ + 1, 2 * nodes_ + 1}, mu.options());
    generator_.narrow(0, 0, nodes_).narrow(1, 0, nodes_).copy_(jump - at::diag(decay));
    generator_.narrow(0, 0, nodes_).select(1, 2 * nodes_).copy_(jump.matmul(mu));
    generator_.narrow(0, nodes_, nodes_).narrow(1, 0, nodes_).copy_(at::eye(nodes_, mu.options()));
    generator_.narrow(0, nodes_, nodes_).select(1, 2 * nodes_).copy_(mu);
  }

  at::Tensor over(double length) const { return at::linalg_matrix_exp(generator_ * length); }

  // sum_v lambda_v E[(k_v, e_v) (k_v, e_v)'] for the mean (S, N, 1)
  at::Tensor input(const at::Tensor& mean) const {
    const at::Tensor rate = mu_ + mean.narrow(0, 0, nodes_);
    const at::Tensor cross = jump_ * rate;  // [S, N]
    const at::Tensor own =
        second_ ? at::tensordot(rate, *second_, {0}, {0}) : cross.matmul(jump_.t());
    return at::cat({at::cat({own, cross}, 1), at::cat({cross.t(), at::diag(rate)}, 1)}, 0);
  }

 private:
  at::Tensor mu_;
  int64_t nodes_;
  at::Tensor jump_, generator_;
  std::optional<at::Tensor> second_;
};

}  // namespace

std::tuple<at::Tensor, at::Tensor> hawkes_moments(const at::Tensor& base, const at::Tensor& decay,
                                                  const at::Tensor& excitation,
                                                  const at::Tensor& jump,
                                                  const std::optional<at::Tensor>& second,
                                                  const at::Tensor& edges, bool covariance,
                                                  bool cumulative) {
  const at::Tensor mu = doubles(base), d = doubles(decay), s = doubles(excitation),
                   k = doubles(jump), e = doubles(edges);
  const int64_t nodes = d.dim() == 1 ? d.size(0) : -1, periods = e.numel() - 1;
  TR_REQUIRE(nodes >= 1 && s.sizes() == d.sizes() && k.dim() == 2 && k.size(0) == nodes &&
                 k.size(1) == nodes,
             "{}: decay and excitation must have shape [M] and jump [M, M], got {}, {} and {}",
             kName, d.sizes(), s.sizes(), k.sizes());
  TR_REQUIRE(e.dim() == 1 && periods >= 1 && e[0].item<double>() == 0 &&
                 e.diff().gt(0).all().item<bool>() && e.isfinite().all().item<bool>(),
             "{}: edges must ascend from 0, at least two of them, got {}", kName, e.sizes());
  TR_REQUIRE(mu.dim() == 2 && mu.size(0) == periods && mu.size(1) == nodes,
             "{}: base must have shape [H, M] = [{}, {}], got {}", kName, periods, nodes,
             mu.sizes());
  TR_REQUIRE(
      mu.ge(0).all().item<bool>() && d.gt(0).all().item<bool>() && s.ge(0).all().item<bool>() &&
          k.ge(0).all().item<bool>() &&
          at::cat({mu.flatten(), d, s, k.flatten()}).isfinite().all().item<bool>(),
      "{}: base, excitation and jump must be finite and >= 0, and decay > 0, got one that is "
      "not",
      kName);
  std::optional<at::Tensor> squares;
  if (second) {
    squares = doubles(*second);
    TR_REQUIRE(squares->sizes() == at::IntArrayRef({nodes, nodes, nodes}),
               "{}: second must have shape [M, M, M] with M = {}, got {}", kName, nodes,
               squares->sizes());
  }
  const double fastest = d.max().item<double>();
  at::Tensor mean = at::cat({s, at::zeros({nodes}, s.options()), at::ones({1}, s.options())});
  at::Tensor v = at::zeros({2 * nodes, 2 * nodes}, s.options());
  std::vector<at::Tensor> means, covariances;
  for (int64_t h = 0; h < periods; ++h) {
    const double length = e[h + 1].item<double>() - e[h].item<double>();
    const Flow flow(mu[h], d, k, squares);
    if (!cumulative) {
      mean.narrow(0, nodes, nodes).zero_();
      v.narrow(0, nodes, nodes).zero_();
      v.narrow(1, nodes, nodes).zero_();
    }
    if (!covariance) {
      mean = flow.over(length).matmul(mean);
    } else {
      const auto steps = int64_t(std::ceil(length * fastest / kLongestStep));
      const double step = length / double(steps);
      const at::Tensor whole = flow.over(step);
      const at::Tensor move = whole.narrow(0, 0, 2 * nodes).narrow(1, 0, 2 * nodes);
      std::vector<at::Tensor> to, from;  // from the step's start to a point, from there to its end
      for (const double at : kNodes) {
        to.push_back(flow.over(at * step));
        from.push_back(flow.over((1 - at) * step).narrow(0, 0, 2 * nodes).narrow(1, 0, 2 * nodes));
      }
      for (int64_t i = 0; i < steps; ++i) {
        v = move.matmul(v).matmul(move.t());
        for (size_t g = 0; g < kNodes.size(); ++g)
          v += from[g].matmul(flow.input(to[g].matmul(mean))).matmul(from[g].t()) *
               (kWeights[g] * step);
        mean = whole.matmul(mean);
      }
    }
    means.push_back(mean.narrow(0, nodes, nodes).clone());
    if (covariance)
      covariances.push_back(v.narrow(0, nodes, nodes).narrow(1, nodes, nodes).clone());
  }
  return {at::stack(means),
          covariance ? at::stack(covariances) : at::empty({periods, 0, 0}, s.options())};
}

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("hawkes_moments", hawkes_moments);
}

}  // namespace topreach
