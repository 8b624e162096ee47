// Public networks for tests, read from the folder TOPREACH_DATA; without it these tests are skipped.
#pragma once

#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "../../kernels/programs/graph.h"

namespace topreach::tests {

inline std::string data_folder() {
  const char* const folder = std::getenv("TOPREACH_DATA");
  return folder ? folder : "";
}

// The columns of a CSV file by name. A cell in quotes may hold commas.
inline std::map<std::string, std::vector<std::string>> read_csv(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::vector<std::string> names;
  std::map<std::string, std::vector<std::string>> columns;
  while (std::getline(file, line)) {
    std::vector<std::string> cells(1);
    bool quoted = false;
    for (const char c : line) {
      if (c == '"')
        quoted = !quoted;
      else if (c == ',' && !quoted)
        cells.emplace_back();
      else if (c != '\r')
        cells.back() += c;
    }
    if (names.empty()) {
      names = cells;
      continue;
    }
    for (size_t i = 0; i < names.size(); ++i) columns[names[i]].push_back(cells[i]);
  }
  return columns;
}

struct Network {
  std::vector<std::string> ids;
  kernels::Graph graph;
  std::vector<double> value;  // of the attribute asked for
  int32_t node(const std::string& id) const {
    for (size_t i = 0; i < ids.size(); ++i)
      if (ids[i] == id) return int32_t(i);
    return -1;
  }
};

inline Network read_network(const std::string& folder, const std::string& from,
                            const std::string& to, const std::string& id,
                            const std::string& attribute) {
  const std::string path = data_folder() + "/networks/" + folder;
  auto nodes = read_csv(path + "/Nodes.csv"), edges = read_csv(path + "/Edges.csv");
  Network network;
  network.ids = nodes[id];
  for (const std::string& text : nodes[attribute]) network.value.push_back(std::stod(text));
  std::map<std::string, int32_t> place;
  for (size_t i = 0; i < network.ids.size(); ++i) place[network.ids[i]] = int32_t(i);
  std::vector<int32_t> a, b;
  for (size_t e = 0; e < edges[from].size(); ++e) {
    a.push_back(place.at(edges[from][e]));
    b.push_back(place.at(edges[to][e]));
  }
  network.graph = kernels::make_graph(int32_t(network.ids.size()), a, b);
  return network;
}

inline kernels::Graph grid(int32_t rows, int32_t columns) {  // node (i, j) is i * columns + j
  std::vector<int32_t> a, b;
  for (int32_t i = 0; i < rows; ++i)
    for (int32_t j = 0; j < columns; ++j) {
      const int32_t node = i * columns + j;
      if (i + 1 < rows) a.push_back(node), b.push_back(node + columns);
      if (j + 1 < columns) a.push_back(node), b.push_back(node + 1);
    }
  return kernels::make_graph(rows * columns, a, b);
}

}  // namespace topreach::tests

#define SKIP_WITHOUT_DATA() \
  if (topreach::tests::data_folder().empty()) GTEST_SKIP() << "TOPREACH_DATA is not set"
