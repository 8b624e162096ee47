// A linear program, some of whose variables may have to be integers:
//
//   max or min offset + cost.x,  lower <= x <= upper,  row_lower <= A x <= row_upper
//
// Rows are compressed: row i has the columns index[row_start[i]] to index[row_start[i + 1] - 1].
// Builders (models.h) return one; csrc/programs/milp.h solves it.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <utility>
#include <vector>

namespace topreach::kernels {

constexpr double kNoBound = std::numeric_limits<double>::infinity();

struct LinearProgram {
  bool maximise = true;
  double offset = 0;
  std::vector<double> cost, lower, upper;  // [columns]
  std::vector<uint8_t> integer;            // [columns], 1: a whole number
  std::vector<double> row_lower, row_upper;
  std::vector<int64_t> row_start{0};
  std::vector<int32_t> index;
  std::vector<double> value;

  int32_t columns() const { return int32_t(cost.size()); }
  int32_t rows() const { return int32_t(row_lower.size()); }

  // Both add_column and end_row return the number of the column or row that they add.
  int32_t add_column(double its_cost, double its_lower, double its_upper, bool whole) {
    cost.push_back(its_cost);
    lower.push_back(its_lower);
    upper.push_back(its_upper);
    integer.push_back(whole ? 1 : 0);
    return columns() - 1;
  }
  // `count` columns with costs its_cost[0..], bounds 0 and 1; returns the first.
  int32_t add_choices(const double* its_cost, int64_t count, bool whole) {
    const int32_t first = columns();
    for (int64_t i = 0; i < count; ++i) add_column(its_cost ? its_cost[i] : 0.0, 0, 1, whole);
    return first;
  }
  // Adds to the row that the next end_row closes.
  void add_term(int32_t column, double coefficient) {
    index.push_back(column);
    value.push_back(coefficient);
  }
  int32_t end_row(double its_lower, double its_upper) {
    row_lower.push_back(its_lower);
    row_upper.push_back(its_upper);
    row_start.push_back(int64_t(index.size()));
    return rows() - 1;
  }
  int32_t add_row(std::initializer_list<std::pair<int32_t, double>> terms, double its_lower,
                  double its_upper) {
    for (const auto& [column, coefficient] : terms) add_term(column, coefficient);
    return end_row(its_lower, its_upper);
  }
};

}  // namespace topreach::kernels
