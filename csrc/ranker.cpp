#include "ranker.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "io/model_file_format.h"
#include "ops/key.h"
#include "ops/ratio_ranking.h"
#include "require.h"

namespace topreach {

namespace {

constexpr int64_t kDrawsAtOnce = 64;    // draws in a block; each block has its own key
constexpr double kSurprise = 1.5;       // a total this many times above or below the past is noted
constexpr int64_t kRecentPeriods = 12;  // the past that a forecast's total is compared with
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// Calls use(draws [m, 1, S]) for M draws in blocks. The draws do not depend on the available memory.
template <typename Use>
void for_each_draw(const CountDistribution& counts, int64_t num_samples, const torch::Tensor& key,
                   const Use& use) {
  for (int64_t first = 0, block = 0; first < num_samples; first += kDrawsAtOnce, ++block) {
    const int64_t size = std::min(kDrawsAtOnce, num_samples - first);
    use(counts.sample(size, {.key = derived_key(key, block + 1)}));
  }
}

std::string whole(double value) { return fmt::format("{:.0f}", value); }

// The note on a plan that is not proved to be the best.
std::string status_note(const Plan& plan, const std::string& period) {
  if (plan.gap)
    return fmt::format("the plan for {} is '{}': the best one is better by {:.3g} % at most",
                       period, plan.status, 100 * *plan.gap);
  return fmt::format("the plan for {} is '{}': how far it is from the best one is not known",
                     period, plan.status);
}

}  // namespace

Ranker Ranker::load(const std::string& path, torch::Device device) {
  return Ranker(load_model_file(path), device);
}

Ranker::Ranker(ModelFile file, torch::Device device, ForecasterPtr forecaster, ProgramPtr program)
    : device_(device),
      own_forecaster_(forecaster != nullptr),
      own_program_(program != nullptr) {
  check_model_file("Ranker", file, own_program_);
  file_ = std::make_shared<const ModelFile>(std::move(file));
  forecaster_ = forecaster ? std::move(forecaster) : load_forecaster(*file_, device);
  program_ = program ? std::move(program) : make_program(file_->program, file_->program_config);
  if (ProgramPtr ordered = program_->for_sites("Ranker", file_->site_ids))
    program_ = std::move(ordered);
  needs_ = forecaster_->needs();
  const bool scores = file_->ranking == "score";
  TR_REQUIRE(scores != needs_.counts, "Ranker: ranking must be {} for {}, got '{}'",
             needs_.counts ? "'exact', 'ratio' or 'mean'" : "'score'", file_->model,
             file_->ranking);
  TR_REQUIRE(!file_->uses_exposure || needs_.exposure,
             "Ranker: uses_exposure must be false for {}, got true", file_->model);
  program_->check("Ranker", int64_t(file_->site_ids.size()));
}

Ranker Ranker::to(torch::Device device) const {
  return Ranker(*file_, device, own_forecaster_ ? forecaster_ : nullptr,
                own_program_ ? program_ : nullptr);
}

Ranker Ranker::with_program(ProgramPtr program) const {
  TR_REQUIRE(program != nullptr, "Ranker::with_program: program must be given, got none");
  if (ProgramPtr ordered = program->for_sites("Ranker::with_program", site_ids()))
    program = std::move(ordered);
  program->check("Ranker::with_program", int64_t(site_ids().size()));
  Ranker other = *this;
  other.program_ = std::move(program);
  // The file names a program of the library, but not one written by the user.
  try {
    make_program(other.program_->name(), other.program_->config());
    ModelFile file = *file_;
    file.program = other.program_->name();
    file.program_config = other.program_->config();
    file.digest.clear();
    other.file_ = std::make_shared<const ModelFile>(std::move(file));
    other.own_program_ = false;
  } catch (const c10::ValueError&) {
    other.own_program_ = true;
  }
  return other;
}

Ranker Ranker::with_table(std::vector<std::pair<std::string, std::string>> table) const {
  Ranker other = *this;
  ModelFile file = *file_;
  file.table = std::move(table);
  file.digest.clear();
  other.file_ = std::make_shared<const ModelFile>(std::move(file));
  return other;
}

ModelFile Ranker::file(bool with_past) const {
  ModelFile file = *file_;
  if (!with_past) file.past = {};
  return file;
}

void Ranker::save(const std::string& path, bool with_past) const {
  TR_REQUIRE_TYPE(
      !own_forecaster_,
      "Ranker::save: the model must be one of the library's, got {}, which is written in Python "
      "or registered nowhere. Save it by torch.save(ranker.model_.state_dict(), path), or register "
      "it (docs/architecture.md).",
      file_->model);
  TR_REQUIRE_TYPE(!own_program_,
                  "Ranker::save: the program must be one of the library's, got {}, which is not",
                  program_->describe());
  TR_REQUIRE(with_past || !needs_.events,
             "Ranker::save: with_past must be true for {}, which plans for the periods after those "
             "that it knows, got false. Save it with its past",
             file_->model);
  save_model_file(file(with_past), path);
}

RankerInputs Ranker::inputs(const char* function, const Panel* table,
                            std::optional<int64_t> periods_ahead) const {
  return ranker_inputs(function, *file_, needs_, table, periods_ahead);
}

Plan Ranker::plan_next(int64_t periods_ahead) const {
  return plans(inputs("Ranker::plan_next", nullptr, periods_ahead)).front();
}

Plan Ranker::plan_next(const Panel& table, int64_t periods_ahead) const {
  return plans(inputs("Ranker::plan_next", &table, periods_ahead)).front();
}

std::vector<Plan> Ranker::plan(const Panel& table) const {
  return plans(inputs("Ranker::plan", &table, std::nullopt));
}

ForecastInputs Ranker::at_period(const RankerInputs& inputs, int64_t t) const {
  const auto row = [&](const torch::Tensor& value) {
    return value.defined() ? value.narrow(0, t, 1).to(device_) : value;
  };
  const ForecastInputs& all = inputs.model;
  ForecastInputs one{row(all.x),
                     row(all.time),
                     row(all.history),
                     row(all.exposure),
                     all.timeline,
                     all.timeline_exposure,
                     {}};
  if (!all.rows.empty()) one.rows = {all.rows[size_t(t)]};
  return one;
}

torch::Tensor Ranker::score_of(const CountDistribution& counts, const torch::Tensor& open) const {
  const bool some_shut = open.defined() && !open.all().item<bool>();
  if (some_shut && !open.any().item<bool>()) return torch::zeros(open.sizes(), device_);
  if (file_->ranking == "mean") return counts.mean().select(0, 0);
  if (file_->ranking == "exact") {
    std::optional<torch::Tensor> exact;
    if (!some_shut) {
      exact = counts.expected_ratio(0.0);
    } else {
      const torch::Tensor index = open.nonzero().flatten().to(device_);
      const std::optional<CountDistribution> part = counts.at_sites(index);
      if (part) exact = part->expected_ratio(0.0);
      if (exact) {
        const torch::Tensor all = torch::zeros({1, open.numel()}, exact->options());
        exact = all.index_copy(-1, index, *exact);
      }
    }
    TR_REQUIRE_TYPE(
        exact.has_value(),
        "Ranker: ranking must be 'ratio' or 'mean' for this forecast, got 'exact', which it "
        "does not have");
    return exact->select(0, 0);
  }
  torch::Tensor sum;
  for_each_draw(counts, file_->model_samples, file_->key.to(device_),
                [&](const torch::Tensor& draws) {
                  torch::Tensor y = draws.select(1, 0);
                  if (some_shut) y = y.masked_fill(open.logical_not().to(y.device()), 0);
                  const torch::Tensor part = ratio_ranking(y).to(torch::kDouble) * y.size(0);
                  sum = sum.defined() ? sum + part : part;
                });
  return (sum / double(file_->model_samples)).to(counts.mean().scalar_type());
}

torch::Tensor Ranker::scores(const RankerInputs& inputs) const {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> rows;
  for (int64_t t = 0; t < int64_t(inputs.times.size()); ++t) {
    const ForecastInputs one = at_period(inputs, t);
    torch::Tensor score = needs_.counts
                              ? score_of(forecaster_->forecast(one),
                                         inputs.open.defined() ? inputs.open[t] : torch::Tensor())
                              : forecaster_->scores(one).select(0, 0);
    const torch::Tensor bad = score.isnan();
    if (bad.any().item<bool>()) {
      TR_REQUIRE(
          false,
          "Ranker: scores must be numbers, got NaN for site '{}' in {}: the model was given, or "
          "holds, a value that is not finite",
          inputs.site_ids[size_t(bad.nonzero()[0].item<int64_t>())], inputs.periods[size_t(t)]);
    }
    if (inputs.open.defined())
      score = score.masked_fill(inputs.open[t].logical_not().to(score.device()), kMinusInfinity);
    rows.push_back(score);
  }
  return torch::stack(rows);
}

CountDistribution Ranker::forecast(const RankerInputs& inputs) const {
  torch::NoGradGuard no_grad;
  ForecastInputs all = inputs.model;
  for (torch::Tensor* value : {&all.x, &all.time, &all.history, &all.exposure})
    if (value->defined()) *value = value->to(device_);
  return forecaster_->forecast(all);
}

torch::Tensor Ranker::expected_counts(const RankerInputs& inputs) const {
  torch::NoGradGuard no_grad;
  torch::Tensor mean = forecast(inputs).mean();
  if (inputs.open.defined())
    mean = mean.masked_fill(inputs.open.logical_not().to(mean.device()), 0.0);
  return mean;
}

std::vector<Plan> Ranker::plans(const RankerInputs& inputs) const {
  torch::NoGradGuard no_grad;
  ProgramPtr program = program_->for_sites("Ranker", inputs.site_ids);
  if (!program) program = program_;
  program->check("Ranker", int64_t(inputs.site_ids.size()));
  std::vector<Plan> result;
  const torch::Tensor scores = this->scores(inputs);
  for (int64_t t = 0; t < int64_t(inputs.times.size()); ++t) {
    const size_t at = size_t(t);
    const torch::Tensor own = scores[t].to(torch::kCPU, torch::kDouble).contiguous();
    const torch::Tensor score = program->site_values(own).contiguous();
    const torch::Tensor shut =
        inputs.open.defined() ? inputs.open[t].logical_not() : torch::Tensor();
    torch::Tensor mean, chance;
    Plan plan;
    plan.notes = inputs.notes;
    if (needs_.counts) {
      const CountDistribution counts = forecaster_->forecast(at_period(inputs, t));
      mean = counts.mean().select(0, 0).to(torch::kCPU, torch::kDouble).contiguous();
      for_each_draw(counts, file_->model_samples, file_->key.to(device_),
                    [&](const torch::Tensor& draws) {
                      torch::Tensor y = draws.select(1, 0);
                      if (shut.defined()) {
                        if (!y.is_floating_point()) y = y.to(torch::kFloat);
                        y = y.masked_fill(shut.to(y.device()), kMinusInfinity);
                      }
                      const torch::Tensor part =
                          program->chance(y).to(torch::kCPU, torch::kDouble) * y.size(0);
                      chance = chance.defined() ? chance + part : part;
                    });
      chance = (chance / double(file_->model_samples)).contiguous();
      if (shut.defined()) {
        mean = mean.masked_fill(shut, 0.0);
        chance = chance.masked_fill(shut, 0.0);
      }
      torch::Tensor totals = inputs.past_totals.slice(
          0, std::max<int64_t>(0, inputs.past_totals.size(0) - kRecentPeriods));
      if (file_->uses_exposure) {  // what the periods known would have had at this one's exposure
        torch::Tensor exposure = inputs.model.exposure[t].to(torch::kCPU, torch::kDouble);
        if (shut.defined()) exposure = exposure.masked_fill(shut, 0.0);
        totals = totals * exposure.sum();
      }
      if (totals.numel() >= 2) {
        const double expected = mean.sum().item<double>(), high = totals.max().item<double>(),
                     low = totals.min().item<double>();
        if (expected > kSurprise * high + 1 || expected < low / kSurprise - 1) {
          plan.notes.push_back(
              fmt::format("the model expects {} in all for {}, where the periods known {} {} to "
                          "{}: look at it before you act on expected counts",
                          whole(expected), inputs.periods[at],
                          file_->uses_exposure ? "would have had at its exposure" : "had",
                          whole(low), whole(high)));
        }
      }
    }
    const Solution solution = program->solve(own);
    plan.value = solution.value;
    plan.bound = solution.bound;
    plan.gap = solution.gap;
    plan.status = solution.status;
    plan.notes.insert(plan.notes.end(), solution.notes.begin(), solution.notes.end());
    if (plan.status != "optimal") plan.notes.push_back(status_note(plan, inputs.periods[at]));
    const torch::Tensor order = std::get<1>(score.sort(/*stable=*/true, 0, /*descending=*/true));
    plan.time = inputs.times[at];
    plan.period = inputs.periods[at];
    plan.data_until = inputs.data_until[at];
    plan.periods_ahead = inputs.ahead[at];
    plan.learnt = inputs.learnt[at];
    plan.program = program->describe();
    plan.model = file_->model;
    plan.model_digest = file_->digest;
    const auto score_at = score.accessor<double, 1>();
    const auto order_at = order.accessor<int64_t, 1>();
    const auto best_at = solution.plan.to(torch::kCPU, torch::kDouble).contiguous();
    const auto chosen = best_at.accessor<double, 1>();
    for (int64_t i = 0; i < order.numel(); ++i) {
      const int64_t s = order_at[i];
      PlannedSite place{inputs.site_ids[size_t(s)],
                        s,
                        score_at[s],
                        std::nullopt,
                        std::nullopt,
                        i + 1,
                        chosen[s] > 0.5 && std::isfinite(score_at[s])};
      if (mean.defined()) place.expected_count = mean.accessor<double, 1>()[s];
      if (chance.defined()) place.chance_top_k = chance.accessor<double, 1>()[s];
      plan.sites.push_back(std::move(place));
    }
    const int64_t open = shut.defined() ? shut.logical_not().sum().item<int64_t>() : score.numel();
    if (shut.defined() && open < program->size())
      plan.notes.push_back(fmt::format(
          "{} site(s) only are open, fewer than the plan could hold ({})", open, program->size()));
    result.push_back(std::move(plan));
  }
  return result;
}

}  // namespace topreach
