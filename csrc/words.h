// Numbers, names and ids as messages write them.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string>
#include <string_view>
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

/// A whole number without a decimal point, others to so many digits.
inline std::string number_text(double value, int digits = 12) {
  return value == std::floor(value) && std::abs(value) < 1e15
             ? fmt::format("{}", int64_t(value))
             : fmt::format("{:.{}g}", value, digits);
}

/// What two spellings of one id share. Case and blanks around it do not count; in a number, neither do
/// leading zeros and a final ".0"; in an id with letters, no punctuation but between two digits.
inline std::string plain_id(std::string_view id) {
  const auto at = [&](size_t i) { return (unsigned char)id[i]; };
  const auto is_letter = [&](size_t i) { return at(i) >= 128 || std::isalpha(at(i)); };
  const auto is_word = [&](size_t i) { return is_letter(i) || std::isdigit(at(i)); };
  size_t start = 0;
  while (start < id.size() && std::isspace(at(start))) ++start;
  while (id.size() > start && std::isspace(at(id.size() - 1))) id.remove_suffix(1);
  id.remove_prefix(start);
  bool letters = false;
  for (size_t i = 0; i < id.size(); ++i) letters = letters || is_letter(i);
  std::string text;
  for (size_t i = 0; i < id.size(); ++i) {
    if (is_word(i)) {
      text += char(std::tolower(at(i)));
    } else if (!letters) {
      if (!std::isspace(at(i)) || !std::isspace(at(i - 1)))
        text += std::isspace(at(i)) ? ' ' : id[i];
    } else if (i > 0 && std::isdigit(at(i - 1))) {
      size_t next = i;
      while (next < id.size() && !is_word(next)) ++next;
      if (next < id.size() && std::isdigit(at(next))) text += '-';
    }
  }
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const bool whole =
      digits == text.size() || (digits + 1 < text.size() && text[digits] == '.' &&
                                text.find_first_not_of('0', digits + 1) == std::string::npos);
  if (digits == 0 || !whole) return text;
  const size_t first = text.find_first_not_of('0');
  return first < digits ? text.substr(first, digits - first) : "0";
}

/// " Did you mean '001'? Ids are compared as text." if one of the ids is another spelling of an unknown
/// one; else "".
inline std::string did_you_mean(std::string_view unknown, const std::vector<std::string>& ids) {
  const std::string plain = plain_id(unknown);
  for (const std::string& id : ids)
    if (plain_id(id) == plain)
      return fmt::format(" Did you mean '{}'? Ids are compared as text.", id);
  return "";
}

}  // namespace topreach
