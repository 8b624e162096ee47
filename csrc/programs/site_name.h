// A site in an error message: its id if the program has ids, else its number.
#pragma once

#include <string>
#include <vector>

namespace topreach {

inline std::string site_name(const std::vector<std::string>& ids, size_t site) {
  return site < ids.size() ? "'" + ids[site] + "'" : std::to_string(site);
}

}  // namespace topreach
