#include "quotas.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <set>
#include <string_view>

#include "../../kernels/programs/expected_quota_topk.h"
#include "../../kernels/programs/models.h"
#include "../ops/key.h"
#include "../ops/quota_checks.h"
#include "../require.h"
#include "milp.h"
#include "site_name.h"

namespace topreach {

namespace {

constexpr const char* kName = "Quotas";
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// Whether each group of `finer` lies in one group of `coarser`, or in none.
bool nests(const std::vector<int32_t>& finer, const std::vector<int32_t>& coarser) {
  std::map<int32_t, int32_t> above;
  for (size_t s = 0; s < finer.size(); ++s)
    if (finer[s] >= 0 && above.try_emplace(finer[s], coarser[s]).first->second != coarser[s])
      return false;
  return true;
}

at::Tensor tensor_of(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

template <typename T>
at::Tensor whole_tensor(const std::vector<T>& values) {
  return tensor_of(std::vector<int64_t>(values.begin(), values.end()));
}

template <typename T>
std::vector<double> doubles(const std::vector<T>& values) {
  return std::vector<double>(values.begin(), values.end());
}

}  // namespace

struct Quotas::Tree {
  explicit Tree(QuotaRows all) : rows(std::move(all)), tree(rows.tree()) {}
  QuotaRows rows;
  kernels::QuotaTree tree;
};

Quotas::Quotas(int64_t k, std::vector<Grouping> groupings, std::vector<int8_t> lock,
               std::vector<std::string> sites)
    : k_(k),
      groupings_(std::move(groupings)),
      lock_(std::move(lock)),
      sites_(std::move(sites)) {
  TR_REQUIRE(k >= 1, "{}: k must be a whole number >= 1, got {}", kName, k);
  TR_REQUIRE(!groupings_.empty(), "{}: groups must be given, got none", kName);
  const size_t count = groupings_[0].groups.size();
  TR_REQUIRE(lock_.empty() || lock_.size() == count,
             "{}: lock must have one entry for each of {} sites, got {}", kName, count,
             lock_.size());
  TR_REQUIRE(sites_.empty() || sites_.size() == count,
             "{}: sites must have one id for each of {} sites, got {}", kName, count,
             sites_.size());
  TR_REQUIRE(std::set<std::string>(sites_.begin(), sites_.end()).size() == sites_.size(),
             "{}: sites must be distinct, got one twice", kName);
  for (const int8_t held : lock_)
    TR_REQUIRE(held >= -1 && held <= 1, "{}: lock must be 1, -1 or 0, got {}", kName, int(held));
  for (const Grouping& grouping : groupings_) {
    TR_REQUIRE(grouping.groups.size() == count,
               "{}: {} must name a group for each of {} sites, got {}", kName, grouping.label,
               count, grouping.groups.size());
    TR_REQUIRE(grouping.names.size() == grouping.lower.size() &&
                   grouping.names.size() == grouping.upper.size(),
               "{}: lower and upper must have an entry for each name of {}, got {} and {} for {}",
               kName, grouping.label, grouping.lower.size(), grouping.upper.size(),
               grouping.names.size());
  }
  TR_REQUIRE(k <= int64_t(count), "{}: k must be at most the number of sites S = {}, got {}", kName,
             count, k);
  number_groups();
  crosses_ = !order_as_tree();
  if (crosses_) return;
  bounds_ = {whole_tensor(group_), tensor_of(lower_), tensor_of(upper_)};
  if (groupings_.size() > 1) bounds_.parent = whole_tensor(parent_);
  if (!lock_.empty()) bounds_.lock = whole_tensor(lock_);
  tree_ = std::make_shared<const Tree>(
      QuotaRows{int64_t(count), k_, group_, parent_, lower_, upper_, lock_});
  check_feasible(kName, tree_->rows, tree_->tree, [this](int32_t g) { return name_of(g); });
}

// Numbers the groups that sites are in, all of them: those without limits may hold any number.
void Quotas::number_groups() {
  for (const Grouping& grouping : groupings_) {
    const auto first = int32_t(group_names_.size());
    start_.push_back(first);
    std::map<std::string, int32_t> numbers;
    std::vector<int32_t>& of_site = numbers_.emplace_back();
    for (const std::string& group : grouping.groups) {
      if (group.empty()) {
        of_site.push_back(-1);
        continue;
      }
      const auto [at, fresh] = numbers.try_emplace(group, int32_t(group_names_.size()));
      if (fresh) group_names_.push_back(fmt::format("{} '{}'", grouping.label, group));
      of_site.push_back(at->second);
    }
    lower_.resize(group_names_.size(), 0);
    upper_.resize(group_names_.size(), int64_t(grouping.groups.size()));
    std::set<std::string> seen;
    for (size_t i = 0; i < grouping.names.size(); ++i) {
      const std::string& group = grouping.names[i];
      TR_REQUIRE(seen.insert(group).second,
                 "{}: limits must be given once for each {}, got '{}' "
                 "twice",
                 kName, grouping.label, group);
      const int64_t low = grouping.lower[i], high = grouping.upper[i];
      TR_REQUIRE(low >= 0, "{}: lower must not be negative, got {} in {} '{}'", kName, low,
                 grouping.label, group);
      const auto at = numbers.find(group);
      if (at == numbers.end()) {
        TR_REQUIRE(low == 0,
                   "{}: quotas must be feasible, got at least {} in {} '{}' that has no sites",
                   kName, low, grouping.label, group);
        continue;
      }
      lower_[size_t(at->second)] = low;
      upper_[size_t(at->second)] = high;
    }
    // A grouping alone must be feasible, whatever the others say.
    if (groupings_.size() == 1) continue;
    QuotaRows rows{int64_t(of_site.size()), k_, {}, {}, {}, {}, lock_};
    for (const int32_t g : of_site) rows.group.push_back(g < 0 ? -1 : g - first);
    rows.lower.assign(lower_.begin() + first, lower_.end());
    rows.upper.assign(upper_.begin() + first, upper_.end());
    check_feasible(kName, rows, rows.tree(), [&](int32_t g) { return name_of(first + g); });
  }
  start_.push_back(int32_t(group_names_.size()));
}

// Whether the groupings form a tree: each is finer than the next, in some order.
bool Quotas::order_as_tree() {
  std::vector<size_t> order(numbers_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto groups_in = [&](size_t i) {
    return std::set<int32_t>(numbers_[i].begin(), numbers_[i].end()).size();
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return groups_in(a) > groups_in(b); });
  for (size_t i = 0; i < order.size(); ++i)
    for (size_t j = i + 1; j < order.size(); ++j)
      if (!nests(numbers_[order[i]], numbers_[order[j]])) return false;
  const size_t sites = numbers_[0].size();
  group_.assign(sites, -1);
  if (numbers_.size() > 1) parent_.assign(group_names_.size(), -1);
  for (size_t s = 0; s < sites; ++s) {
    int32_t below = -1;
    for (const size_t level : order) {
      const int32_t g = numbers_[level][s];
      if (g < 0) continue;
      if (below < 0)
        group_[s] = g;
      else
        parent_[size_t(below)] = g;
      below = g;
    }
  }
  return true;
}

std::string Quotas::name_of(int32_t group) const { return group_names_[size_t(group)]; }

ProgramPtr Quotas::from_config(ConfigReader& config) {
  const int64_t k = config.whole("k", 1);
  const std::vector<std::string> labels = config.texts("labels"), groups = config.texts("groups"),
                                 names = config.texts("names");
  const std::vector<int64_t> of = config.wholes("grouping"), lower = config.wholes("lower"),
                             upper = config.wholes("upper"), lock = config.wholes("lock");
  const size_t levels = labels.size();
  TR_REQUIRE(levels >= 1 && groups.size() % levels == 0,
             "make_program: groups of Quotas must have an entry for each site and label, got {} "
             "for {} label(s)",
             groups.size(), levels);
  TR_REQUIRE(
      of.size() == names.size() && lower.size() == names.size() && upper.size() == names.size(),
      "make_program: grouping, lower and upper of Quotas must have an entry for each of {} "
      "names, got {}, {} and {}",
      names.size(), of.size(), lower.size(), upper.size());
  const size_t sites = groups.size() / levels;
  std::vector<Grouping> groupings(levels);
  for (size_t i = 0; i < levels; ++i) {
    groupings[i].label = labels[i];
    groupings[i].groups.assign(groups.begin() + int64_t(i * sites),
                               groups.begin() + int64_t((i + 1) * sites));
  }
  for (size_t i = 0; i < names.size(); ++i) {
    TR_REQUIRE(of[i] >= 0 && of[i] < int64_t(levels),
               "make_program: grouping of Quotas must be 0 to {}, got {}", levels - 1, of[i]);
    Grouping& grouping = groupings[size_t(of[i])];
    grouping.names.push_back(names[i]);
    grouping.lower.push_back(lower[i]);
    grouping.upper.push_back(upper[i]);
  }
  return std::make_shared<Quotas>(k, std::move(groupings),
                                  std::vector<int8_t>(lock.begin(), lock.end()),
                                  config.texts("sites"));
}

ProgramConfig Quotas::config() const {
  std::vector<std::string> labels, groups, names;
  std::vector<double> of, lower, upper;
  for (size_t i = 0; i < groupings_.size(); ++i) {
    const Grouping& grouping = groupings_[i];
    labels.push_back(grouping.label);
    groups.insert(groups.end(), grouping.groups.begin(), grouping.groups.end());
    names.insert(names.end(), grouping.names.begin(), grouping.names.end());
    of.insert(of.end(), grouping.names.size(), double(i));
    lower.insert(lower.end(), grouping.lower.begin(), grouping.lower.end());
    upper.insert(upper.end(), grouping.upper.begin(), grouping.upper.end());
  }
  return {{"k", double(k_)}, {"labels", labels},       {"groups", groups},
          {"names", names},  {"grouping", of},         {"lower", lower},
          {"upper", upper},  {"lock", doubles(lock_)}, {"sites", sites_}};
}

std::string Quotas::describe() const {
  std::string text = fmt::format("Quotas(k={}", k_);
  for (const Grouping& grouping : groupings_) {
    const std::set<std::string> distinct(grouping.groups.begin(), grouping.groups.end());
    text += fmt::format(", {} groups", distinct.size() - distinct.count(""));
    if (grouping.label != "group") text += " by " + grouping.label;
  }
  return text + ")";
}

void Quotas::check(const char* function, int64_t sites) const {
  TR_REQUIRE(sites == sites_count(),
             "{}: groups of Quotas must name a group for each of S = {} sites, got {}", function,
             sites, sites_count());
}

ProgramPtr Quotas::for_sites(const char* function, const std::vector<std::string>& ids) const {
  if (sites_ == ids) return nullptr;
  if (sites_.empty()) {
    check(function, int64_t(ids.size()));
    return std::make_shared<Quotas>(k_, groupings_, lock_, ids);
  }
  std::map<std::string, size_t> rows;
  for (size_t s = 0; s < sites_.size(); ++s) rows[sites_[s]] = s;
  std::vector<Grouping> groupings = groupings_;
  std::vector<int8_t> lock;
  for (Grouping& grouping : groupings) grouping.groups.clear();
  for (const std::string& id : ids) {
    const auto at = rows.find(id);
    TR_REQUIRE(at != rows.end(),
               "{}: groups of Quotas must have every site, got none for site '{}'", function, id);
    for (size_t i = 0; i < groupings.size(); ++i)
      groupings[i].groups.push_back(groupings_[i].groups[at->second]);
    if (!lock_.empty()) lock.push_back(lock_[at->second]);
  }
  return std::make_shared<Quotas>(k_, std::move(groupings), std::move(lock), ids);
}

at::Tensor Quotas::best(const at::Tensor& values) const {
  TR_REQUIRE(values.dim() >= 1 && values.size(-1) == sites_count(),
             "Quotas.best: values must have shape [..., S = {}], got {}", sites_count(),
             values.sizes());
  const at::Tensor held = values.detach().cpu();
  if (!crosses_) {
    return quota_masks(kName, held, tree_->rows, tree_->tree,
                       [this](int32_t g) { return name_of(g); })
        .to(values.device());
  }
  at::Tensor plans = at::zeros_like(held, at::MemoryFormat::Contiguous);
  const at::Tensor flat = held.reshape({-1, sites_count()}), out = plans.view_as(flat);
  for (int64_t row = 0; row < flat.size(0); ++row) out[row].copy_(solve_crossing(flat[row]).plan);
  return plans.to(values.device());
}

Solution Quotas::solve(const at::Tensor& values) const {
  if (!crosses_) return Program::solve(values);
  TR_REQUIRE(values.dim() == 1, "Quotas.solve: values must have shape [S], got {}", values.sizes());
  return solve_crossing(values);
}

// Groupings that cross, by HiGHS.
Solution Quotas::solve_crossing(const at::Tensor& values) const {
  const auto begin = std::chrono::steady_clock::now();
  const at::Tensor row = values.detach().to(at::kCPU, at::kDouble).contiguous();
  std::vector<double> r(row.const_data_ptr<double>(), row.const_data_ptr<double>() + row.numel());
  std::vector<int8_t> lock = lock_;
  lock.resize(r.size(), 0);
  for (size_t s = 0; s < r.size(); ++s) {
    TR_REQUIRE(!std::isnan(r[s]), "Quotas: values must not be NaN, got NaN at site {}",
               site_name(sites_, s));
    if (r[s] != kMinusInfinity) continue;
    TR_REQUIRE(lock[s] <= 0,
               "Quotas: a site that is locked in must be open, got a value of -inf "
               "at site {}",
               site_name(sites_, s));
    lock[s] = -1;
    r[s] = 0;
  }
  kernels::LinearProgram program = kernels::choice_program(r, k_, lock);
  for (size_t i = 0; i < numbers_.size(); ++i) {
    const int32_t first = start_[i], count = start_[i + 1] - first;
    std::vector<int32_t> group;
    for (const int32_t g : numbers_[i]) group.push_back(g < 0 ? -1 : g - first);
    kernels::add_quotas(program, group, {lower_.data() + first, size_t(count)},
                        {upper_.data() + first, size_t(count)});
  }
  if (numbers_.size() == 2) kernels::relax(program);
  const MilpSolution found = topreach::solve(program);
  TR_REQUIRE(found.status != kernels::PlanStatus::infeasible,
             "Quotas: quotas must be feasible, got groups of {} and {} that no plan of k={} meets "
             "together",
             groupings_[0].label, groupings_[1].label, k_);
  TR_REQUIRE(!found.x.empty(), "Quotas: HiGHS must find a plan, got none");
  Solution solution;
  at::Tensor plan = at::zeros({int64_t(r.size())}, at::kDouble);
  double* x = plan.mutable_data_ptr<double>();
  for (size_t s = 0; s < r.size(); ++s) x[s] = found.x[s] > 0.5 ? 1.0 : 0.0;
  solution.plan = plan.to(values.scalar_type()).to(values.device());
  solution.value = found.value;
  solution.bound = found.bound;
  solution.gap = found.gap;
  solution.status = found.status == kernels::PlanStatus::optimal ? "optimal" : "feasible";
  solution.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return solution;
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
  if (crosses_) return Program::soft(values, options);
  const at::Tensor held = has_quota_kernels(values) ? values : values.cpu();
  // Raises, with the group's name, where sites with a value of -inf leave no plan; on CUDA, where that
  // would wait for the device, the row comes out NaN.
  if (held.is_cpu()) best(held);
  if (options.topk == "exact" && has_exact_soft())
    return expected_quota_topk(held, k_, bounds_, options.sigma).to(values.device());
  PerturbedQuotaOptions perturbed{options.sigma, options.num_samples, options.estimator};
  if (options.topk == "exact") perturbed.estimator = "score_loo";  // nested: no exact form
  perturbed.key =
      (options.key ? *options.key : draw_key(options.generator, values.device())).to(held.device());
  return perturbed_quota_topk(held, k_, bounds_, perturbed).to(values.device());
}

// Random tie-breaking is the limit of small noise: ties apart, scores are then far from each other.
at::Tensor Quotas::expected_best(const at::Tensor& values) const {
  constexpr double kApart = 40;  // in units of the noise: farther than any chance that counts
  TR_REQUIRE(!crosses_ && groupings_.size() == 1,
             "Quotas.expected_best: there must be one grouping, got {}", groupings_.size());
  const at::Tensor held = values.detach().to(at::kCPU, at::kDouble).contiguous();
  at::Tensor plans = best(held);
  const at::Tensor flat = held.view({-1, sites_count()}), out = plans.view_as(flat);
  for (int64_t row = 0; row < flat.size(0); ++row) {
    const at::Tensor finite = flat[row].masked_select(flat[row].isfinite());
    const auto [distinct, inverse, counts] = at::_unique2(finite, true, true);
    if (distinct.numel() == finite.numel()) continue;  // no ties
    at::Tensor level = at::full({sites_count()}, kMinusInfinity, at::kDouble);
    level.masked_scatter_(flat[row].isfinite(), inverse.to(at::kDouble) * kApart);
    out[row].copy_(expected_quota_topk(level, k_, bounds_, 1.0));
  }
  return plans.to(values.device());
}

at::Tensor Quotas::bpr(const at::Tensor& scores, const at::Tensor& y) const {
  if (crosses_ || groupings_.size() > 1) return Program::bpr(scores, y);
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
    // Sites in a random order, then by falling count: ranks in which no two sites are level.
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
