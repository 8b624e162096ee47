#include "program_arguments.h"

#include <ATen/ATen.h>

#include <set>

#include "../require.h"

namespace topreach {

ProgramConfig quota_arguments(const plan::Constraints& constraints) {
  std::vector<std::string> labels, groups, names;
  std::vector<double> of, lower, upper;
  for (size_t i = 0; i < constraints.groupings.size(); ++i) {
    const plan::Grouping& grouping = constraints.groupings[i];
    const std::vector<std::string> its = plan::group_names(grouping);
    labels.push_back(grouping.name);
    groups.insert(groups.end(), its.begin(), its.end());
    names.insert(names.end(), grouping.groups.begin(), grouping.groups.end());
    of.insert(of.end(), grouping.groups.size(), double(i));
    lower.insert(lower.end(), grouping.lower.begin(), grouping.lower.end());
    upper.insert(upper.end(), grouping.upper.begin(), grouping.upper.end());
  }
  return {{"labels", labels},
          {"groups", groups},
          {"names", names},
          {"grouping", of},
          {"lower", lower},
          {"upper", upper},
          {"lock", std::vector<double>(constraints.lock.begin(), constraints.lock.end())}};
}

plan::Constraints read_quotas(const std::string& program, ConfigReader& config, int64_t k) {
  const std::vector<std::string> labels = config.texts("labels"), groups = config.texts("groups"),
                                 names = config.texts("names");
  const std::vector<int64_t> of = config.wholes("grouping"), lower = config.wholes("lower"),
                             upper = config.wholes("upper"), lock = config.wholes("lock");
  const size_t levels = labels.size();
  TR_REQUIRE(levels == 0 ? groups.empty() : groups.size() % levels == 0,
             "make_program: groups of {} must have an entry for each site and label, got {} for "
             "{} label(s)",
             program, groups.size(), levels);
  TR_REQUIRE(
      of.size() == names.size() && lower.size() == names.size() && upper.size() == names.size(),
      "make_program: grouping, lower and upper of {} must have an entry for each of {} names, got "
      "{}, {} and {}",
      program, names.size(), of.size(), lower.size(), upper.size());
  struct Limits {
    std::vector<std::string> names;
    std::vector<int64_t> lower, upper;
  };
  std::vector<Limits> limits(levels);
  for (size_t i = 0; i < names.size(); ++i) {
    TR_REQUIRE(of[i] >= 0 && of[i] < int64_t(levels),
               "make_program: grouping of {} must be 0 to {}, got {}", program, int64_t(levels) - 1,
               of[i]);
    Limits& its = limits[size_t(of[i])];
    its.names.push_back(names[i]);
    its.lower.push_back(lower[i]);
    its.upper.push_back(upper[i]);
  }
  plan::Constraints made{k, {}, std::vector<int8_t>(lock.begin(), lock.end())};
  const size_t sites = levels ? groups.size() / levels : 0;
  for (size_t i = 0; i < levels; ++i)
    made.groupings.push_back(plan::group_by(
        labels[i], {groups.begin() + int64_t(i * sites), groups.begin() + int64_t((i + 1) * sites)},
        limits[i].names, limits[i].lower, limits[i].upper, program.c_str()));
  return made;
}

std::string describe_quotas(const plan::Constraints& constraints) {
  std::string text;
  for (const plan::Grouping& grouping : constraints.groupings) {
    std::set<int32_t> distinct(grouping.group.begin(), grouping.group.end());
    distinct.erase(-1);
    text += fmt::format(", {} groups", distinct.size());
    if (grouping.name != "group") text += " by " + grouping.name;
  }
  return text;
}

std::vector<double> to_numbers(const at::Tensor& values) {
  const at::Tensor row = values.detach().to(at::kCPU, at::kDouble).contiguous();
  return {row.const_data_ptr<double>(), row.const_data_ptr<double>() + row.numel()};
}

Solution to_solution(plan::Solved solved, const at::Tensor& values) {
  at::Tensor plan = at::zeros({values.numel()}, at::kDouble);
  for (const int32_t i : solved.chosen) plan.mutable_data_ptr<double>()[i] = 1;
  return {plan.to(values.device(), values.scalar_type()),
          solved.value,
          solved.bound,
          solved.gap,
          solved.status,
          solved.seconds,
          std::move(solved.notes)};
}

}  // namespace topreach
