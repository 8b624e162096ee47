#include "forecaster.h"

#include <algorithm>
#include <optional>

#include "../require.h"
#include "empirical_bayes_rates.h"
#include "linear_scorer.h"
#include "mlp_scorer.h"
#include "negbin_mixed_effects.h"
#include "normal_mixture.h"
#include "poisson_mixture.h"
#include "stemmed.h"

namespace topreach {

CountDistribution Forecaster::forecast(const ForecastInputs&) const {
  TR_REQUIRE_TYPE(false, "{}: the model must predict counts, got one that gives scores only",
                  name());
}

torch::Tensor Forecaster::scores(const ForecastInputs&) const {
  TR_REQUIRE_TYPE(false, "{}: the model must give scores, got one that predicts counts", name());
}

namespace {

// ---- the constructor's arguments in a file ------------------------------------------------------

class Config {
 public:
  explicit Config(const ModelFile& file) : file_(file) {}

  const c10::IValue* find(const std::string& name) const {
    for (const auto& [key, value] : file_.config)
      if (key == name) return &value;
    return nullptr;
  }
  const c10::IValue& at(const std::string& name) const {
    const c10::IValue* value = find(name);
    TR_REQUIRE(value != nullptr, "Ranker: config of {} must have '{}', got none", file_.model,
               name);
    return *value;
  }
  int64_t integer(const std::string& name) const {
    const c10::IValue& value = at(name);
    TR_REQUIRE(value.isInt(), "Ranker: config.{} must be a whole number, got {}", name,
               value.tagKind());
    return value.toInt();
  }
  double number(const std::string& name) const { return as_number(name, at(name)); }
  std::string text(const std::string& name) const {
    const c10::IValue& value = at(name);
    TR_REQUIRE(value.isString(), "Ranker: config.{} must be a string, got {}", name,
               value.tagKind());
    return value.toStringRef();
  }
  bool boolean(const std::string& name) const {
    const c10::IValue& value = at(name);
    TR_REQUIRE(value.isBool(), "Ranker: config.{} must be true or false, got {}", name,
               value.tagKind());
    return value.toBool();
  }
  // Empty if absent or None.
  std::optional<std::string> optional_text(const std::string& name) const {
    const c10::IValue* value = find(name);
    if (value == nullptr || value->isNone()) return std::nullopt;
    return text(name);
  }
  std::vector<double> numbers(const std::string& name) const {
    const c10::IValue& value = at(name);
    TR_REQUIRE(value.isList(), "Ranker: config.{} must be a list, got {}", name, value.tagKind());
    std::vector<double> result;
    for (const auto& item : value.toListRef()) result.push_back(as_number(name, item));
    return result;
  }

 private:
  static double as_number(const std::string& name, const c10::IValue& value) {
    TR_REQUIRE(value.isDouble() || value.isInt(), "Ranker: config.{} must hold numbers, got {}",
               name, value.tagKind());
    return value.isInt() ? double(value.toInt()) : value.toDouble();
  }
  const ModelFile& file_;
};

// Copies the file's tensors into the module's parameters and buffers; a buffer takes its shape from the file.
void load_state(torch::nn::Module& module, const ModelFile& file) {
  torch::NoGradGuard no_grad;
  auto parameters = module.named_parameters();
  auto buffers = module.named_buffers();
  const size_t wanted = parameters.size() + buffers.size();
  TR_REQUIRE(wanted == file.state.size(), "Ranker: state of {} must have {} tensors, got {}",
             file.model, wanted, file.state.size());
  if (!file.state.empty()) module.to(file.state.front().second.scalar_type());
  for (const auto& [name, value] : file.state) {
    if (torch::Tensor* buffer = buffers.find(name)) {
      buffer->set_data(value.to(buffer->scalar_type()).clone());
      continue;
    }
    torch::Tensor* parameter = parameters.find(name);
    TR_REQUIRE(parameter, "Ranker: state must hold the parameters of {}, got '{}'", file.model,
               name);
    TR_REQUIRE(parameter->sizes() == value.sizes(), "Ranker: state.{} must have shape {}, got {}",
               name, parameter->sizes(), value.sizes());
    parameter->copy_(value);
  }
}

// A module of the library with its forward as a forecast or as scores.
class BuiltForecaster : public Forecaster {
 public:
  using Forecast = std::function<CountDistribution(const ForecastInputs&)>;
  using Scores = std::function<torch::Tensor(const ForecastInputs&)>;

  template <typename Holder>
  BuiltForecaster(const ModelFile& file, torch::Device device, Needs needs, Holder module,
                  Forecast forecast, Scores scores)
      : name_(file.model),
        needs_(needs),
        forecast_(std::move(forecast)),
        scores_(std::move(scores)) {
    load_state(*module, file);
    module->to(device);
    module->eval();
  }

  std::string name() const override { return name_; }
  Needs needs() const override { return needs_; }
  CountDistribution forecast(const ForecastInputs& inputs) const override {
    return forecast_ ? forecast_(inputs) : Forecaster::forecast(inputs);
  }
  torch::Tensor scores(const ForecastInputs& inputs) const override {
    return scores_ ? scores_(inputs) : Forecaster::scores(inputs);
  }

 private:
  std::string name_;
  Needs needs_;
  Forecast forecast_;
  Scores scores_;
};

void check_sizes(const ModelFile& file, std::optional<int64_t> sites,
                 std::optional<int64_t> features) {
  TR_REQUIRE(!sites || *sites == int64_t(file.site_ids.size()),
             "Ranker: site_ids must have one name per site, S = {}, got {}", *sites,
             file.site_ids.size());
  const int64_t kept = int64_t(file.standardizer.kept.size());
  TR_REQUIRE(!features || *features == kept || *features == 0,
             "Ranker: standardizer must keep the features of the model, {}, got {}", *features,
             kept);
}

ForecasterPtr load_rates(const ModelFile& file, torch::Device device, const Needs& needs) {
  const Config config(file);
  const std::vector<double> half_lives = config.numbers("half_lives");
  TR_REQUIRE(file.site_history && file.site_history->half_lives == half_lives,
             "Ranker: site_history must be given for EmpiricalBayesRates, with its half_lives");
  TR_REQUIRE((file.site_history->mean_exposure > 0) == file.uses_exposure,
             "Ranker: uses_exposure must be true for a site_history with exposure, and only then");
  check_sizes(file, std::nullopt, config.integer("num_features"));
  EmpiricalBayesRates model(half_lives, config.integer("num_features"), config.numbers("support"));
  const SiteHistory history = *file.site_history;
  return std::make_shared<BuiltForecaster>(
      file, device, needs, model,
      [model, history](const ForecastInputs& in) mutable {
        std::optional<torch::Tensor> past, now;
        if (history.mean_exposure > 0) past = in.timeline_exposure, now = in.exposure.cpu();
        const torch::Tensor statistics = history.statistics(in.timeline, in.rows, past, now);
        return CountDistribution(model->forward(
            torch::cat({statistics.to(in.x.device(), in.x.scalar_type()), in.x}, -1)));
      },
      nullptr);
}

ForecasterPtr load_negbin(const ModelFile& file, torch::Device device, const Needs& needs) {
  const Config config(file);
  check_sizes(file, config.integer("num_sites"), config.integer("num_features"));
  NegBinMixedEffectsOptions options;
  options.link = config.text("link");
  options.penalty = config.text("penalty");
  options.initial_mean = config.number("initial_mean");
  options.family = config.text("family");
  options.zero_inflation = config.boolean("zero_inflation");
  options.site_path = config.optional_text("site_path");
  options.site_slopes = config.text("site_slopes");
  options.slope_damping = config.number("slope_damping");
  if (config.find("slope_until") != nullptr) {  // of a fitted model
    options.slope_until = config.number("slope_until");
    options.slope_period = config.number("slope_period");
  }
  NegBinMixedEffects model(config.integer("num_sites"), config.integer("num_features"), options);
  auto forecaster = std::make_shared<BuiltForecaster>(
      file, device, needs, model,
      [model](const ForecastInputs& in) mutable {
        std::optional<torch::Tensor> exposure;
        if (in.exposure.defined()) exposure = in.exposure;
        return model->distribution(in.x, in.time, exposure);
      },
      nullptr);
  if (options.site_path) model->set_path(model->path_time, model->path_effect);  // checks it
  return forecaster;
}

template <typename Mixture>
ForecasterPtr load_mixture(const ModelFile& file, torch::Device device, const Needs& needs) {
  const Config config(file);
  check_sizes(file, config.integer("num_sites"), std::nullopt);
  Mixture model(config.integer("num_sites"), config.integer("num_components"),
                MixtureOptions{.low = config.number("low"), .high = config.number("high")});
  return std::make_shared<BuiltForecaster>(
      file, device, needs, model,
      [model](const ForecastInputs& in) mutable {
        return CountDistribution(model->forward(in.time));
      },
      nullptr);
}

template <typename Scorer, typename... Arguments>
ForecasterPtr load_scorer(const ModelFile& file, torch::Device device, Needs needs,
                          const Arguments&... arguments) {
  const Config config(file);
  needs.window = config.integer("window");
  check_sizes(file, std::nullopt, config.integer("num_features"));
  Scorer model(needs.window, config.integer("num_features"), arguments...);
  return std::make_shared<BuiltForecaster>(
      file, device, needs, model, nullptr,
      [model](const ForecastInputs& in) mutable { return model->forward(in.history, in.x); });
}

ForecasterPtr load_mlp(const ModelFile& file, torch::Device device, const Needs& needs) {
  std::vector<int64_t> hidden;
  for (const double units : Config(file).numbers("hidden")) hidden.push_back(int64_t(units));
  return load_scorer<MLPScorer>(file, device, needs, hidden);
}

ForecasterPtr load_stemmed(const ModelFile& file, torch::Device device, const Needs& needs) {
  check_sizes(file, std::nullopt, std::nullopt);
  TR_REQUIRE(
      !file.past.times.empty(),
      "Ranker: past must be in the file of a Stemmed model, got none. Save it with its past");
  Stemmed model;
  auto forecaster = std::make_shared<BuiltForecaster>(
      file, device, needs, model,
      [model, calendar = file.calendar,
       last = file.past.times.back()](const ForecastInputs& in) mutable {
        const int64_t known = model->known.item<int64_t>();
        const int64_t rows = in.timeline.size(0);
        TR_REQUIRE(rows >= known, "Stemmed: past must have the {} periods of the fit, got {}",
                   known, rows);
        TR_REQUIRE(
            in.timeline.narrow(0, known, rows - known).isnan().all().item<bool>(),
            "Stemmed: a table must add no counts, for the model learns from dated events, got "
            "counts of periods after the {} that it knows. Fit it to the events up to now",
            known);
        std::vector<torch::Tensor> totals, logits;
        for (const int64_t row : in.rows) {
          TR_REQUIRE(
              row >= known,
              "Stemmed: a plan must be for a period after those that the model learned from, "
              "got one that lies {} period(s) before its end",
              known - row);
          const NegativeBinomial counts = model->forward(
              {calendar.next(last, row - known + 1), calendar.next(last, row - known + 2)});
          totals.push_back(counts.total_count);
          logits.push_back(counts.logits);
        }
        return CountDistribution(NegativeBinomial{torch::cat(totals), torch::cat(logits)});
      },
      nullptr);
  model->check(int64_t(file.site_ids.size()));
  return forecaster;
}

std::vector<ForecasterKind> built_in() {
  std::vector<ForecasterKind> kinds;
  const auto add = [&](const char* name, const char* short_name, const char* summary, Needs needs,
                       ForecasterPtr (*load)(const ModelFile&, torch::Device, const Needs&)) {
    kinds.push_back({name, short_name, summary, needs,
                     [needs, load](const ModelFile& file, torch::Device device) {
                       return load(file, device, needs);
                     }});
  };
  add("EmpiricalBayesRates", "empirical_bayes",
      "each site's long memory, shrunk towards its neighbours and a prior learnt from all sites",
      {.past = true, .exposure = true}, load_rates);
  add("NegBinMixedEffects", "negbin",
      "regression of counts on features and time with effects of each site",
      {.time = true, .exposure = true, .suppressed = true}, load_negbin);
  add("LinearScorer", "linear", "a linear score of the last counts and the features",
      {.window = 1, .sites = false, .counts = false},
      [](const ModelFile& file, torch::Device device, const Needs& needs) {
        return load_scorer<LinearScorer>(file, device, needs);
      });
  add("MLPScorer", "mlp", "a multi-layer perceptron's score of the last counts and the features",
      {.window = 1, .sites = false, .counts = false}, load_mlp);
  add("NormalMixture", "normal_mixture", "the same counts in every period: truncated normals",
      {.features = false, .time = true}, load_mixture<NormalMixture>);
  add("PoissonMixture", "poisson_mixture", "the same counts in every period: Poissons",
      {.features = false, .time = true, .suppressed = true}, load_mixture<PoissonMixture>);
  add("Stemmed", "stemmed", "a networked point process of dated events: each makes others likelier",
      {.features = false, .past = true, .events = true}, load_stemmed);
  return kinds;
}

std::vector<ForecasterKind>& registry() {
  static std::vector<ForecasterKind> kinds = built_in();
  return kinds;
}

}  // namespace

const std::vector<ForecasterKind>& forecaster_registry() { return registry(); }

void register_forecaster(ForecasterKind kind) {
  for (const ForecasterKind& known : registry()) {
    TR_REQUIRE(known.name != kind.name && known.short_name != kind.short_name,
               "register_forecaster: name and short_name must be new, got '{}' and '{}'", kind.name,
               kind.short_name);
  }
  registry().push_back(std::move(kind));
}

ForecasterPtr load_forecaster(const ModelFile& file, torch::Device device) {
  std::string names;
  for (const ForecasterKind& kind : registry()) {
    if (kind.name == file.model) return kind.load(file, device);
    names += (names.empty() ? "" : ", ") + kind.name;
  }
  TR_REQUIRE(false, "Ranker: model must be one of {}, got {}", names, file.model);
}

}  // namespace topreach
