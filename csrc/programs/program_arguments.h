// What topreach::plan takes and gives back, as programs keep it and give it: arguments of a model file, a
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
/// The same back, for K sites; absent arguments: no groups, no locks. Raises c10::ValueError.
plan::Constraints read_quotas(const std::string& program, ConfigReader& config, int64_t k);
/// ", 3 groups by town" for each grouping: how a program describes itself.
std::string describe_quotas(const plan::Constraints& constraints);

/// A row of values [S] as plain numbers.
std::vector<double> to_numbers(const at::Tensor& values);
/// For a row of values [S]; the plan has their dtype and device.
Solution to_solution(plan::Solved solved, const at::Tensor& values);

}  // namespace topreach
