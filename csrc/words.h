// Formats numbers and names for messages.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace topreach {

/// 'a', 'b', ... (7 in all)
inline std::string listed(const std::vector<std::string>& names, size_t most = 5) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), most); ++i)
    text += fmt::format("{}'{}'", i == 0 ? "" : ", ", names[i]);
  if (names.size() > most) text += fmt::format(", ... ({} in all)", names.size());
  return text;
}

/// A whole number without a decimal point, others to `digits` significant digits.
inline std::string number_text(double value, int digits = 12) {
  return value == std::floor(value) && std::abs(value) < 1e15
             ? fmt::format("{}", int64_t(value))
             : fmt::format("{:.{}g}", value, digits);
}

}  // namespace topreach
