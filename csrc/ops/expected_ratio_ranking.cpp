// E[y_s / (c + Y)] of independent counts, exactly [D25 Eq. 6].
//
// 1/z = int_0^inf e^-zt dt turns the ratio into generating functions G_k(u) = E[u^y_k], u = e^-t:
//
//   r_s = int_0^inf f_s(t) dt,   f_s(t) = E[y_s e^-(c+Y)t] = e^-(c+1)t (G'_s/G_s)(u) prod_k G_k(u)
//
// Quadrature: trapezoidal rule in x = log t, step h, which replaces 1/z by h sum_j t_j e^-z t_j. Its
// relative error has the same bound for every z > 0: by Poisson summation
// 2 |Gamma(1 + 2 pi i / h)| (1 + ...), 2.6e-11 for h = 0.36. Hence r_s has that relative error for
// every distribution, however dispersed, if the nodes reach far enough at both ends:
//   right: y_s > 0 has z >= 1 + c, so nodes up to t = 24 / (1 + c) leave out less than 1e-11 r_s;
//   left:  below t_0 f_s is taken as the line through its first two nodes, and the nodes left out are
//          a geometric sum, two weights. f_s changes on the scale E[y_s] / E[y_s (c+Y)] >= 1/scale,
//          scale = c + 1 + E[Y] + max_s (odds_s + pi_s m_s): t_0 = 1e-4 / scale errs by about
//          1e-12 r_s, as r_s >= E[y_s]^2 / (2 E[y_s (c+Y)]).
// This takes log(2.4e5 scale / (1 + c)) / h nodes: 55 for E[Y] = 1000, 68 for 1e5. On CUDA, where their
// number must not depend on the data, there are kCudaNodes: a step below 0.36 up to scales of 1e14.
//
// With v = 1 - u = -expm1(-t), all without cancellation:
//   NegBin(n, odds o): log G = -n log1p(o v), G'/G = n o / (1 + o v);   Poisson: -n v and n;
//   Binomial(n, p) is NegBin(-n, -p);
//   zero inflation pi: log D, D = pi + (1 - pi) G, and (G'/G) kappa, kappa = (1 - pi) G / D.
// As log G is linear in n, a row with a single o needs only the sum of n: o then keeps a last dimension
// of 1, and all work on the nodes is O(1) in S.
//
// Gradient for an incoming g, with weights W_j = w_j e^-(c+1)t_j prod G and A_j = sum_s g_s (G'_s/G_s):
// sum_j W_j (g_s d(G'_s/G_s) + A_j d log G_s). The nodes are recomputed; nothing is stored.
#include "expected_ratio_ranking.h"

#include <ATen/ExpandUtils.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../require.h"
#include "autograd.h"
#include "common.h"

namespace topreach {
namespace {

constexpr const char* kName = "expected_ratio_ranking";
constexpr double kFirst = 1e-4, kLast = 24, kStep = 0.36;
constexpr int64_t kCudaNodes = 128, kBlock = int64_t{1} << 17;  // numbers in a block
using Optional = std::optional<at::Tensor>;

struct Names {
  const char *first, *second;
};

Names names_of(std::string_view family, const Optional& second) {
  TR_REQUIRE(family == "poisson" || family == "negative_binomial" || family == "binomial",
             "{}: family must be 'poisson', 'negative_binomial' or 'binomial', got "
             "'{}'",
             kName, family);
  if (family == "poisson") {
    TR_REQUIRE(!second, "{}: second must be None for family 'poisson', got a tensor", kName);
    return {"rate", ""};
  }
  const Names names{"total_count", family == "binomial" ? "probs" : "odds"};
  TR_REQUIRE(second.has_value(), "{}: {} must be given for family '{}', got None", kName,
             names.second, family);
  return names;
}

void check_tensor(const at::Tensor& tensor, const char* argument, const at::Tensor& first) {
  TR_REQUIRE_TYPE(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble,
                  "{}: {} must be float32 or float64, got {}", kName, argument,
                  tensor.scalar_type());
  TR_REQUIRE(tensor.device() == first.device(),
             "{}: {} must be on the device of the other parameters ({}), got {}", kName, argument,
             first.device(), tensor.device());
}

c10::SymDimVector broadcast(const char* argument, const c10::SymDimVector& shape,
                            c10::SymIntArrayRef other) {
  const auto known = c10::asIntArrayRefSlowOpt(shape), added = c10::asIntArrayRefSlowOpt(other);
  if (known && added) check_broadcast(kName, argument, *known, *added);
  return at::infer_size_symdimvector(shape, other);
}

// The common shape [..., S] of the parameters.
c10::SymDimVector shape_of(std::string_view family, const at::Tensor& first, const Optional& second,
                           const Optional& zero_probs, double offset) {
  const Names names = names_of(family, second);
  TR_REQUIRE(std::isfinite(offset) && offset >= 0,
             "{}: offset must be finite and not negative, got {}", kName, offset);
  check_tensor(first, names.first, first);
  c10::SymDimVector shape(first.sym_sizes());
  if (second) {
    check_tensor(*second, names.second, first);
    shape = broadcast(names.second, shape, second->sym_sizes());
  }
  if (zero_probs) {
    check_tensor(*zero_probs, "zero_probs", first);
    shape = broadcast("zero_probs", shape, zero_probs->sym_sizes());
  }
  TR_REQUIRE(!shape.empty(),
             "{}: {} must have shape [..., S], got a scalar; add a dimension of "
             "sites",
             kName, names.first);
  return shape;
}

// Raises unless all of `tensor` is `valid` (CPU), or sets the rest to NaN (CUDA, without waiting).
at::Tensor only_valid(const at::Tensor& tensor, const at::Tensor& valid, const char* argument,
                      const char* requirement) {
  if (!tensor.is_cpu()) return tensor.masked_fill(valid.logical_not(), NAN);
  if (!valid.all().item<bool>()) {
    const double value = tensor.masked_select(valid.logical_not()).select(0, 0).item<double>();
    TR_REQUIRE(false, "{}: {} must {}, got {}", kName, argument, requirement, value);
  }
  return tensor;
}

at::Tensor checked_chance(const at::Tensor& tensor, const char* argument) {
  const at::Tensor p = tensor.to(at::kDouble);
  return only_valid(p, p.ge(0).logical_and_(p.le(1)), argument, "lie in [0, 1]");
}

at::Tensor checked_positive(const at::Tensor& tensor, const char* argument) {
  const at::Tensor x = tensor.to(at::kDouble);
  return only_valid(x, x.ge(0).logical_and_(x.lt(std::numeric_limits<double>::infinity())),
                    argument, "be finite and not negative");
}

// The parameters as rows, in double: n [B, S], odds [B, S] or [B, 1] (undefined: Poisson), zero
// [B, S] (undefined: none). A binomial has negative n and odds.
struct Sites {
  at::Tensor n, odds, zero;
  double sign = 1;
  std::vector<int64_t> shape;  // [..., S]
};

Sites sites_of(std::string_view family, const at::Tensor& first, const Optional& second,
               const Optional& zero_probs, double offset) {
  const c10::SymDimVector symbolic = shape_of(family, first, second, zero_probs, offset);
  const at::IntArrayRef shape = C10_AS_INTARRAYREF_SLOW(symbolic);
  const Names names = names_of(family, second);
  Sites sites;
  sites.shape = shape.vec();
  const int64_t count = shape.back();
  const auto rows = [&](const at::Tensor& tensor, bool shared) {
    std::vector<int64_t> wanted = sites.shape;
    if (shared) wanted.back() = 1;
    return tensor.expand(wanted).reshape({-1, wanted.back()});
  };
  int64_t lines = 1;
  for (const int64_t size : shape.slice(0, shape.size() - 1)) lines *= size;
  if (lines * count == 0) return sites;
  sites.n = rows(checked_positive(first, names.first), false);
  if (family == "binomial") {
    sites.sign = -1;
    sites.n = -only_valid(sites.n, sites.n.eq(sites.n.round()), names.first, "be whole");
  }
  if (second) {
    const at::Tensor odds = sites.sign < 0 ? -checked_chance(*second, names.second)
                                           : checked_positive(*second, names.second);
    const bool shared = odds.dim() == 0 || odds.size(-1) == 1;
    sites.odds = rows(odds, shared && !zero_probs);
  }
  if (zero_probs) sites.zero = rows(checked_chance(*zero_probs, "zero_probs"), false);
  return sites;
}

// Nodes of each row: v = 1 - e^-t [B, J, 1] and weights w e^-(c+1)t [B, J].
struct Nodes {
  at::Tensor v, weight;
};

Nodes nodes_of(const Sites& sites, double offset) {
  const at::Tensor mean = sites.odds.defined() ? sites.n * sites.odds : sites.n;
  at::Tensor spread = sites.odds.defined() ? sites.odds : at::zeros({1, 1}, mean.options());
  at::Tensor total = mean;
  if (sites.zero.defined()) {
    const at::Tensor lost = sites.zero * mean;
    spread = spread + lost;
    total = mean - lost;
  }
  const at::Tensor scale =
      total.sum(-1, true) + spread.amax(-1, true).clamp_min(0) + (1 + offset);  // [B, 1]
  const at::Tensor first = kFirst / scale;
  const double last = kLast / (1 + offset);
  const at::Tensor range = (last / first).log();
  int64_t count = kCudaNodes;
  if (range.is_cpu()) {
    const double widest = range.max().item<double>();
    TR_REQUIRE(std::isfinite(widest),
               "{}: the mean count of a row must be finite, got one that overflows", kName);
    count = 1 + int64_t(std::ceil(widest / kStep));
  }
  const at::Tensor h = range / double(count - 1);
  const at::Tensor t = first * (h * at::arange(count, h.options())).exp();
  at::Tensor weight = h * t;
  // sum_{i>=1} h e^-ih f(t_0 e^-ih), f a line: its moments of order 0 and 1 in t / t_0.
  const at::Tensor zeroth = h / h.expm1(), one = h / (2 * h).expm1();
  const at::Tensor slope = (one - zeroth) / h.expm1();
  weight.narrow(1, 0, 1).add_(first * (zeroth - slope));
  weight.narrow(1, 1, 1).add_(first * slope);
  return {-(-t).expm1().unsqueeze(-1), weight.mul_((t * -(1 + offset)).exp())};
}

// One block of rows and nodes: b rows, j nodes, S or 1 columns.
struct Block {
  at::Tensor n, odds;                         // [b, S], [b, S or 1]
  at::Tensor v, weight;                       // [b, j, 1], [b, j]
  at::Tensor log_term, inverse;               // log1p(o v) or v; 1/(1 + o v) or 1: [b, j, S or 1]
  at::Tensor excess, log_d, relative, kappa;  // with zero inflation: 1/G - 1, log D, G/D: [b, j, S]
  at::Tensor w;                               // W = weight prod G, [b, j]

  Block(const Sites& sites, const Nodes& nodes, int64_t row, int64_t rows, int64_t node,
        int64_t count)
      : n(sites.n.narrow(0, row, rows)),
        v(nodes.v.narrow(0, row, rows).narrow(1, node, count)),
        weight(nodes.weight.narrow(0, row, rows).narrow(1, node, count)) {
    if (sites.odds.defined()) {
      odds = sites.odds.narrow(0, row, rows);
      inverse = odds.unsqueeze(1) * v;
      log_term = inverse.log1p();
      inverse.add_(1).reciprocal_();
    } else {
      odds = at::ones({1, 1}, n.options());
      log_term = v;
      inverse = at::ones_like(v);
    }
    at::Tensor log_product;
    if (sites.zero.defined()) {
      const at::Tensor zero = sites.zero.narrow(0, row, rows).unsqueeze(1);
      // m = min(-log G, 700), so that e^m stays finite; a G below e^-700 adds nothing.
      const at::Tensor m = (n.unsqueeze(1) * log_term).clamp_max_(700);
      excess = m.expm1();
      const at::Tensor ratio = zero * excess;  // D / G - 1
      log_d = ratio.log1p().sub_(m);
      relative = ratio.add_(1).reciprocal_();
      kappa = relative * (1 - zero);
      log_product = log_d.sum(-1);
    } else {
      log_product = sum_sites(log_term, -at::sum_to(n, odds_shape()));
    }
    w = weight * log_product.exp();
  }

  // Shape of arrays with one column for each different odds.
  std::vector<int64_t> odds_shape() const { return {n.size(0), log_term.size(-1)}; }
  // sum_s a[b, j, s] c[b, s]: [b, j].
  static at::Tensor sum_sites(const at::Tensor& a, const at::Tensor& c) {
    return at::bmm(a, c.unsqueeze(-1)).squeeze(-1);
  }
  // sum_j c[b, j] a[b, j, s]: [b, s].
  static at::Tensor sum_nodes(const at::Tensor& c, const at::Tensor& a) {
    return at::bmm(c.unsqueeze(1), a).squeeze(1);
  }
};

template <typename Work>
void for_blocks(const Sites& sites, const Nodes& nodes, const Work& work) {
  const int64_t rows = nodes.weight.size(0), count = nodes.weight.size(1);
  const bool shared = !sites.zero.defined() && (!sites.odds.defined() || sites.odds.size(1) == 1);
  const int64_t columns = shared ? 1 : sites.n.size(1);
  const int64_t node_step = std::clamp<int64_t>(kBlock / columns, 1, count);
  const int64_t row_step = std::clamp<int64_t>(kBlock / (columns * node_step), 1, rows);
  for (int64_t row = 0; row < rows; row += row_step) {
    const int64_t height = std::min(row_step, rows - row);
    for (int64_t node = 0; node < count; node += node_step)
      work(Block(sites, nodes, row, height, node, std::min(node_step, count - node)), row, height);
  }
}

at::Tensor forward(std::string_view family, const at::Tensor& first, const Optional& second,
                   const Optional& zero_probs, double offset) {
  const Sites sites = sites_of(family, first, second, zero_probs, offset);
  if (!sites.n.defined()) return at::empty(sites.shape, first.options());
  const Nodes nodes = nodes_of(sites, offset);
  at::Tensor ranking = at::zeros_like(sites.n);
  for_blocks(sites, nodes, [&](const Block& b, int64_t row, int64_t rows) {
    const at::Tensor slope = b.kappa.defined() ? b.inverse * b.kappa : b.inverse;
    ranking.narrow(0, row, rows).add_(Block::sum_nodes(b.w, slope) * b.odds);
  });
  return ranking.mul_(sites.n).reshape(sites.shape).to(first.scalar_type());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad,
                                                        std::string_view family,
                                                        const at::Tensor& first,
                                                        const Optional& second,
                                                        const Optional& zero_probs, double offset) {
  const Sites sites = sites_of(family, first, second, zero_probs, offset);
  TR_REQUIRE(grad.sizes() == sites.shape, "{}_backward: grad must have shape {}, got {}", kName,
             c10::IntArrayRef(sites.shape), grad.sizes());
  const auto like = [&](const Optional& tensor) {
    return tensor ? at::zeros_like(*tensor) : at::empty({0}, first.options());
  };
  if (!sites.n.defined()) return {like(first), like(second), like(zero_probs)};
  const Nodes nodes = nodes_of(sites, offset);
  const at::Tensor g_rows = grad.to(at::kDouble).reshape(sites.n.sizes());
  at::Tensor grad_n = at::zeros_like(sites.n), grad_odds, grad_zero;
  if (second) grad_odds = at::zeros_like(sites.odds);
  if (zero_probs) grad_zero = at::zeros_like(sites.zero);
  for_blocks(sites, nodes, [&](const Block& b, int64_t row, int64_t rows) {
    const at::Tensor g = g_rows.narrow(0, row, rows);
    at::Tensor to_n = grad_n.narrow(0, row, rows);
    if (!zero_probs) {
      const at::Tensor reach = at::sum_to(g * b.n, b.odds_shape());
      const at::Tensor a = Block::sum_sites(b.inverse, reach * b.odds) * b.w;  // W A
      to_n.add_(g * (Block::sum_nodes(b.w, b.inverse) * b.odds))
          .sub_(Block::sum_nodes(a, b.log_term));
      if (!second) return;
      grad_odds.narrow(0, row, rows)
          .add_(reach * Block::sum_nodes(b.w, b.inverse.square()))
          .sub_(at::sum_to(b.n, b.odds_shape()) * Block::sum_nodes(a * b.v.squeeze(-1), b.inverse));
      return;
    }
    const at::Tensor n = b.n.unsqueeze(1), o = b.odds.unsqueeze(1), g1 = g.unsqueeze(1);
    const at::Tensor slope = n * (o * b.inverse);  // G'/G of the family
    const at::Tensor a = Block::sum_sites(slope * b.kappa, g).unsqueeze(-1);
    const at::Tensor w_kappa = b.kappa * b.w.unsqueeze(-1);
    const at::Tensor of_slope = w_kappa * g1;  // d / d (G'/G), then d / d log G
    const at::Tensor of_log = (1 - b.kappa).mul_(slope).mul_(g1).add_(a).mul_(w_kappa);
    to_n.add_((of_slope * b.inverse).sum(1).mul_(b.odds)).sub_((of_log * b.log_term).sum(1));
    if (second) {
      const at::Tensor change = (of_slope * b.inverse).sub_(of_log * b.v).mul_(b.inverse);
      grad_odds.narrow(0, row, rows).add_(change.sum(1).mul_(b.n));
    }
    // This needs prod_{k != s} D_k, which is not W / D if both underflow.
    const at::Tensor others = (b.log_d.sum(-1, true) - b.log_d).exp_().mul_(b.weight.unsqueeze(-1));
    const at::Tensor loss = (b.excess / (1 + b.excess)).mul_(a);  // (1 - G) A
    grad_zero.narrow(0, row, rows)
        .add_(loss.sub_((slope * b.relative).mul_(g1)).mul_(others).sum(1));
  });
  const auto back = [&](const at::Tensor& rows, const Optional& tensor) {
    if (!tensor) return at::empty({0}, first.options());
    std::vector<int64_t> shape = sites.shape;
    shape.back() = rows.size(1);
    return at::sum_to(rows.reshape(shape), tensor->sizes()).to(tensor->scalar_type());
  };
  return {back(grad_n * sites.sign, first), back(second ? grad_odds * sites.sign : grad_n, second),
          back(grad_zero, zero_probs)};
}

at::Tensor forward_meta(std::string_view family, const at::Tensor& first, const Optional& second,
                        const Optional& zero_probs, double offset) {
  return at::empty_symint(shape_of(family, first, second, zero_probs, offset), first.options());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_meta(const at::Tensor&, std::string_view,
                                                             const at::Tensor& first,
                                                             const Optional& second,
                                                             const Optional& zero_probs, double) {
  const auto like = [&](const Optional& tensor) {
    return tensor ? at::empty_symint(tensor->sym_sizes(), tensor->options())
                  : at::empty({0}, first.options());
  };
  return {like(first), like(second), like(zero_probs)};
}

auto forward_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::expected_ratio_ranking", "")
                             .typed<at::Tensor(std::string_view, const at::Tensor&, const Optional&,
                                               const Optional&, double)>();
  return op;
}

auto backward_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::expected_ratio_ranking_backward", "")
                             .typed<std::tuple<at::Tensor, at::Tensor, at::Tensor>(
                                 const at::Tensor&, std::string_view, const at::Tensor&,
                                 const Optional&, const Optional&, double)>();
  return op;
}

at::Tensor autograd(std::string_view family, const at::Tensor& first, const Optional& second,
                    const Optional& zero_probs, double offset) {
  const auto is_dual = [](const Optional& t) { return t && tangent_of(*t).defined(); };
  if (is_dual(first) || is_dual(second) || is_dual(zero_probs)) refuse_tangent(kName);
  const at::Tensor ranking = [&] {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return forward_op().call(family, first, second, zero_probs, offset);
  }();
  const Tensors inputs = {first, second.value_or(at::Tensor()), zero_probs.value_or(at::Tensor())};
  set_derivative("ExpectedRatioRanking", ranking, inputs, inputs,
                 [=, family = std::string(family)](const at::Tensor& grad, const Tensors& saved) {
                   const auto optional = [](const at::Tensor& t) {
                     return t.defined() ? Optional(t) : Optional();
                   };
                   auto [to_first, to_second, to_zero] = backward_op().call(
                       grad, family, saved[0], optional(saved[1]), optional(saved[2]), offset);
                   return Tensors{to_first, saved[1].defined() ? to_second : at::Tensor(),
                                  saved[2].defined() ? to_zero : at::Tensor()};
                 });
  return ranking;
}

}  // namespace

at::Tensor expected_ratio_ranking(std::string_view family, const at::Tensor& first,
                                  const std::optional<at::Tensor>& second,
                                  const std::optional<at::Tensor>& zero_probs, double offset) {
  check_defined(kName, "the first parameter", first);
  return forward_op().call(family, first, second, zero_probs, offset);
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("expected_ratio_ranking", forward);
  m.impl("expected_ratio_ranking_backward", backward);
}

TORCH_LIBRARY_IMPL(topreach, CUDA, m) {
  m.impl("expected_ratio_ranking", forward);
  m.impl("expected_ratio_ranking_backward", backward);
}

TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("expected_ratio_ranking", forward_meta);
  m.impl("expected_ratio_ranking_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("expected_ratio_ranking", autograd);
  m.impl("expected_ratio_ranking_backward",
         torch::CppFunction::makeFromBoxedFunction<&differentiable_once>());
}

}  // namespace topreach
