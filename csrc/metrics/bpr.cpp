#include "bpr.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <limits>
#include <string_view>

#include "../ops/autograd.h"
#include "../ops/common.h"
#include "../require.h"

namespace topreach {

namespace {

// Raises for a negative or NaN count, on the CPU only: on CUDA the check would wait for the device.
void check_counts(std::string_view function, const at::Tensor& counts) {
  TR_REQUIRE(!counts.lt(0).any().item<bool>(), "{}: counts must not be negative, got {}", function,
             counts.min().item<double>());
  TR_REQUIRE(!counts.isnan().any().item<bool>(),
             "{}: counts must not be NaN, got NaN; leave out sites or periods without counts",
             function);
}

void check_bpr(const char* function, const char* argument, const at::Tensor& chosen,
               const at::Tensor& counts, int64_t k) {
  TR_REQUIRE_TYPE(at::isFloatingType(chosen.scalar_type()), "{}: {} must be floating point, got {}",
                  function, argument, chosen.scalar_type());
  TR_REQUIRE_TYPE(!at::isComplexType(counts.scalar_type()), "{}: counts must be real, got {}",
                  function, counts.scalar_type());
  TR_REQUIRE(chosen.dim() >= 1 && counts.dim() >= 1 && chosen.sym_size(-1) == counts.sym_size(-1),
             "{}: {} and counts must have shape [..., S] with the same S, got {} "
             "and {}",
             function, argument, chosen.sym_sizes(), counts.sym_sizes());
  TR_REQUIRE(chosen.device() == counts.device(),
             "{}: counts must be on the device of {} ({}), got {}", function, argument,
             chosen.device(), counts.device());
  const auto rows = c10::asIntArrayRefSlowOpt(chosen.sym_sizes());
  const auto others = c10::asIntArrayRefSlowOpt(counts.sym_sizes());
  if (rows && others) check_broadcast(function, "counts", *rows, *others);
  TR_REQUIRE(k >= 1 && counts.sym_size(-1) >= k, "{}: k must be between 1 and S = {}, got {}",
             function, counts.sym_size(-1), k);
}

at::Tensor best_reach(const at::Tensor& counts, int64_t k, std::string_view function) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::best_reach", "")
                             .typed<at::Tensor(const at::Tensor&, int64_t, std::string_view)>();
  return op.call(counts, k, function);
}

at::Tensor best_reach_of(const at::Tensor& counts, int64_t k, std::string_view function) {
  TR_REQUIRE(counts.dim() >= 1 && k >= 1 && k <= counts.size(-1),
             "{}: k must be between 1 and S, got {} for counts of shape {}", function, k,
             counts.sizes());
  return std::get<0>(counts.topk(k, -1, true, false)).sum(-1);
}

at::Tensor best_reach_cpu(const at::Tensor& counts, int64_t k, std::string_view function) {
  check_counts(function, counts);
  return best_reach_of(counts, k, function);
}

at::Tensor best_reach_meta(const at::Tensor& counts, int64_t, std::string_view) {
  return at::empty_symint(counts.sym_sizes().slice(0, counts.dim() - 1), counts.options());
}

// reach / best, with NaN for a row whose best reach is 0.
at::Tensor reach_ratio(const at::Tensor& reach, const at::Tensor& best) {
  const at::Tensor any = best > 0;
  const at::Tensor ratio = reach / at::where(any, best, at::ones_like(best));
  return at::where(any | best.isnan(), ratio,
                   at::full_like(ratio, std::numeric_limits<double>::quiet_NaN()));
}

at::Tensor bpr_of(const at::Tensor& scores, const at::Tensor& counts, int64_t k) {
  check_bpr("bpr", "scores", scores, counts, k);
  const at::Tensor y = counts.to(scores.scalar_type());
  const at::Tensor last = std::get<0>(scores.topk(k, -1, true, true)).narrow(-1, k - 1, 1);
  const at::Tensor above = scores.gt(last), tied = scores.eq(last);
  // A row with a NaN score has last = NaN, no ties, and comes out 0 / 0 = NaN.
  const at::Tensor places = k - above.sum(-1);
  const at::Tensor share = places.to(scores.scalar_type()) / tied.sum(-1);
  const at::Tensor reach = (y * above).sum(-1) + share * (y * tied).sum(-1);
  return reach_ratio(reach, best_reach_of(y, k, "bpr"));
}

at::Tensor bpr_cpu(const at::Tensor& scores, const at::Tensor& counts, int64_t k) {
  TR_REQUIRE(!scores.isnan().any().item<bool>(), "bpr: scores must not be NaN, got NaN");
  check_counts("bpr", counts);
  return bpr_of(scores, counts, k);
}

at::Tensor bpr_meta(const at::Tensor& scores, const at::Tensor& counts, int64_t k) {
  check_bpr("bpr", "scores", scores, counts, k);
  const at::Tensor both = at::add(scores, counts.to(scores.scalar_type()));
  return at::empty_symint(both.sym_sizes().slice(0, both.dim() - 1), scores.options());
}

at::Tensor soft_bpr_of(const at::Tensor& membership, const at::Tensor& counts, int64_t k) {
  check_bpr("soft_bpr", "membership", membership, counts, k);
  const at::Tensor y = counts.detach().to(membership.scalar_type());
  return reach_ratio((membership * y).sum(-1), best_reach(y, k, "soft_bpr"));
}

}  // namespace

at::Tensor bpr(const at::Tensor& scores, const at::Tensor& counts, int64_t k) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("topreach::bpr", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&, int64_t)>();
  check_defined("bpr", "scores", scores);
  check_defined("bpr", "counts", counts);
  return op.call(scores, counts, k);
}

at::Tensor soft_bpr(const at::Tensor& membership, const at::Tensor& counts, int64_t k) {
  check_defined("soft_bpr", "membership", membership);
  check_defined("soft_bpr", "counts", counts);
  return soft_bpr_of(membership, counts, k);
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("bpr", bpr_cpu);
  m.impl("best_reach", best_reach_cpu);
}

TORCH_LIBRARY_IMPL(topreach, CUDA, m) {
  m.impl("bpr", bpr_of);
  m.impl("best_reach", best_reach_of);
}

TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("bpr", bpr_meta);
  m.impl("best_reach", best_reach_meta);
}

TORCH_LIBRARY_IMPL(topreach, Autograd, m) {
  m.impl("bpr", torch::CppFunction::makeFromBoxedFunction<&constant_result>());
  m.impl("best_reach", torch::CppFunction::makeFromBoxedFunction<&constant_result>());
}

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) { m.impl("soft_bpr", soft_bpr_of); }
TORCH_LIBRARY_IMPL(topreach, FuncTorchBatchedDecomposition, m) { m.impl("soft_bpr", soft_bpr_of); }

}  // namespace topreach
