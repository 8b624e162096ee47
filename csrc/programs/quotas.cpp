#include "quotas.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string_view>

#include "../ops/key.h"
#include "../ops/quota_checks.h"
#include "../require.h"
#include "program_arguments.h"
#include "quota_plan.h"

namespace topreach {

namespace {

constexpr const char* kName = "Quotas";
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

template <typename T>
at::Tensor whole_tensor(const std::vector<T>& values) {
  return at::tensor(std::vector<int64_t>(values.begin(), values.end()), at::kLong);
}

}  // namespace

Quotas::Quotas(int64_t k, std::vector<Grouping> groupings, std::vector<int8_t> lock,
               std::vector<std::string> sites)
    : sites_(std::move(sites)) {
  TR_REQUIRE(k >= 1, "{}: k must be a whole number >= 1, got {}", kName, k);
  TR_REQUIRE(!groupings.empty(), "{}: groups must be given, got none", kName);
  const size_t count = groupings[0].group.size();
  TR_REQUIRE(sites_.empty() || sites_.size() == count,
             "{}: sites must have one id for each of {} sites, got {}", kName, count,
             sites_.size());
  TR_REQUIRE(std::set<std::string>(sites_.begin(), sites_.end()).size() == sites_.size(),
             "{}: sites must be distinct, got one twice", kName);
  allowed_ = std::make_shared<const plan::Allowed>(
      kName, int64_t(count), plan::Constraints{k, std::move(groupings), std::move(lock)});
  if (crosses()) return;
  const QuotaRows& rows = *allowed_->rows();
  bounds_ = {whole_tensor(rows.group), whole_tensor(rows.lower), whole_tensor(rows.upper)};
  if (!rows.parent.empty()) bounds_.parent = whole_tensor(rows.parent);
  if (!rows.lock.empty()) bounds_.lock = whole_tensor(rows.lock);
}

ProgramPtr Quotas::from_config(ConfigReader& config) {
  const int64_t k = config.whole("k", 1);
  plan::Constraints kept = read_quotas(kName, config, k);
  return std::make_shared<Quotas>(k, std::move(kept.groupings), std::move(kept.lock),
                                  config.texts("sites"));
}

ProgramConfig Quotas::config() const {
  ProgramConfig made{{"k", double(k())}};
  for (auto& argument : quota_arguments(allowed_->constraints())) made.push_back(argument);
  made.push_back({"sites", sites_});
  return made;
}

std::string Quotas::describe() const {
  return fmt::format("Quotas(k={}{})", k(), describe_quotas(allowed_->constraints()));
}

void Quotas::check(const char* function, int64_t sites) const {
  TR_REQUIRE(sites == sites_count(),
             "{}: groups of Quotas must name a group for each of S = {} sites, got {}", function,
             sites, sites_count());
}

ProgramPtr Quotas::for_sites(const char* function, const std::vector<std::string>& ids) const {
  if (sites_ == ids) return nullptr;
  std::vector<size_t> from(ids.size());
  if (sites_.empty()) {
    check(function, int64_t(ids.size()));
    std::iota(from.begin(), from.end(), size_t(0));
  } else {
    std::map<std::string, size_t> rows;
    for (size_t s = 0; s < sites_.size(); ++s) rows[sites_[s]] = s;
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto at = rows.find(ids[i]);
      TR_REQUIRE(at != rows.end(),
                 "{}: groups of Quotas must have every site, got none for site '{}'", function,
                 ids[i]);
      from[i] = at->second;
    }
  }
  plan::Constraints kept = plan::reordered(allowed_->constraints(), from);
  return std::make_shared<Quotas>(k(), std::move(kept.groupings), std::move(kept.lock), ids);
}

at::Tensor Quotas::best(const at::Tensor& values) const {
  TR_REQUIRE(values.dim() >= 1 && values.size(-1) == sites_count(),
             "Quotas.best: values must have shape [..., S = {}], got {}", sites_count(),
             values.sizes());
  const at::Tensor held = values.detach().cpu();
  if (!crosses()) {
    return quota_masks(kName, held, *allowed_->rows(), *allowed_->tree(),
                       [this](int32_t g) { return allowed_->group_name(g); })
        .to(values.device());
  }
  at::Tensor plans = at::zeros_like(held, at::MemoryFormat::Contiguous);
  const at::Tensor flat = held.reshape({-1, sites_count()}), out = plans.view_as(flat);
  for (int64_t row = 0; row < flat.size(0); ++row) out[row].copy_(solve_crossing(flat[row]).plan);
  return plans.to(values.device());
}

Solution Quotas::solve(const at::Tensor& values) const {
  if (!crosses()) return Program::solve(values);
  TR_REQUIRE(values.dim() == 1, "Quotas.solve: values must have shape [S], got {}", values.sizes());
  return solve_crossing(values);
}

// Solves for groupings that cross, by HiGHS.
Solution Quotas::solve_crossing(const at::Tensor& values) const {
  constexpr double kExact = 0;  // the relative gap that is good enough
  plan::Solved solved =
      plan::quota_topk(to_numbers(values), allowed_->constraints(), {.gap = kExact});
  TR_REQUIRE(solved.status != "infeasible",
             "Quotas: quotas must be feasible, got groups of {} and {} that no plan of k={} meets "
             "together",
             groupings()[0].name, groupings()[1].name, k());
  return to_solution(std::move(solved), values);
}

namespace {

// Whether the operators run where the values are: on CUDA only if the library was built with it.
bool has_quota_kernels(const at::Tensor& values) {
  return values.is_cpu() ||
         (values.is_cuda() && c10::Dispatcher::singleton()
                                  .findSchemaOrThrow("topreach::expected_quota_topk", "")
                                  .hasKernelForDispatchKey(c10::DispatchKey::CUDA));
}

}  // namespace

at::Tensor Quotas::soft(const at::Tensor& values, const SoftOptions& options) const {
  TR_REQUIRE(options.topk == "sampled" || options.topk == "exact",
             "Quotas.soft: topk must be 'exact' or 'sampled', got '{}'", options.topk);
  TR_REQUIRE(options.noise == "normal", "Quotas.soft: noise must be 'normal', got '{}'",
             options.noise);
  if (crosses()) return Program::soft(values, options);
  const at::Tensor held = has_quota_kernels(values) ? values : values.cpu();
  // Raises, with the group's name, if sites with a value of -inf leave no plan. On CUDA, where this check
  // would wait for the device, the row comes out NaN.
  if (held.is_cpu()) best(held);
  if (options.topk == "exact" && has_exact_soft())
    return expected_quota_topk(held, k(), bounds_, options.sigma).to(values.device());
  PerturbedQuotaOptions perturbed{options.sigma, options.num_samples, options.estimator};
  if (options.topk == "exact") perturbed.estimator = "score_loo";  // nested: no exact form
  perturbed.key =
      (options.key ? *options.key : draw_key(options.generator, values.device())).to(held.device());
  return perturbed_quota_topk(held, k(), bounds_, perturbed).to(values.device());
}

// Random tie-breaking is the limit of small noise: scores that are not tied are then far from each other.
at::Tensor Quotas::expected_best(const at::Tensor& values) const {
  constexpr double kApart = 40;  // noise scales between distinct scores: their order is certain
  TR_REQUIRE(!crosses() && groupings().size() == 1,
             "Quotas.expected_best: there must be one grouping, got {}", groupings().size());
  const at::Tensor held = values.detach().to(at::kCPU, at::kDouble).contiguous();
  at::Tensor plans = best(held);
  const at::Tensor flat = held.view({-1, sites_count()}), out = plans.view_as(flat);
  for (int64_t row = 0; row < flat.size(0); ++row) {
    const at::Tensor finite = flat[row].masked_select(flat[row].isfinite());
    const auto [distinct, inverse, counts] = at::_unique2(finite, true, true);
    if (distinct.numel() == finite.numel()) continue;  // no ties
    at::Tensor level = at::full({sites_count()}, kMinusInfinity, at::kDouble);
    level.masked_scatter_(flat[row].isfinite(), inverse.to(at::kDouble) * kApart);
    out[row].copy_(expected_quota_topk(level, k(), bounds_, 1.0));
  }
  return plans.to(values.device());
}

at::Tensor Quotas::bpr(const at::Tensor& scores, const at::Tensor& y) const {
  if (crosses() || groupings().size() > 1) return Program::bpr(scores, y);
  const at::Tensor values = y.to(scores.scalar_type());
  const at::Tensor most = best_reach(values);
  const at::Tensor plan = expected_best(scores).to(scores.scalar_type());
  return at::where(most.gt(0), reach(plan, values) / most, std::nan(""));
}

at::Tensor Quotas::chance(const at::Tensor& samples) const {
  TR_REQUIRE(samples.dim() == 2 && samples.size(0) >= 1,
             "Quotas.chance: samples must have shape [M, S] with M >= 1, got {}", samples.sizes());
  check("Quotas.chance", samples.size(1));
  const at::Tensor held = samples.cpu();
  static const auto noise_op = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("topreach::topk_noise", "")
                                   .typed<at::Tensor(const at::Tensor&, int64_t, int64_t, int64_t,
                                                     std::string_view, int64_t)>();
  const at::Tensor key = at::tensor({int64_t{0x746f70}, int64_t{0x7265616368}}, at::kLong);
  at::Tensor total = at::zeros({held.size(1)}, at::kDouble);
  const int64_t block = std::max<int64_t>(1, 4'000'000 / held.size(1));
  int64_t first = 0;
  for (const at::Tensor& part : held.split(block)) {
    // Sites in a random order, then sorted by falling count: ranks without ties.
    const at::Tensor z =
        noise_op.call(key, 1, part.size(0), part.size(1), "normal", first).select(0, 0);
    const at::Tensor shuffled = z.argsort(int64_t{-1}, /*descending=*/false);
    const at::Tensor sorted =
        std::get<1>(part.gather(-1, shuffled).sort(/*stable=*/true, -1, /*descending=*/true));
    const at::Tensor place = at::arange(part.size(1), 0, -1, at::kDouble).expand_as(part);
    at::Tensor level =
        at::empty(part.sizes(), at::kDouble).scatter_(-1, shuffled.gather(-1, sorted), place);
    level.masked_fill_(part.isneginf(), kMinusInfinity);
    total += best(level).sum(0);
    first += part.size(0);
  }
  return (total / double(held.size(0))).to(samples.device());
}

}  // namespace topreach
