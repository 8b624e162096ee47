// The best k disjoint sets of a collection: as a linear program that grows, and as an integer program.
//
//   max sum_p value_p z_p,  sum_{p holds n} z_p <= 1 for every element n,  sum_p z_p <= k,  z >= 0
//
// Few sets are in use at a time, so few rows matter: a row is added when a solution breaks it. The
// revised simplex method keeps the inverse of the basis, some dozens of rows. Right-hand sides are
// raised by up to 1e-7, each by another amount, against cycling; prices do not depend on them, so
// bounds made of prices are those of the true program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace topreach::kernels {

class SetPacking {
 public:
  SetPacking(int32_t elements, int64_t k);

  // Adds a set of elements, each once, unless it is there. Returns whether it was new.
  bool add(std::vector<int32_t> elements, double value);

  // Solves the linear program over the sets added so far.
  void solve();
  double value() const { return value_; }
  double price_of_k() const { return price_k_; }                // nu >= 0
  const std::vector<double>& prices() const { return price_; }  // mu [elements], >= 0
  const std::vector<double>& shares() const { return share_; }  // z, by set

  // Finds the best disjoint sets, at most k, if better than `least`, and stores them in `best`. The prices
  // of the last solve() rule out sets that no such choice can hold. Returns whether the search was finished.
  bool choose(double least, int64_t most_branches, std::vector<int32_t>& best) const;

  const std::vector<std::vector<int32_t>>& sets() const { return sets_; }
  const std::vector<double>& values() const { return values_; }

 private:
  void restart();
  void simplex();
  double reduced(std::size_t set) const;

  int64_t k_;
  std::vector<std::vector<int32_t>> sets_;
  std::vector<double> values_;
  std::vector<uint64_t> keys_;                  // hashes of the sets, in order
  std::vector<int32_t> row_of_;                 // [elements], 0: none; row 0 is that of k
  std::vector<double> right_;                   // [rows]
  std::vector<int64_t> basis_;                  // [rows], a set, or -1 - row: the row's slack
  std::vector<double> inverse_, level_, dual_;  // [rows, rows], [rows], [rows]
  double value_ = 0, price_k_ = 0;
  std::vector<double> price_, share_;
};

// A number for a node. The exclusive or of its nodes' numbers identifies a set.
inline uint64_t mixed(uint64_t x) {  // splitmix64 (Steele, Lea & Flood 2014)
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace topreach::kernels
