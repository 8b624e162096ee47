#include "ranker.h"

#include <ATen/core/grad_mode.h>

#include "distributions/count_distribution.h"
#include "ops/ratio_ranking.h"
#include "require.h"

namespace topreach {

namespace {

using Model = std::variant<EmpiricalBayesRates, NegBinMixedEffects, NormalMixture, PoissonMixture,
                           LinearScorer, MLPScorer>;

const c10::IValue& config_value(const ModelFile& file, const std::string& name) {
  for (const auto& [key, value] : file.config) {
    if (key == name) return value;
  }
  TR_REQUIRE(false, "Ranker: config of {} must have '{}', got none", file.model, name);
}

int64_t config_int(const ModelFile& file, const std::string& name) {
  const c10::IValue& value = config_value(file, name);
  TR_REQUIRE(value.isInt(), "Ranker: config.{} must be a whole number", name);
  return value.toInt();
}

std::string config_text(const ModelFile& file, const std::string& name) {
  const c10::IValue& value = config_value(file, name);
  TR_REQUIRE(value.isString(), "Ranker: config.{} must be a string", name);
  return value.toStringRef();
}

double config_number(const ModelFile& file, const std::string& name) {
  const c10::IValue& value = config_value(file, name);
  TR_REQUIRE(value.isDouble() || value.isInt(), "Ranker: config.{} must be a number", name);
  return value.isInt() ? double(value.toInt()) : value.toDouble();
}

bool config_has(const ModelFile& file, const std::string& name) {
  for (const auto& [key, value] : file.config) {
    if (key == name) return true;
  }
  return false;
}

// Files from before there were families name neither.
std::string config_family(const ModelFile& file) {
  return config_has(file, "family") ? config_text(file, "family") : "nb1";
}

bool config_zero_inflation(const ModelFile& file) {
  if (!config_has(file, "zero_inflation")) return false;
  const c10::IValue& value = config_value(file, "zero_inflation");
  TR_REQUIRE(value.isBool(), "Ranker: config.zero_inflation must be true or false");
  return value.toBool();
}

// Absent for a model without paths.
std::optional<std::string> config_site_path(const ModelFile& file) {
  if (!config_has(file, "site_path")) return std::nullopt;
  return config_text(file, "site_path");
}

std::vector<double> config_numbers(const ModelFile& file, const std::string& name) {
  const c10::IValue& value = config_value(file, name);
  TR_REQUIRE(value.isList(), "Ranker: config.{} must be a list", name);
  std::vector<double> numbers;
  for (const auto& item : value.toListRef()) {
    TR_REQUIRE(item.isDouble() || item.isInt(), "Ranker: config.{} must be a list of numbers",
               name);
    numbers.push_back(item.isInt() ? double(item.toInt()) : item.toDouble());
  }
  return numbers;
}

Model make_model(const ModelFile& file) {
  if (file.model == "EmpiricalBayesRates") {
    TR_REQUIRE(
        file.site_history && file.site_history->half_lives == config_numbers(file, "half_lives"),
        "Ranker: site_history must be given for EmpiricalBayesRates, with its "
        "half_lives");
    return EmpiricalBayesRates(config_numbers(file, "half_lives"), config_int(file, "num_features"),
                               config_numbers(file, "support"));
  }
  if (file.model == "NegBinMixedEffects") {
    return NegBinMixedEffects(
        config_int(file, "num_sites"), config_int(file, "num_features"),
        NegBinMixedEffectsOptions{config_text(file, "link"), config_text(file, "penalty"),
                                  config_number(file, "initial_mean"), config_family(file),
                                  config_zero_inflation(file), config_site_path(file)});
  }
  if (file.model == "NormalMixture" || file.model == "PoissonMixture") {
    const int64_t sites = config_int(file, "num_sites"),
                  components = config_int(file, "num_components");
    const MixtureOptions options{.low = config_number(file, "low"),
                                 .high = config_number(file, "high")};
    if (file.model == "NormalMixture") return NormalMixture(sites, components, options);
    return PoissonMixture(sites, components, options);
  }
  if (file.model == "LinearScorer")
    return LinearScorer(config_int(file, "window"), config_int(file, "num_features"));
  TR_REQUIRE(file.model == "MLPScorer",
             "Ranker: model must be EmpiricalBayesRates, NegBinMixedEffects, "
             "NormalMixture, PoissonMixture, LinearScorer or MLPScorer, got {}",
             file.model);
  const c10::IValue& hidden = config_value(file, "hidden");
  TR_REQUIRE(hidden.isList(), "Ranker: config.hidden must be a list");
  std::vector<int64_t> units;
  for (const auto& item : hidden.toListRef()) {
    TR_REQUIRE(item.isInt(), "Ranker: config.hidden must be a list of whole numbers");
    units.push_back(item.toInt());
  }
  return MLPScorer(config_int(file, "window"), config_int(file, "num_features"), units);
}

std::shared_ptr<torch::nn::Module> module_of(const Model& model) {
  return std::visit(
      [](const auto& holder) -> std::shared_ptr<torch::nn::Module> { return holder.ptr(); }, model);
}

// Parameters, and the path of a fit, which is as long as its periods were many.
void load_state(const Model& model, const ModelFile& file) {
  torch::NoGradGuard no_grad;
  torch::nn::Module& module = *module_of(model);
  auto parameters = module.named_parameters();
  const size_t wanted = parameters.size() + module.named_buffers().size();
  TR_REQUIRE(wanted == file.state.size(), "Ranker: state of {} must have {} tensors, got {}",
             file.model, wanted, file.state.size());
  if (!file.state.empty()) module.to(file.state.front().second.scalar_type());
  torch::Tensor path_time, path_effect;
  for (const auto& [name, value] : file.state) {
    if (module.named_buffers().contains(name)) {
      (name == "path_time" ? path_time : path_effect) = value;
      continue;
    }
    torch::Tensor* parameter = parameters.find(name);
    TR_REQUIRE(parameter, "Ranker: state must hold the parameters of {}, got '{}'", file.model,
               name);
    TR_REQUIRE(parameter->sizes() == value.sizes(), "Ranker: state.{} must have shape {}, got {}",
               name, parameter->sizes(), value.sizes());
    parameter->copy_(value);
  }
  if (path_time.defined() && path_effect.defined())
    NegBinMixedEffects(std::get<NegBinMixedEffects>(model))->set_path(path_time, path_effect);
}

}  // namespace

Ranker Ranker::load(const std::string& path) { return Ranker(load_model_file(path)); }

Ranker::Ranker(ModelFile file) : file_(std::move(file)), model_(make_model(file_)) {
  load_state(model_, file_);
  module_of(model_)->eval();
  const bool score = file_.ranking == "score";
  TR_REQUIRE(score != is_probabilistic(), "Ranker: ranking must be {} for {}, got '{}'",
             is_probabilistic() ? "'exact', 'ratio' or 'mean'" : "'score'", file_.model,
             file_.ranking);
  if (config_has(file_, "num_sites")) {
    const int64_t sites = config_int(file_, "num_sites");
    TR_REQUIRE(int64_t(file_.site_ids.size()) == sites,
               "Ranker: site_ids must have one name per site, S = {}, got {}", sites,
               file_.site_ids.size());
  }
  TR_REQUIRE(!uses_exposure() || std::holds_alternative<NegBinMixedEffects>(model_),
             "Ranker: uses_exposure must be false for {}, got true", file_.model);
  TR_REQUIRE(!config_has(file_, "num_features") || config_int(file_, "num_features") == 0 ||
                 config_int(file_, "num_features") == int64_t(file_.standardizer.kept.size()),
             "Ranker: standardizer must keep the features of the model, {}, got {}",
             config_int(file_, "num_features"), file_.standardizer.kept.size());
}

void Ranker::save(const std::string& path) const {
  ModelFile file = file_;
  file.state.clear();
  const auto module = module_of(model_);
  for (const auto& items : {module->named_parameters(), module->named_buffers()})
    for (const auto& item : items)
      file.state.emplace_back(item.key(), item.value().detach().cpu().clone());
  save_model_file(file, path);
}

bool Ranker::is_probabilistic() const {
  return !std::holds_alternative<LinearScorer>(model_) &&
         !std::holds_alternative<MLPScorer>(model_);
}

torch::Tensor Ranker::features(const char* function, const torch::Tensor& x) const {
  const int64_t columns = int64_t(feature_names().size());
  TR_REQUIRE(x.dim() == 2 && x.size(1) == columns,
             "{}: x must have shape [S, P] with the P = {} features of training, "
             "got {}",
             function, columns, x.sizes());
  TR_REQUIRE(!is_probabilistic() || x.size(0) == int64_t(site_ids().size()),
             "{}: x must have one row per site of training, S = {}, in the order of "
             "site_ids(), got {}",
             function, site_ids().size(), x.sizes());
  // In the model's dtype, with a leading dimension of one period.
  return file_.standardizer.transform(x)
      .to(module_of(model_)->parameters().front().scalar_type())
      .unsqueeze(0);
}

CountDistribution Ranker::predict(const char* function, const torch::Tensor& x, double time,
                                  const std::optional<torch::Tensor>& history,
                                  const std::optional<torch::Tensor>& exposure) const {
  const torch::Tensor standardised = features(function, x);
  if (const auto* rates = std::get_if<EmpiricalBayesRates>(&model_)) {
    TR_REQUIRE(!history || (history->dim() == 2 && history->size(0) == x.size(0)),
               "{}: history must have shape [S, N] with S = {}, got {}", function, x.size(0),
               history->sizes());
    const torch::Tensor past = history ? history->t() : file_.site_history->counts;
    const torch::Tensor statistics =
        file_.site_history->statistics(past).to(standardised.scalar_type()).unsqueeze(0);
    return EmpiricalBayesRates(*rates)->forward(torch::cat({statistics, standardised}, -1));
  }
  const torch::Tensor t =
      torch::full({1}, (time - file_.time_origin) / file_.time_scale, torch::kDouble)
          .to(torch::kFloat)
          .to(standardised.scalar_type());
  if (const auto* mixture = std::get_if<NormalMixture>(&model_))
    return NormalMixture(*mixture)->forward(t);
  if (const auto* mixture = std::get_if<PoissonMixture>(&model_))
    return PoissonMixture(*mixture)->forward(t);
  std::optional<torch::Tensor> people;
  if (exposure) people = exposure->to(torch::kFloat).to(standardised.scalar_type()).unsqueeze(0);
  return NegBinMixedEffects(std::get<NegBinMixedEffects>(model_))
      ->distribution(standardised, t, people);
}

void Ranker::check_exposure(const char* function, const torch::Tensor& x,
                            const std::optional<torch::Tensor>& exposure) const {
  TR_REQUIRE(exposure.has_value() == uses_exposure(), "{}: exposure must be {}", function,
             uses_exposure() ? "given [S], for the model was fitted to counts per exposure, "
                               "got none"
                             : "absent, for the model was fitted without, got one");
  if (!exposure) return;
  TR_REQUIRE(exposure->dim() == 1 && x.dim() == 2 && exposure->size(0) == x.size(0),
             "{}: exposure must have shape [S], one number per row of x {}, got {}", function,
             x.sizes(), exposure->sizes());
  const torch::Tensor bad = exposure->gt(0).logical_and(exposure->isfinite()).logical_not();
  TR_REQUIRE(!bad.any().item<bool>(), "{}: exposure must be finite and > 0, got {}", function,
             exposure->index({bad})[0].item<double>());
}

torch::Tensor Ranker::score_sites(const torch::Tensor& x, double time,
                                  const std::optional<torch::Tensor>& history,
                                  const std::optional<torch::Tensor>& exposure) const {
  constexpr const char* name = "Ranker::score_sites";
  torch::NoGradGuard no_grad;
  check_exposure(name, x, exposure);
  if (is_probabilistic()) {
    const CountDistribution counts = predict(name, x, time, history, exposure);
    if (file_.ranking == "mean") return counts.mean().select(0, 0);
    if (file_.ranking == "exact") return expected_ratio_ranking(counts).select(0, 0);
    return ratio_ranking(counts.sample(file_.model_samples, {.key = file_.key}).select(1, 0));
  }
  const torch::Tensor standardised = features(name, x);
  TR_REQUIRE(window() == 0 || history.has_value(),
             "{}: history must be given, the counts [S, {}] of the periods before", name, window());
  if (history) {
    TR_REQUIRE(history->dim() == 2 && history->size(0) == x.size(0) && history->size(1) == window(),
               "{}: history must have shape [S, W] = [{}, {}], got {}", name, x.size(0), window(),
               history->sizes());
  }
  const torch::Tensor past = history ? history->to(standardised.scalar_type()).unsqueeze(0)
                                     : torch::zeros({1, x.size(0), 0}, standardised.options());
  if (const auto* linear = std::get_if<LinearScorer>(&model_))
    return LinearScorer(*linear)->forward(past, standardised).select(0, 0);
  return MLPScorer(std::get<MLPScorer>(model_))->forward(past, standardised).select(0, 0);
}

torch::Tensor Ranker::expected_counts(const torch::Tensor& x, double time,
                                      const std::optional<torch::Tensor>& history,
                                      const std::optional<torch::Tensor>& exposure) const {
  TR_REQUIRE(is_probabilistic(),
             "Ranker::expected_counts: the model must predict counts, got {}, which "
             "gives scores only",
             file_.model);
  torch::NoGradGuard no_grad;
  check_exposure("Ranker::expected_counts", x, exposure);
  return predict("Ranker::expected_counts", x, time, history, exposure).mean().select(0, 0);
}

std::vector<RankedSite> Ranker::rank(const torch::Tensor& x, double time,
                                     const std::optional<torch::Tensor>& history,
                                     std::optional<int64_t> k,
                                     const std::vector<std::string>& site_ids,
                                     const std::optional<torch::Tensor>& exposure) const {
  const torch::Tensor scores = score_sites(x, time, history, exposure).to(torch::kDouble);
  const std::vector<std::string>& names = site_ids.empty() ? file_.site_ids : site_ids;
  const int64_t wanted = k.value_or(file_.k), sites = scores.size(0);
  TR_REQUIRE(int64_t(names.size()) == sites,
             "Ranker::rank: site_ids must name the S = {} rows of x, got {} names", sites,
             names.size());
  TR_REQUIRE(wanted >= 1 && wanted <= sites, "Ranker::rank: k must be between 1 and S = {}, got {}",
             sites, wanted);
  const torch::Tensor order = std::get<1>(scores.sort(/*stable=*/true, 0, /*descending=*/true));
  torch::Tensor counts;
  if (is_probabilistic()) counts = expected_counts(x, time, history, exposure);
  std::vector<RankedSite> result;
  for (int64_t i = 0; i < wanted; ++i) {
    const int64_t at = order[i].item<int64_t>();
    result.push_back(
        {names[size_t(at)], at, scores[at].item<double>(),
         counts.defined() ? std::optional<double>(counts[at].item<double>()) : std::nullopt});
  }
  return result;
}

}  // namespace topreach
