// Reads a table of text from CSV: a header, then rows. Fields may be quoted; a quote in one is doubled.
#pragma once

#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

struct Table {
  std::vector<std::string> names;
  std::vector<std::vector<std::string>> rows;

  size_t column(const std::string& name) const {
    for (size_t i = 0; i < names.size(); ++i) {
      if (names[i] == name) return i;
    }
    throw std::runtime_error("the table has no column '" + name + "'");
  }
};

// A whole cell as a number. Throws for other text, such as "1,5" and "".
inline double number(const std::string& text) {
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = std::string::npos;
  }
  if (used != text.size()) throw std::runtime_error("'" + text + "' is not a number");
  return value;
}

inline Table read_table(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);  // the byte order mark that Excel writes

  Table table;
  std::vector<std::string> row(1);
  bool quoted = false, filled = false;
  const auto end_row = [&] {
    if (filled && table.names.empty()) {
      table.names = row;
    } else if (filled) {
      if (row.size() != table.names.size()) {
        throw std::runtime_error(path + ": row " + std::to_string(table.rows.size() + 1) + " has " +
                                 std::to_string(row.size()) + " fields, the header has " +
                                 std::to_string(table.names.size()));
      }
      table.rows.push_back(row);
    }
    row.assign(1, "");
    filled = false;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n' && !quoted) {
      end_row();
    } else if (c == ',' && !quoted) {
      row.emplace_back();
      filled = true;
    } else if (c == '"' && quoted && i + 1 < text.size() && text[i + 1] == '"') {
      row.back() += '"';
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
      filled = true;
    } else if (c != '\r' || quoted) {
      row.back() += c;
      filled = true;
    }
  }
  if (quoted) throw std::runtime_error(path + ": a quote is not closed");
  end_row();
  if (table.rows.empty()) throw std::runtime_error(path + " has no rows");
  return table;
}
