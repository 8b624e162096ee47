#include "coverage_bound.h"

#include <algorithm>

namespace topreach::kernels {
namespace {

constexpr int kPatience = 20;      // steps without a clearly lower bound before steps shrink,
constexpr double kShrink = 0.6;    // by this factor
constexpr double kClearly = 1e-4;  // of the gap
constexpr int kMostImprovements = 12;
constexpr int64_t kRefresh = 100;  // steps after which scores are summed anew
constexpr double kRounding = 1e-12;

// max over subsets T of `items` of w (1 - miss prod_T (1 - q)) - cost - lambda(T), and T as bits.
struct Search {
  struct Item {
    double q, lambda;
    uint32_t bit;
  };
  double w, best;
  uint32_t best_set = 0;
  bool found = false;

  void branch(Item* items, int count, double miss, double cost, uint32_t set) {
    // An item whose gain is not above its price now never will be. One whose gain is above its price
    // even after all the others belongs to T.
    double after = miss;
    for (int n = 0; n < count;) {
      if (w * miss * items[n].q <= items[n].lambda) {
        items[n] = items[--count];
      } else {
        after *= 1.0 - items[n].q;
        ++n;
      }
    }
    double most = w * (1.0 - miss) - cost;
    int widest = -1;
    double width = -1;
    for (int n = 0; n < count; ++n) {
      const double gain = w * miss * items[n].q - items[n].lambda;
      most += gain;
      const double last = items[n].q < 1 ? w * (after / (1.0 - items[n].q)) * items[n].q : 0.0;
      if (last > items[n].lambda) {
        const Item in = items[n];
        items[n] = items[count - 1];
        branch(items, count - 1, miss * (1.0 - in.q), cost + in.lambda, set | in.bit);
        return;
      }
      if (gain > width) {
        width = gain;
        widest = n;
      }
    }
    if (most <= best) return;
    if (count <= 0) {
      best = most;
      best_set = set;
      found = true;
      return;
    }
    const Item split = items[widest];
    Item rest[kMostBranches];
    items[widest] = items[count - 1];
    std::copy(items, items + count - 1, rest);
    branch(rest, count - 1, miss * (1.0 - split.q), cost + split.lambda, set | split.bit);
    branch(items, count - 1, miss, cost, set);
  }
};

}  // namespace

CoverageBound::CoverageBound(const Coverage& coverage, const CoverageColumns& columns,
                             const QuotaTree& plans, bool capped)
    : coverage_(coverage),
      columns_(columns),
      plans_(plans),
      one_each_(capped || coverage.chance.empty()),
      lambda_(one_each_ ? coverage.w : std::vector<double>(coverage.seed.size())),
      person_of_(one_each_ ? 0 : coverage.seed.size()),
      score_(size_t(coverage.seeds)),
      is_active_(size_t(coverage.people), 0),
      in_(size_t(coverage.seeds), 0),
      reached_at_(size_t(coverage.people), -1),
      amount_(size_t(coverage.people), 0.0),
      is_changed_(lambda_.size(), 0),
      oracle_(size_t(plans.k())) {
  if (!one_each_)
    for (int64_t i = 0; i < coverage.people; ++i)
      for (int64_t e = coverage.start[size_t(i)]; e < coverage.start[size_t(i) + 1]; ++e) {
        lambda_[size_t(e)] = coverage.w[size_t(i)] * chance_of(coverage, e);
        person_of_[size_t(e)] = int32_t(i);
      }
  top_ = kept_ = lambda_;
  refresh_scores();
}

void CoverageBound::refresh_scores() {
  score_ = coverage_.a;
  for (int64_t i = 0; i < coverage_.people; ++i)
    for (int64_t e = coverage_.start[size_t(i)]; e < coverage_.start[size_t(i) + 1]; ++e)
      score_[size_t(coverage_.seed[size_t(e)])] +=
          one_each_ ? lambda_[size_t(i)] * chance_of(coverage_, e) : lambda_[size_t(e)];
}

void CoverageBound::set(int64_t at, double value) {
  const double by = value - lambda_[size_t(at)];
  if (by == 0) return;
  lambda_[size_t(at)] = value;
  const int64_t i = one_each_ ? at : person_of_[size_t(at)];
  if (one_each_) {
    for (int64_t e = coverage_.start[size_t(i)]; e < coverage_.start[size_t(i) + 1]; ++e)
      score_[size_t(coverage_.seed[size_t(e)])] += by * chance_of(coverage_, e);
  } else {
    score_[size_t(coverage_.seed[size_t(at)])] += by;
  }
  is_active_[size_t(i)] = 1;
  if (!is_changed_[size_t(at)]) {
    is_changed_[size_t(at)] = 1;
    changed_.push_back(at);
  }
}

void CoverageBound::keep() {
  for (const int64_t at : changed_) {
    kept_[size_t(at)] = lambda_[size_t(at)];
    is_changed_[size_t(at)] = 0;
  }
  changed_.clear();
}

void CoverageBound::go_back() {
  const std::vector<int64_t> changed = changed_;
  for (const int64_t at : changed) set(at, kept_[size_t(at)]);
  keep();
}

// Starts with multipliers equal to what a seed adds for each person that the plan reaches.
void CoverageBound::begin(const std::vector<int32_t>& chosen) {
  CoverageState state(coverage_, columns_, one_each_);
  for (const int32_t j : chosen) {
    in_[size_t(j)] = 1;
    state.join_seed(j);
  }
  for (const int32_t j : chosen)
    for (int64_t c = columns_.start[size_t(j)]; c < columns_.start[size_t(j) + 1]; ++c) {
      const int64_t i = columns_.person[size_t(c)];
      if (one_each_) {
        if (state.overfull(i)) set(i, 0.0);
        continue;
      }
      for (int64_t e = coverage_.start[size_t(i)]; e < coverage_.start[size_t(i) + 1]; ++e) {
        const double q = chance_of(coverage_, e);
        const bool in = in_[size_t(coverage_.seed[size_t(e)])];
        const double worth = coverage_.w[size_t(i)] * (in ? state.takes(i, q) : state.adds(i, q));
        set(e, worth < top_[size_t(e)] ? worth : top_[size_t(e)]);
      }
    }
  for (const int32_t j : chosen) in_[size_t(j)] = 0;
}

int64_t CoverageBound::run(std::vector<int32_t>& chosen, double& value,
                           const CoverageOptions& options,
                           const std::function<double(std::vector<int32_t>&)>& improve,
                           const Deadline& deadline) {
  begin(chosen);
  double factor = 1;
  int bad = 0, improvements = 0;
  int64_t step = 0;
  for (; step < options.steps; ++step) {
    if (step % kRefresh == kRefresh - 1) refresh_scores();
    evaluate();
    if (plan_value_ > value + kRounding * std::abs(value)) {
      value = plan_value_;
      chosen = oracle_;
    }
    bad = level_ < bound_ - kClearly * (bound_ - value) ? 0 : bad + 1;
    if (level_ < bound_) {
      bound_ = level_;
      keep();
    }
    const double enough = std::max(options.gap, 1e-9) * std::abs(value);
    if (bound_ - value <= enough || square_ < 1e-16 || deadline.passed()) break;
    if (bad <= kPatience) {
      move(factor * (level_ - value) / square_);
      continue;
    }
    factor *= kShrink;
    bad = 0;
    go_back();
    if (improvements++ == kMostImprovements) break;
    std::vector<int32_t> plan = oracle_;
    const double its = improve(plan);
    if (its > value) {
      value = its;
      chosen = plan;
    }
  }
  return step;
}

// L at lambda_ and its slopes, the plan that attains it, and the value of that plan.
double CoverageBound::evaluate() {
  plans_.best(score_.data(), scratch_, oracle_.data());
  ++time_;
  slopes_.clear();
  square_ = 0;
  level_ = plan_value_ = 0;
  for (const int32_t j : oracle_) {
    in_[size_t(j)] = 1;
    level_ += score_[size_t(j)];
    plan_value_ += coverage_.a[size_t(j)];
    for (int64_t c = columns_.start[size_t(j)]; c < columns_.start[size_t(j) + 1]; ++c) {
      const auto i = size_t(columns_.person[size_t(c)]);
      if (reached_at_[i] != time_) {
        reached_at_[i] = time_;
        amount_[i] = 0;
      }
      amount_[i] += chance_of(coverage_, columns_.entry[size_t(c)]);
    }
  }
  // Others have all multipliers at the top and no seed of the plan: T is empty and worth nothing.
  for (int64_t i = 0; i < coverage_.people; ++i) {
    if (is_active_[size_t(i)]) is_active_[size_t(i)] = any_low(i);
    if (!is_active_[size_t(i)] && reached_at_[size_t(i)] != time_) continue;
    if (one_each_)
      capped_person(i);
    else
      exact_person(i);
  }
  for (const int32_t j : oracle_) in_[size_t(j)] = 0;
  return level_;
}

bool CoverageBound::any_low(int64_t i) const {
  if (one_each_) return lambda_[size_t(i)] < top_[size_t(i)];
  for (int64_t e = coverage_.start[size_t(i)]; e < coverage_.start[size_t(i) + 1]; ++e)
    if (lambda_[size_t(e)] < top_[size_t(e)]) return true;
  return false;
}

// A slope that would lead out of [0, top] counts as 0.
void CoverageBound::add_slope(int64_t at, double slope) {
  const double lambda = lambda_[size_t(at)];
  if (slope == 0 || (lambda <= 0 && slope > 0) || (lambda >= top_[size_t(at)] && slope < 0)) return;
  slopes_.push_back({at, slope});
  square_ += slope * slope;
}

void CoverageBound::move(double length) {
  for (const Slope& s : slopes_) {
    const double moved = lambda_[size_t(s.at)] - length * s.slope, top = top_[size_t(s.at)];
    set(s.at, moved < 0 ? 0.0 : moved > top ? top : moved);
  }
}

void CoverageBound::capped_person(int64_t i) {
  const double amount = reached_at_[size_t(i)] == time_ ? amount_[size_t(i)] : 0.0;
  const double once = amount < 1 ? amount : 1.0;
  const double lambda = lambda_[size_t(i)], top = top_[size_t(i)];
  level_ += top - lambda;
  plan_value_ += top * once;
  // At lambda = w any share of the person may be counted; the share that the plan reaches is taken.
  add_slope(i, amount - (lambda < top ? 1.0 : once));
}

void CoverageBound::exact_person(int64_t i) {
  const int64_t begin = coverage_.start[size_t(i)], end = coverage_.start[size_t(i) + 1];
  // The plan's own seeds are the first T; another must be better to replace it.
  double miss = 1, cost = 0;
  taken_.assign(size_t(end - begin), 0.0);
  if (reached_at_[size_t(i)] == time_)
    for (int64_t e = begin; e < end; ++e) {
      if (!in_[size_t(coverage_.seed[size_t(e)])]) continue;
      miss *= 1.0 - chance_of(coverage_, e);
      cost += lambda_[size_t(e)];
      taken_[size_t(e - begin)] = 1;
    }
  const double w = coverage_.w[size_t(i)];
  plan_value_ += w * (1.0 - miss);
  level_ += inner(i, w * (1.0 - miss) - cost);
  for (int64_t e = begin; e < end; ++e)
    add_slope(e, (in_[size_t(coverage_.seed[size_t(e)])] ? 1.0 : 0.0) - taken_[size_t(e - begin)]);
}

// The inner maximum of person i, at least `own`. If it is better, T is left in taken_.
double CoverageBound::inner(int64_t i, double own) {
  const double w = coverage_.w[size_t(i)];
  const int64_t begin = coverage_.start[size_t(i)], end = coverage_.start[size_t(i) + 1];
  double miss = 1;
  branches_.clear();
  for (int64_t e = begin; e < end; ++e) {
    const double q = chance_of(coverage_, e), price = lambda_[size_t(e)];
    if (price >= top_[size_t(e)]) continue;
    if (price <= 0)
      miss *= 1.0 - q;
    else
      branches_.push_back({q, price, e});
  }
  const auto drop = [&](const Branch& b) { return w * miss * b.q <= b.lambda; };
  branches_.erase(std::remove_if(branches_.begin(), branches_.end(), drop), branches_.end());
  // Seeds with price 0 cost nothing: T may hold all of them.
  const auto take = [&](auto&& share) {
    for (int64_t e = begin; e < end; ++e)
      taken_[size_t(e - begin)] = lambda_[size_t(e)] <= 0 && top_[size_t(e)] > 0 ? 1.0 : 0.0;
    for (size_t b = 0; b < branches_.size(); ++b)
      taken_[size_t(branches_[b].entry - begin)] = share(b);
  };
  const double floor = own + kRounding * w;
  if (branches_.size() <= size_t(kMostBranches)) {
    Search search{w, floor};
    Search::Item items[kMostBranches];
    for (size_t b = 0; b < branches_.size(); ++b)
      items[b] = {branches_[b].q, branches_[b].lambda, uint32_t(1) << b};
    search.branch(items, int(branches_.size()), miss, 0.0, 0);
    if (!search.found) return floor;
    take([&](size_t b) { return search.best_set >> b & 1 ? 1.0 : 0.0; });
    return search.best;
  }
  // Fractions of seeds, by falling -log(1 - q) per price. The alternative is the cheapest seed with q = 1
  // alone, which reaches the person for certain.
  std::vector<double> fraction(branches_.size(), 0.0);
  std::sort(branches_.begin(), branches_.end(), [](const Branch& a, const Branch& b) {
    return a.lambda * std::log1p(-b.q) > b.lambda * std::log1p(-a.q);
  });
  double cost = 0, rest = miss, sure = std::numeric_limits<double>::infinity();
  size_t sure_at = 0;
  for (size_t b = 0; b < branches_.size(); ++b)
    if (branches_[b].q >= 1 && branches_[b].lambda < sure) {
      sure = branches_[b].lambda;
      sure_at = b;
    }
  for (size_t b = 0; b < branches_.size(); ++b) {
    if (branches_[b].q >= 1) continue;
    const double z = -std::log1p(-branches_[b].q), price = branches_[b].lambda;
    const double full = std::log(w * rest * z / price) / z;
    fraction[b] = full <= 0 ? 0.0 : full < 1 ? full : 1.0;
    rest *= std::exp(-z * fraction[b]);
    cost += price * fraction[b];
    if (full < 1) break;
  }
  double best = w * (1.0 - rest) - cost;
  if (w - sure > best) {
    best = w - sure;
    std::fill(fraction.begin(), fraction.end(), 0.0);
    fraction[sure_at] = 1;
  }
  if (best <= floor) return floor;
  take([&](size_t b) { return fraction[b]; });
  return best;
}

}  // namespace topreach::kernels
