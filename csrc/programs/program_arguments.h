// Conversions between the types of topreach::plan and those of programs: arguments of a model file, and
// Solution.
#pragma once

#include <string>

#include "config_reader.h"
#include "constraints.h"
#include "program.h"
#include "solved.h"

namespace topreach {

/// Groups and locks as arguments: `labels` [L] and `groups` [L S] of the groupings; `names`, `grouping` (the
/// number of its label), `lower` and `upper` of all groups; `lock` [S].
ProgramConfig quota_arguments(const plan::Constraints& constraints);
/// The inverse, for K sites. Absent arguments: no groups, no locks. Raises c10::ValueError.
plan::Constraints read_quotas(const std::string& program, ConfigReader& config, int64_t k);
/// ", 3 groups by town" for each grouping, for a program's `describe`.
std::string describe_quotas(const plan::Constraints& constraints);

/// A row of values [S] as plain numbers.
std::vector<double> to_numbers(const at::Tensor& values);
/// The Solution for a row of values [S]; the plan has their dtype and device.
Solution to_solution(plan::Solved solved, const at::Tensor& values);

}  // namespace topreach
