// The sum of a row's counts, each up to a cap.
#pragma once

#include <topreach/kernels/platform.h>

#include <cstdint>

namespace newcomer {

TR_HD double capped(double value, double cap) { return value < cap ? value : cap; }

TR_HD double capped_total(const double* row, int64_t size, double cap) {
  double sum = 0.0;
  for (int64_t i = 0; i < size; ++i) sum += capped(row[i], cap);
  return sum;
}

}  // namespace newcomer
