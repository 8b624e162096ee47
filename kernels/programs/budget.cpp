#include "budget.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace topreach::kernels {
namespace {

constexpr int kHalvings = 100;
constexpr int64_t kMostExchanges = int64_t(1) << 27;  // pairs tried in all passes

class Budget {
 public:
  Budget(std::span<const double> r, std::span<const double> c, double budget,
         const QuotaTree* plans)
      : r_(r),
        c_(c),
        budget_(budget),
        plans_(plans),
        score_(r.size()) {}

  // The plan of C that is best for r - lambda c; by the least cost for r = 0, lambda = 1.
  void oracle(double by_r, double lambda) {
    for (size_t i = 0; i < score_.size(); ++i) score_[i] = by_r * r_[i] - lambda * c_[i];
    if (plans_) {
      plan.resize(size_t(plans_->k()));
      plans_->best(score_.data(), scratch_, plan.data());
    } else {
      plan.clear();
      for (size_t i = 0; i < score_.size(); ++i)
        if (score_[i] > 0) plan.push_back(int32_t(i));
    }
    value = cost = 0;
    for (const int32_t i : plan) {
      value += r_[size_t(i)];
      cost += c_[size_t(i)];
    }
  }

  // Adds sites, if their number is free, and exchanges one for another, while that helps.
  void repair(std::vector<int32_t>& chosen, double& its_value, double& its_cost) const {
    std::vector<int32_t> order(r_.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return r_[size_t(a)] > r_[size_t(b)] || (r_[size_t(a)] == r_[size_t(b)] && a < b);
    });
    std::vector<char> in(r_.size(), 0);
    for (const int32_t i : chosen) in[size_t(i)] = 1;
    const auto node_of = [&](int32_t i) { return plans_ ? plans_->node_of()[size_t(i)] : 0; };
    std::vector<char> fixed(r_.size(), 0);
    if (plans_)
      for (const auto& node : plans_->nodes())
        for (int64_t j = 0; j < node.locked; ++j)
          fixed[size_t(plans_->order()[size_t(node.own_begin + j)])] = 1;
    int64_t pairs = 0;
    for (bool better = true; better && pairs < kMostExchanges;) {
      better = false;
      if (!plans_)
        for (const int32_t j : order) {
          if (in[size_t(j)] || r_[size_t(j)] <= 0 || its_cost + c_[size_t(j)] > budget_) continue;
          in[size_t(j)] = 1;
          chosen.push_back(j);
          its_value += r_[size_t(j)];
          its_cost += c_[size_t(j)];
        }
      QuotaRoom* room = nullptr;
      std::vector<QuotaRoom> rooms;
      if (plans_) {
        rooms.emplace_back(*plans_);
        room = &rooms[0];
        for (const int32_t i : chosen) room->join(node_of(i));
      }
      for (int32_t& i : chosen) {
        if (fixed[size_t(i)]) continue;
        if (room) room->leave(node_of(i));
        for (const int32_t j : order) {
          ++pairs;
          if (r_[size_t(j)] <= r_[size_t(i)]) break;
          if (in[size_t(j)] || its_cost - c_[size_t(i)] + c_[size_t(j)] > budget_) continue;
          if (room && !room->has_room(node_of(j))) continue;
          its_value += r_[size_t(j)] - r_[size_t(i)];
          its_cost += c_[size_t(j)] - c_[size_t(i)];
          in[size_t(i)] = 0;
          in[size_t(j)] = 1;
          i = j;
          better = true;
          break;
        }
        if (room) room->join(node_of(i));
      }
    }
  }

  std::vector<int32_t> plan;
  double value = 0, cost = 0;

 private:
  std::span<const double> r_, c_;
  double budget_;
  const QuotaTree* plans_;
  std::vector<double> score_;
  QuotaScratch<double> scratch_;
};

}  // namespace

BudgetPlan solve_budget(std::span<const double> r, std::span<const double> c, double budget,
                        const QuotaTree* plans) {
  BudgetPlan result;
  if (plans && plans->fault().found) return result;
  Budget oracle(r, c, budget, plans);
  if (plans)
    oracle.oracle(0, 1);
  else
    oracle.plan.clear();
  if (oracle.cost > budget || budget < 0) return result;
  const auto keep = [&] {
    result.chosen = oracle.plan;
    result.value = oracle.value;
    result.cost = oracle.cost;
  };
  keep();  // the cheapest plan
  oracle.oracle(1, 0);
  result.bound = oracle.value;
  if (oracle.cost <= budget) {
    keep();
  } else {
    // The price at which the oracle first keeps the budget lies between low and high.
    double low = 0, high = 1;
    const auto costs_too_much = [&](double price) {
      oracle.oracle(1, price);
      result.bound = std::min(result.bound, oracle.value + price * (budget - oracle.cost));
      if (oracle.cost > budget) return true;
      if (oracle.value >= result.value) keep();
      return false;
    };
    for (int i = 0; i < kHalvings && costs_too_much(high); ++i) {
      low = high;
      high *= 4;
    }
    for (int i = 0; i < kHalvings && high - low > 1e-14 * high; ++i) {
      const double middle = 0.5 * (low + high);
      (costs_too_much(middle) ? low : high) = middle;
    }
    result.price = high;
    oracle.repair(result.chosen, result.value, result.cost);
  }
  std::sort(result.chosen.begin(), result.chosen.end());
  result.bound = std::max(result.bound, result.value);
  result.gap = relative_gap(result.value, result.bound);
  result.status = status_of(result.value, result.bound);
  return result;
}

}  // namespace topreach::kernels
