#include "planned.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "../require.h"
#include "budget_plan.h"
#include "phased_plan.h"
#include "program_arguments.h"
#include "site_name.h"
#include "spaced_plan.h"

namespace topreach {
namespace {

// The arguments of a program of each name, other than k, gap, time and sites.
struct Kind {
  const char* name;
  std::vector<const char*> numbers, columns;
  bool has_graph;
};
const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all{
      {"Budget", {"budget"}, {"cost"}, false},
      {"Spaced", {"distance"}, {"x", "y"}, false},
      {"Connected", {}, {}, true},
      {"Coverage", {}, {}, true},
      {"Spillover", {}, {"treated", "spilled", "compliance"}, true},
      {"CallIn", {}, {"comes", "passes"}, true},
      {"Fair", {}, {}, false},
  };
  return all;
}

const Kind& kind_of(const std::string& name) {
  for (const Kind& kind : kinds())
    if (name == kind.name) return kind;
  TR_REQUIRE(false, "Planned: name must be that of a planned program, got '{}'", name);
}

// Checks a column: shares for a network, costs for a budget, coordinates.
void check_column(const Kind& kind, const char* argument, const Planned::Data& data) {
  const std::vector<double>& values = data.columns.at(argument);
  const bool share = kind.has_graph, amount = kind.name == std::string("Budget");
  for (size_t s = 0; s < values.size(); ++s)
    TR_REQUIRE(std::isfinite(values[s]) && (values[s] >= 0 || !(amount || share)) &&
                   (values[s] <= 1 || !share),
               "{}: {} must be {}, got {} for site {}", kind.name, argument,
               share    ? "a share from 0 to 1"
               : amount ? "a number >= 0"
                        : "a number",
               values[s], site_name(data.sites, s));
}

// Reads fair_to and floors; the floor of a group that is not named is 0.
void read_fairness(ConfigReader& config, Planned::Data& data) {
  const std::vector<std::string> named = config.texts("floor_groups");
  const std::vector<double> floors = config.numbers("floors");
  data.fair_to = plan::group_by(config.has("fair_label") ? config.text("fair_label") : "group",
                                config.texts("fair_to"), {}, {}, {}, "Fair");
  TR_REQUIRE(named.size() == floors.size(),
             "make_program: floors of Fair must have an entry for each of {} floor_groups, got {}",
             named.size(), floors.size());
  if (floors.empty()) return;
  const auto& groups = data.fair_to.groups;
  data.floors.assign(groups.size(), 0.0);
  for (size_t i = 0; i < named.size(); ++i) {
    const auto at = std::find(groups.begin(), groups.end(), named[i]);
    TR_REQUIRE(at != groups.end(), "Fair: floors must name groups, got '{}'", named[i]);
    TR_REQUIRE(floors[i] >= 0 && floors[i] <= 1, "Fair: floors must be shares from 0 to 1, got {}",
               floors[i]);
    data.floors[size_t(at - groups.begin())] = floors[i];
  }
}

at::Tensor as_tensor(const std::vector<double>& values) {
  return at::tensor(values, at::TensorOptions().dtype(at::kDouble));
}

}  // namespace

Planned::Planned(std::string name, Data data) : name_(std::move(name)), data_(std::move(data)) {
  const Kind& kind = kind_of(name_);
  for (const char* argument : kind.columns) {
    const auto size = int64_t(column(argument).size());
    if (sites_count_ == 0) sites_count_ = size;
    TR_REQUIRE(size == sites_count_ && size > 0,
               "{}: {} must have one number for each of {} sites, got {}", name_, argument,
               sites_count_, size);
  }
  if (name_ == "Fair") {
    sites_count_ = int64_t(data_.fair_to.group.size());
    TR_REQUIRE(!data_.fair_to.groups.empty(), "Fair: fair_to must name a group, got none");
  }
  if (sites_count_ == 0) sites_count_ = int64_t(data_.sites.size());
  TR_REQUIRE(
      sites_count_ > 0 && (data_.sites.empty() || int64_t(data_.sites.size()) == sites_count_),
      "{}: sites must name each of {} sites, got {} ids", name_, sites_count_, data_.sites.size());
  for (const char* argument : kind.columns) check_column(kind, argument, data_);
  TR_REQUIRE(name_ == "Budget" || name_ == "Fair" || data_.numbers.count("k"),
             "{}: k must be given, got none", name_);
  data_.kept.k = int64_t(number("k", -1));
  if (!data_.kept.groupings.empty() || !data_.kept.lock.empty())
    plan::Allowed(name_.c_str(), sites_count_, data_.kept);  // raises for quotas that no plan meets
  if (!kind.has_graph) return;
  TR_REQUIRE(!data_.sites.empty(), "{}: sites must be the ids of the graph, got none", name_);
  graph_ = Graph(data_.sites, data_.from, data_.to);
  if (!is_network()) return;
  // Rows with weight 1; they are multiplied by the values later.
  const std::vector<double> ones(size_t(sites_count_), 1.0);
  std::vector<double> own(size_t(sites_count_), 0.0), weight = ones;
  kernels::Coverage rows;
  if (name_ == "CallIn") {
    rows = kernels::call_in(graph_.adjacency(), column("comes"), column("passes"));
  } else if (name_ == "Spillover") {
    rows = kernels::spillover(graph_.adjacency(), column("treated"), column("spilled"),
                              column("compliance"));
    own = rows.a;
    weight = rows.w;
  } else {
    rows = kernels::spillover(graph_.adjacency(), ones, ones);
  }
  std::vector<int64_t> person, seed(rows.seed.begin(), rows.seed.end());
  for (int64_t i = 0; i < rows.people; ++i)
    person.insert(person.end(), size_t(rows.start[size_t(i) + 1] - rows.start[size_t(i)]), i);
  person_ = at::tensor(person, at::TensorOptions().dtype(at::kLong));
  seed_ = at::tensor(seed, at::TensorOptions().dtype(at::kLong));
  chance_ =
      rows.chance.empty() ? at::ones({int64_t(seed.size())}, at::kDouble) : as_tensor(rows.chance);
  own_ = as_tensor(own);
  weight_ = as_tensor(weight);
}

ProgramPtr Planned::from_config(const std::string& name, ConfigReader& config) {
  const Kind& kind = kind_of(name);
  Data data;
  for (const char* argument : {"k", "gap", "time"})
    if (config.has(argument)) data.numbers[argument] = config.number(argument);
  for (const char* argument : kind.numbers) data.numbers[argument] = config.number(argument);
  for (const char* argument : kind.columns) data.columns[argument] = config.numbers(argument);
  if (kind.has_graph) {
    for (const int64_t node : config.wholes("from")) data.from.push_back(int32_t(node));
    for (const int64_t node : config.wholes("to")) data.to.push_back(int32_t(node));
  }
  data.sites = config.texts("sites");
  data.kept = read_quotas(name, config, -1);
  if (name == "Fair") read_fairness(config, data);
  return std::make_shared<Planned>(name, std::move(data));
}

ProgramConfig Planned::config() const {
  ProgramConfig made;
  for (const auto& [argument, value] : data_.numbers) made.push_back({argument, value});
  for (const auto& [argument, values] : data_.columns) made.push_back({argument, values});
  if (kind_of(name_).has_graph) {
    made.push_back({"from", std::vector<double>(data_.from.begin(), data_.from.end())});
    made.push_back({"to", std::vector<double>(data_.to.begin(), data_.to.end())});
  }
  made.push_back({"sites", data_.sites});
  if (!data_.kept.groupings.empty() || !data_.kept.lock.empty())
    for (auto& argument : quota_arguments(data_.kept)) made.push_back(argument);
  if (name_ != "Fair") return made;
  made.push_back({"fair_label", data_.fair_to.name});
  made.push_back({"fair_to", plan::group_names(data_.fair_to)});
  if (!data_.floors.empty()) {
    made.push_back({"floor_groups", data_.fair_to.groups});
    made.push_back({"floors", data_.floors});
  }
  return made;
}

std::string Planned::describe() const {
  std::string text = name_ + "(";
  for (const auto& [argument, value] : data_.numbers)
    text += fmt::format("{}{}={}", text.back() == '(' ? "" : ", ", argument, value);
  return text + fmt::format("{}{} sites{})", text.back() == '(' ? "" : ", ", sites_count_,
                            describe_quotas(data_.kept));
}

void Planned::check(const char* function, int64_t sites) const {
  TR_REQUIRE(sites == sites_count_, "{}: {} must be of S = {} sites, got one of {}", function,
             name_, sites, sites_count_);
  TR_REQUIRE(number("k", 0) <= double(sites),
             "{}: k must be at most the number of sites S = {}, got {}", function, sites,
             number("k", 0));
}

int64_t Planned::size() const { return int64_t(number("k", double(sites_count_))); }

ProgramPtr Planned::for_sites(const char* function, const std::vector<std::string>& ids) const {
  if (data_.sites == ids) return nullptr;
  check(function, int64_t(ids.size()));
  Data data = data_;
  data.sites = ids;
  if (data_.sites.empty()) return std::make_shared<Planned>(name_, std::move(data));
  std::map<std::string, size_t> row;
  for (size_t i = 0; i < ids.size(); ++i) row[ids[i]] = i;
  std::vector<int32_t> moved;
  std::vector<size_t> from(ids.size());
  for (const std::string& id : data_.sites) {
    const auto found = row.find(id);
    TR_REQUIRE(found != row.end(), "{}: sites of {} must be those of the ranker, got '{}'",
               function, name_, id);
    from[found->second] = moved.size();
    moved.push_back(int32_t(found->second));
  }
  data.kept = plan::reordered(data_.kept, from);
  if (name_ == "Fair") data.fair_to = plan::reordered({-1, {data_.fair_to}, {}}, from).groupings[0];
  for (auto& [argument, values] : data.columns)
    for (size_t i = 0; i < moved.size(); ++i)
      values[size_t(moved[i])] = data_.columns.at(argument)[i];
  for (auto* ends : {&data.from, &data.to})
    for (int32_t& node : *ends) node = moved[size_t(node)];
  return std::make_shared<Planned>(name_, std::move(data));
}

double Planned::number(const char* argument, double otherwise) const {
  const auto found = data_.numbers.find(argument);
  return found == data_.numbers.end() ? otherwise : found->second;
}

const std::vector<double>& Planned::column(const char* argument) const {
  const auto found = data_.columns.find(argument);
  TR_REQUIRE(found != data_.columns.end(), "{}: {} must be given, got none", name_, argument);
  return found->second;
}

bool Planned::is_network() const {
  return name_ == "Spillover" || name_ == "CallIn" || name_ == "Coverage";
}

plan::Solved Planned::plan_of(std::vector<double> values) const {
  plan::Constraints constraints = data_.kept;
  const plan::SolveOptions options{number("gap", 1e-4),
                                   number("time", std::numeric_limits<double>::infinity())};
  if (name_ == "Budget")
    return plan::budget_topk(std::move(values), column("cost"), number("budget", 0), constraints,
                             options);
  if (name_ == "Spaced")
    return plan::spaced(std::move(values), column("x"), column("y"), number("distance", 0),
                        constraints, options);
  if (name_ == "Connected") return plan::connected(std::move(values), graph_, constraints, options);
  values = plan::close_sites(name_.c_str(), std::move(values), constraints);
  for (double& v : values) v = std::max(v, 0.0);
  if (name_ == "Coverage") return plan::coverage(graph_, values, constraints, options);
  if (name_ == "Fair") return plan::fair(values, data_.fair_to, data_.floors, constraints, options);
  if (name_ == "CallIn")
    return plan::call_in(graph_, column("comes"), column("passes"), constraints, values, false,
                         options);
  std::vector<double> treated = column("treated"), spilled = column("spilled");
  for (size_t i = 0; i < values.size(); ++i) {
    treated[i] *= values[i];
    spilled[i] *= values[i];
  }
  return plan::spillover(graph_, treated, spilled, constraints, column("compliance"), options);
}

at::Tensor Planned::best(const at::Tensor& values) const {
  check(fmt::format("{}.best", name_).c_str(), values.size(-1));
  const at::Tensor rows =
      values.detach().to(at::kCPU, at::kDouble).contiguous().view({-1, sites_count_});
  at::Tensor plans = at::zeros_like(rows);
  for (int64_t row = 0; row < rows.size(0); ++row) {
    const auto* const data = rows.const_data_ptr<double>() + row * sites_count_;
    const plan::Solved solved = plan_of({data, data + sites_count_});
    TR_REQUIRE(solved.status != "infeasible", "{}.best: there must be a plan, got none. {}", name_,
               solved.notes.empty() ? "" : solved.notes[0]);
    auto* const mask = plans.mutable_data_ptr<double>() + row * sites_count_;
    for (const int32_t i : solved.chosen) mask[i] = 1;
  }
  return plans.view(values.sizes()).to(values.device(), values.scalar_type());
}

Solution Planned::solve(const at::Tensor& values) const {
  check(fmt::format("{}.solve", name_).c_str(), values.size(-1));
  TR_REQUIRE(values.dim() == 1, "{}.solve: values must have shape [S], got {}", name_,
             values.sizes());
  return to_solution(plan_of(to_numbers(values)), values);
}

// The smallest share that a group has of its own total, [...].
at::Tensor Planned::least_share(const at::Tensor& plan, const at::Tensor& y) const {
  std::vector<int64_t> members, group;
  for (size_t i = 0; i < data_.fair_to.group.size(); ++i) {
    if (data_.fair_to.group[i] < 0) continue;
    members.push_back(int64_t(i));
    group.push_back(data_.fair_to.group[i]);
  }
  const auto index = at::TensorOptions().dtype(at::kLong);
  const at::Tensor site = at::tensor(members, index).to(plan.device()),
                   of = at::tensor(group, index).to(plan.device());
  const at::Tensor held = plan * y.to(plan.scalar_type());
  const at::Tensor all = y.to(plan.scalar_type()).expand_as(held);
  std::vector<int64_t> shape = held.sizes().vec();
  shape.back() = int64_t(data_.fair_to.groups.size());
  const auto by_group = [&](const at::Tensor& values) {
    return at::zeros(shape, plan.options()).index_add(-1, of, values.index_select(-1, site));
  };
  const at::Tensor total = by_group(all), counts = total.gt(0);
  const at::Tensor share =
      at::where(counts, by_group(held) / at::where(counts, total, 1.0), HUGE_VAL).amin(-1);
  return at::where(counts.any(-1), share, 0.0);
}

at::Tensor Planned::bpr(const at::Tensor& scores, const at::Tensor& y) const {
  if (data_.floors.empty()) return Program::bpr(scores, y);
  const at::Tensor values = y.to(scores.scalar_type()), own = reach(best(scores), values);
  const at::Tensor most = at::maximum(best_reach(values), own);
  return at::where(most.gt(0), own / most, std::nan(""));
}

at::Tensor Planned::reach(const at::Tensor& plan, const at::Tensor& y) const {
  if (name_ == "Fair" && data_.floors.empty()) return least_share(plan, y);
  if (!is_network()) return Program::reach(plan, y);
  const at::Tensor values = y.to(plan.scalar_type());
  const auto options = plan.options();
  // Log of the chance that nobody reaches a person. A chance of 0 counts as e^-600 (float: e^-80), so
  // that gradients are finite.
  const double tiny = plan.scalar_type() == at::kDouble ? 1e-260 : 1e-35;
  const at::Tensor at_entry = plan.index_select(-1, seed_.to(plan.device())) * chance_.to(options);
  const at::Tensor missed = (1 - at_entry).clamp_min(tiny).log();
  std::vector<int64_t> shape = plan.sizes().vec();
  const at::Tensor total =
      at::zeros(shape, options).index_add(-1, person_.to(plan.device()), missed);
  const at::Tensor reached = -at::expm1(total);
  return (plan * own_.to(options) * values).sum(-1) +
         (reached * weight_.to(options) * values).sum(-1);
}

}  // namespace topreach
