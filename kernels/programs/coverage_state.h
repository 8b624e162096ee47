// The state of a coverage plan while seeds join and leave it, and what each of them adds or takes away.
#pragma once

#include <utility>

#include "coverage.h"

namespace topreach::kernels {

// Entries by seed: the people that each seed reaches, and the number of the entry in row order.
struct CoverageColumns {
  std::vector<int64_t> start;   // [seeds + 1]
  std::vector<int32_t> person;  // [entries]
  std::vector<int64_t> entry;   // [entries]
  explicit CoverageColumns(const Coverage& coverage);
};

inline double chance_of(const Coverage& coverage, int64_t entry) {
  return coverage.chance.empty() ? 1.0 : coverage.chance[size_t(entry)];
}

// How far each person is reached. capped: sum q. exact: the product of 1 - q over the seeds with
// q < 1, and the number of those with q = 1.
class CoverageState {
 public:
  CoverageState(const Coverage& coverage, const CoverageColumns& columns, bool capped)
      : coverage_(coverage),
        columns_(columns),
        capped_(capped || coverage.chance.empty()) {
    clear();
  }
  void clear() {
    amount_.assign(size_t(coverage_.people), capped_ ? 0.0 : 1.0);
    certain_.assign(capped_ ? 0 : size_t(coverage_.people), 0);
  }
  // phi_i.
  double reached(int64_t i) const {
    if (capped_) return amount_[size_t(i)] < 1 ? amount_[size_t(i)] : 1.0;
    return certain_[size_t(i)] > 0 ? 1.0 : 1.0 - amount_[size_t(i)];
  }
  // Whether a person's sum exceeds the cap of 1; capped only.
  bool overfull(int64_t i) const { return amount_[size_t(i)] > 1; }
  // What a seed with chance q adds to phi_i if it is not in the plan,
  double adds(int64_t i, double q) const {
    if (!capped_) return certain_[size_t(i)] > 0 ? 0.0 : amount_[size_t(i)] * q;
    const double room = 1.0 - amount_[size_t(i)];
    return room <= 0 ? 0.0 : room < q ? room : q;
  }
  // and takes from it by leaving if it is.
  double takes(int64_t i, double q) const {
    const double amount = amount_[size_t(i)];
    if (!capped_) {
      if (q >= 1) return certain_[size_t(i)] > 1 ? 0.0 : amount;
      return certain_[size_t(i)] > 0 ? 0.0 : amount / (1.0 - q) * q;
    }
    const double rest = amount - q;
    return (amount < 1 ? amount : 1.0) - (rest < 1 ? rest : 1.0);
  }
  void join(int64_t i, double q) {
    if (capped_)
      amount_[size_t(i)] += q;
    else if (q >= 1)
      ++certain_[size_t(i)];
    else
      amount_[size_t(i)] *= 1.0 - q;
  }
  void leave(int64_t i, double q) {
    if (capped_)
      amount_[size_t(i)] -= q;
    else if (q >= 1)
      --certain_[size_t(i)];
    else
      amount_[size_t(i)] /= 1.0 - q;
  }
  // The amounts of a seed's people, to be put back exactly.
  std::vector<std::pair<double, int32_t>> save(int32_t j) const {
    std::vector<std::pair<double, int32_t>> saved;
    for (int64_t c = columns_.start[size_t(j)]; c < columns_.start[size_t(j) + 1]; ++c) {
      const auto i = size_t(columns_.person[size_t(c)]);
      saved.push_back({amount_[i], capped_ ? 0 : certain_[i]});
    }
    return saved;
  }
  void restore(int32_t j, const std::vector<std::pair<double, int32_t>>& saved) {
    for (int64_t c = columns_.start[size_t(j)]; c < columns_.start[size_t(j) + 1]; ++c) {
      const auto i = size_t(columns_.person[size_t(c)]);
      const auto& [amount, certain] = saved[size_t(c - columns_.start[size_t(j)])];
      amount_[i] = amount;
      if (!capped_) certain_[i] = certain;
    }
  }
  void join_seed(int32_t j) {
    for (int64_t c = columns_.start[size_t(j)]; c < columns_.start[size_t(j) + 1]; ++c)
      join(columns_.person[size_t(c)], chance_of(coverage_, columns_.entry[size_t(c)]));
  }
  double gain_of(int32_t j) const {
    double gain = coverage_.a[size_t(j)];
    for (int64_t c = columns_.start[size_t(j)]; c < columns_.start[size_t(j) + 1]; ++c) {
      const int64_t i = columns_.person[size_t(c)];
      gain += coverage_.w[size_t(i)] * adds(i, chance_of(coverage_, columns_.entry[size_t(c)]));
    }
    return gain;
  }

 private:
  const Coverage& coverage_;
  const CoverageColumns& columns_;
  bool capped_;
  std::vector<double> amount_;
  std::vector<int32_t> certain_;
};

}  // namespace topreach::kernels
