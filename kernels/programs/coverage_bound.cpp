#include "coverage_bound.h"

#include <algorithm>

namespace topreach::kernels {
namespace {

constexpr int kPatience = 20;    // steps without a lower bound before they shrink,
constexpr double kShrink = 0.6;  // by this factor
constexpr double kRounding = 1e-12;

}  // namespace

CoverageBound::CoverageBound(const Coverage& coverage, const CoverageColumns& columns,
                             const QuotaTree& plans, bool capped)
    : coverage_(coverage),
      columns_(columns),
      plans_(plans),
      one_each_(capped || coverage.chance.empty()),
      lambda_(one_each_ ? coverage.w : std::vector<double>(coverage.seed.size())),
      top_(lambda_),
      slope_(lambda_.size()),
      score_(size_t(coverage.seeds)),
      amount_(size_t(coverage.people)),
      in_(size_t(coverage.seeds), 0),
      oracle_(size_t(plans.k())) {
  if (one_each_) return;
  for (int64_t i = 0; i < coverage.people; ++i)
    for (int64_t e = coverage.start[size_t(i)]; e < coverage.start[size_t(i) + 1]; ++e)
      top_[size_t(e)] = coverage.w[size_t(i)] * chance_of(coverage, e);
}

// Multipliers at which the plan's people are about indifferent: what one more seed would be worth.
void CoverageBound::begin(std::span<const int32_t> chosen) {
  CoverageState state(coverage_, columns_, one_each_);
  for (const int32_t j : chosen) {
    in_[size_t(j)] = 1;
    state.join_seed(j);
  }
  if (one_each_) {
    std::fill(amount_.begin(), amount_.end(), 0.0);
    for (const int32_t j : chosen)
      for (int64_t c = columns_.start[size_t(j)]; c < columns_.start[size_t(j) + 1]; ++c)
        amount_[size_t(columns_.person[size_t(c)])] +=
            chance_of(coverage_, columns_.entry[size_t(c)]);
    for (size_t i = 0; i < amount_.size(); ++i) lambda_[i] = amount_[i] <= 1 ? top_[i] : 0.0;
  } else {
    for (int64_t i = 0; i < coverage_.people; ++i)
      for (int64_t e = coverage_.start[size_t(i)]; e < coverage_.start[size_t(i) + 1]; ++e) {
        const double q = chance_of(coverage_, e);
        const bool in = in_[size_t(coverage_.seed[size_t(e)])];
        lambda_[size_t(e)] = coverage_.w[size_t(i)] * (in ? state.takes(i, q) : state.adds(i, q));
      }
  }
  for (const int32_t j : chosen) in_[size_t(j)] = 0;
}

int64_t CoverageBound::run(std::span<const int32_t> chosen, double value,
                           const CoverageOptions& options, const Deadline& deadline) {
  begin(chosen);
  std::vector<double> kept = lambda_;
  double factor = 1;
  int bad = 0;
  int64_t step = 0;
  for (; step < options.steps; ++step) {
    const double level = evaluate();
    if (oracle_value_ > value + kRounding * std::abs(value)) {
      value = oracle_value_;
      plan_ = oracle_;
    }
    if (level < bound_) {
      const bool clearly = !(bound_ - level < 1e-4 * (bound_ - value));
      bound_ = level;
      kept = lambda_;
      bad = clearly ? 0 : bad + 1;
    } else {
      ++bad;
    }
    const double least = std::max(options.gap, 1e-9) * std::abs(value);
    if (bound_ - value <= least || deadline.passed()) break;
    if (bad > kPatience) {
      factor *= kShrink;
      bad = 0;
      lambda_ = kept;
      continue;
    }
    double square = 0;
    for (size_t i = 0; i < lambda_.size(); ++i) {
      double& g = slope_[i];
      if ((lambda_[i] <= 0 && g > 0) || (lambda_[i] >= top_[i] && g < 0)) g = 0;
      square += g * g;
    }
    if (square < 1e-16) break;
    const double length = factor * (level - value) / square;
    for (size_t i = 0; i < lambda_.size(); ++i) {
      const double moved = lambda_[i] - length * slope_[i];
      lambda_[i] = moved < 0 ? 0.0 : moved > top_[i] ? top_[i] : moved;
    }
  }
  return step;
}

double CoverageBound::evaluate() {
  score_ = coverage_.a;
  for (int64_t i = 0; i < coverage_.people; ++i)
    for (int64_t e = coverage_.start[size_t(i)]; e < coverage_.start[size_t(i) + 1]; ++e)
      score_[size_t(coverage_.seed[size_t(e)])] +=
          one_each_ ? lambda_[size_t(i)] * chance_of(coverage_, e) : lambda_[size_t(e)];
  plans_.best(score_.data(), scratch_, oracle_.data());
  double level = 0, value = 0;
  for (const int32_t j : oracle_) {
    level += score_[size_t(j)];
    value += coverage_.a[size_t(j)];
  }
  level += one_each_ ? people_capped(value) : people_exact(value);
  oracle_value_ = value;
  return level;
}

double CoverageBound::people_capped(double& value) {
  std::fill(amount_.begin(), amount_.end(), 0.0);
  for (const int32_t j : oracle_)
    for (int64_t c = columns_.start[size_t(j)]; c < columns_.start[size_t(j) + 1]; ++c)
      amount_[size_t(columns_.person[size_t(c)])] +=
          chance_of(coverage_, columns_.entry[size_t(c)]);
  double level = 0;
  for (size_t i = 0; i < amount_.size(); ++i) {
    const double once = amount_[i] < 1 ? amount_[i] : 1.0;
    level += top_[i] - lambda_[i];
    value += top_[i] * once;
    // At lambda = w any share of the person may be counted: that which the plan reaches.
    slope_[i] = amount_[i] - (lambda_[i] < top_[i] ? 1.0 : once);
  }
  return level;
}

double CoverageBound::people_exact(double& value) {
  for (const int32_t j : oracle_) in_[size_t(j)] = 1;
  double level = 0;
  for (int64_t i = 0; i < coverage_.people; ++i) {
    // The plan's own seeds come first; another set must be better to replace them.
    double miss = 1, cost = 0;
    for (int64_t e = coverage_.start[size_t(i)]; e < coverage_.start[size_t(i) + 1]; ++e) {
      slope_[size_t(e)] = 0;
      if (!in_[size_t(coverage_.seed[size_t(e)])]) continue;
      miss *= 1.0 - chance_of(coverage_, e);
      cost += lambda_[size_t(e)];
    }
    const double w = coverage_.w[size_t(i)];
    value += w * (1.0 - miss);
    level += inner(i, w * (1.0 - miss) - cost);
  }
  for (const int32_t j : oracle_) in_[size_t(j)] = 0;
  return level;
}

namespace {

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
    // An item whose gain is not above its price now never will be; one whose gain is above it even
    // after all the others is in.
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

// The inner maximum of person i, at least `own`, that of the plan's seeds. Leaves x - T in slope_.
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
  // Prices of 0 cost nothing: T may hold all of these.
  const auto use = [&](auto&& in) {
    for (int64_t e = begin; e < end; ++e) {
      const bool plan = in_[size_t(coverage_.seed[size_t(e)])];
      const bool free = lambda_[size_t(e)] <= 0 && top_[size_t(e)] > 0;
      slope_[size_t(e)] = (plan ? 1.0 : 0.0) - (free ? 1.0 : 0.0);
    }
    for (size_t b = 0; b < branches_.size(); ++b) slope_[size_t(branches_[b].entry)] -= in(b);
  };
  const double floor = own + kRounding * w;
  if (branches_.size() <= size_t(kMostBranches)) {
    Search search{w, floor};
    Search::Item items[kMostBranches];
    for (size_t b = 0; b < branches_.size(); ++b)
      items[b] = {branches_[b].q, branches_[b].lambda, uint32_t(1) << b};
    search.branch(items, int(branches_.size()), miss, 0.0, 0);
    if (!search.found) return floor;
    use([&](size_t b) { return search.best_set >> b & 1 ? 1.0 : 0.0; });
    return search.best;
  }
  // Fractions, by falling -log(1 - q) for the price. With q = 1 one such seed alone is the whole.
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
  use([&](size_t b) { return fraction[b]; });
  return best;
}

}  // namespace topreach::kernels
