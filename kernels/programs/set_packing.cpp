#include "set_packing.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace topreach::kernels {
namespace {

constexpr double kPositive = 1e-9, kPivot = 1e-9, kBroken = 1e-5;

double raised(double right, size_t row) {
  return right + 1e-7 * double(mixed(row) >> 11) * 0x1p-53;
}

}  // namespace

SetPacking::SetPacking(int32_t elements, int64_t k)
    : k_(k),
      row_of_(size_t(elements), 0),
      price_(size_t(elements), 0.0) {
  right_.push_back(raised(double(k), 0));
  restart();
}

bool SetPacking::add(std::vector<int32_t> elements, double value) {
  uint64_t key = 0;
  for (const int32_t n : elements) key ^= mixed(uint64_t(n));
  const auto at = std::lower_bound(keys_.begin(), keys_.end(), key);
  if (at != keys_.end() && *at == key) return false;
  keys_.insert(at, key);
  sets_.push_back(std::move(elements));
  values_.push_back(value);
  return true;
}

// Back to z = 0.
void SetPacking::restart() {
  const size_t m = right_.size();
  basis_.resize(m);
  inverse_.assign(m * m, 0.0);
  for (size_t i = 0; i < m; ++i) {
    basis_[i] = -1 - int64_t(i);
    inverse_[i * m + i] = 1;
  }
  level_ = right_;
}

double SetPacking::reduced(size_t set) const {
  double gain = values_[set] - dual_[0];
  for (const int32_t n : sets_[set])
    if (row_of_[size_t(n)]) gain -= dual_[size_t(row_of_[size_t(n)])];
  return gain;
}

void SetPacking::simplex() {
  const size_t m = right_.size();
  std::vector<double> column(m);
  for (;;) {
    dual_.assign(m, 0.0);
    for (size_t i = 0; i < m; ++i)
      if (basis_[i] >= 0)
        for (size_t j = 0; j < m; ++j) dual_[j] += values_[size_t(basis_[i])] * inverse_[i * m + j];
    int64_t enter = 0;
    double most = kPositive;
    bool found = false;
    const auto offer = [&](int64_t which, double gain) {
      if (gain <= most) return;
      most = gain;
      enter = which;
      found = true;
    };
    for (size_t s = 0; s < sets_.size(); ++s) offer(int64_t(s), reduced(s));
    for (size_t i = 0; i < m; ++i) offer(-1 - int64_t(i), -dual_[i]);
    if (!found) return;
    std::fill(column.begin(), column.end(), 0.0);
    const auto add_row = [&](size_t row) {
      for (size_t i = 0; i < m; ++i) column[i] += inverse_[i * m + row];
    };
    if (enter < 0) {
      add_row(size_t(-1 - enter));
    } else {
      add_row(0);
      for (const int32_t n : sets_[size_t(enter)])
        if (row_of_[size_t(n)]) add_row(size_t(row_of_[size_t(n)]));
    }
    size_t leave = m;
    for (size_t i = 0; i < m; ++i)
      if (column[i] > kPivot &&
          (leave == m || level_[i] * column[leave] < level_[leave] * column[i]))
        leave = i;
    if (leave == m) return;  // rounding: no set can grow without end
    double* const pivot = &inverse_[leave * m];
    const double scale = 1 / column[leave];
    for (size_t j = 0; j < m; ++j) pivot[j] *= scale;
    level_[leave] *= scale;
    for (size_t i = 0; i < m; ++i) {
      const double c = column[i];
      if (i == leave || c == 0) continue;
      double* const row = &inverse_[i * m];
      for (size_t j = 0; j < m; ++j) row[j] -= c * pivot[j];
      level_[i] = std::max(level_[i] - c * level_[leave], 0.0);
    }
    basis_[leave] = enter;
  }
}

void SetPacking::solve() {
  std::vector<double> load(row_of_.size());
  for (;;) {
    simplex();
    share_.assign(sets_.size(), 0.0);
    std::fill(load.begin(), load.end(), 0.0);
    value_ = 0;
    for (size_t i = 0; i < basis_.size(); ++i) {
      if (basis_[i] < 0) continue;
      const auto set = size_t(basis_[i]);
      share_[set] = level_[i];
      value_ += values_[set] * level_[i];
      for (const int32_t n : sets_[set]) load[size_t(n)] += level_[i];
    }
    bool broken = false;
    for (size_t n = 0; n < load.size(); ++n) {
      if (load[n] <= 1 + kBroken || row_of_[n]) continue;
      broken = true;
      row_of_[n] = int32_t(right_.size());
      right_.push_back(raised(1.0, right_.size()));
    }
    if (!broken) break;
    restart();
  }
  price_k_ = std::max(dual_[0], 0.0);
  for (size_t n = 0; n < price_.size(); ++n)
    price_[n] = row_of_[n] ? std::max(dual_[size_t(row_of_[n])], 0.0) : 0.0;
}

bool SetPacking::choose(double least, int64_t most_branches, std::vector<int32_t>& best) const {
  // A choice is worth sum mu + k nu, minus what its sets fall short of their prices, minus the prices
  // of the elements and places that it leaves unused.
  double all = double(k_) * price_k_;
  for (const double p : price_) all += p;
  struct Candidate {
    double value, loss;
    int32_t set;
  };
  std::vector<Candidate> candidates;
  for (size_t s = 0; s < sets_.size(); ++s) {
    double loss = price_k_ - values_[s];
    for (const int32_t n : sets_[s]) loss += price_[size_t(n)];
    if (values_[s] > 0 && loss <= all - least)
      candidates.push_back({values_[s], std::max(loss, 0.0), int32_t(s)});
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.value > b.value || (a.value == b.value && a.set < b.set);
  });
  std::vector<char> used(row_of_.size(), 0);
  std::vector<int32_t> plan;
  int64_t branches = 0;
  bool finished = true;
  const std::function<void(size_t, double, double)> search = [&](size_t from, double value,
                                                                 double slack) {
    if (value > least) {
      least = value;
      best = plan;
    }
    const int64_t left = k_ - int64_t(plan.size());
    if (left == 0) return;
    for (size_t c = from; c < candidates.size(); ++c) {
      const Candidate& candidate = candidates[c];
      if (value + double(left) * candidate.value <= least) return;
      if (slack - candidate.loss <= least) continue;
      const auto& set = sets_[size_t(candidate.set)];
      if (std::any_of(set.begin(), set.end(), [&](int32_t n) { return used[size_t(n)]; })) continue;
      if (++branches > most_branches) {
        finished = false;
        return;
      }
      for (const int32_t n : set) used[size_t(n)] = 1;
      plan.push_back(candidate.set);
      search(c + 1, value + candidate.value, slack - candidate.loss);
      plan.pop_back();
      for (const int32_t n : set) used[size_t(n)] = 0;
      if (!finished) return;
    }
  };
  search(0, 0.0, all + 1e-9 * std::abs(all));
  return finished;
}

}  // namespace topreach::kernels
