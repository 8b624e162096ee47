// The objectives, for the classes of topreach.objectives. Each returns (loss, terms).
#include <pybind11/stl.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include "../objectives/decision_aware.h"
#include "../objectives/direct_bpr.h"
#include "../objectives/nll.h"
#include "../objectives/perturbation_gradient.h"
#include "../objectives/spo_plus.h"
#include "../ops/key.h"
#include "bind_forecast.h"
#include "module.h"

namespace py = pybind11;

namespace topreach::python {

namespace {

using torch::Tensor;
using Optional = std::optional<Tensor>;
using Result = std::pair<Tensor, std::map<std::string, Tensor>>;

Result result_of(ObjectiveValue value) { return {value.loss, std::move(value.terms)}; }

bool is_tensor(const py::object& output) { return THPVariable_Check(output.ptr()); }

}  // namespace

void bind_objectives(py::module_& m) {
  using namespace pybind11::literals;
  const RankingOptions ranking;
  const DirectBPROptions reach;
  const DecisionAwareOptions aware;
  const PerturbationGradientOptions pg;

  // The options, with the defaults that C++ has.
  py::class_<DirectBPROptions>(m, "ReachOptions")
      .def(py::init([](std::shared_ptr<Program> program, double sigma, int64_t num_samples,
                       int64_t model_samples, std::string ranking, std::string topk,
                       std::string estimator, std::string ranking_estimator, std::string noise,
                       double offset, Optional weights, Optional key,
                       std::optional<at::Generator> generator, Optional open,
                       std::string sigma_unit) {
             DirectBPROptions of{.program = ProgramOrK(program), .sigma = sigma};
             of.num_samples = num_samples, of.model_samples = model_samples;
             of.ranking = ranking, of.topk = topk, of.estimator = estimator;
             of.ranking_estimator = ranking_estimator, of.noise = noise, of.offset = offset;
             of.weights = weights, of.key = key, of.generator = generator, of.open = open;
             of.sigma_unit = sigma_unit;
             return of;
           }),
           "program"_a, py::kw_only(), "sigma"_a = reach.sigma, "num_samples"_a = reach.num_samples,
           "model_samples"_a = reach.model_samples, "ranking"_a = reach.ranking,
           "topk"_a = reach.topk, "estimator"_a = reach.estimator,
           "ranking_estimator"_a = reach.ranking_estimator, "noise"_a = reach.noise,
           "offset"_a = reach.offset, "weights"_a = std::nullopt, "key"_a = std::nullopt,
           "generator"_a = std::nullopt, "open"_a = std::nullopt,
           "sigma_unit"_a = reach.sigma_unit);
  py::class_<RankingOptions>(m, "RankingOptions")
      .def(py::init([](std::string name, int64_t model_samples, std::string ranking_estimator,
                       double offset, Optional key, std::optional<at::Generator> generator) {
             return RankingOptions{name, model_samples, ranking_estimator, offset, key, generator};
           }),
           py::kw_only(), "ranking"_a = ranking.ranking, "model_samples"_a = ranking.model_samples,
           "ranking_estimator"_a = ranking.ranking_estimator, "offset"_a = ranking.offset,
           "key"_a = std::nullopt, "generator"_a = std::nullopt);

  m.def(
      "nll",
      [](const py::object& output, const Tensor& y, const Optional& weights,
         const Optional& penalty, const Optional& y_upper) {
        return result_of(nll(to_distribution(output), y, weights, penalty, y_upper));
      },
      "output"_a, "y"_a, py::kw_only(), "weights"_a = std::nullopt, "penalty"_a = std::nullopt,
      "y_upper"_a = std::nullopt);
  m.def(
      "direct_bpr",
      [](const py::object& output, const Tensor& y, const DirectBPROptions& options) {
        return result_of(is_tensor(output) ? direct_bpr(output.cast<Tensor>(), y, options)
                                           : direct_bpr(to_distribution(output), y, options));
      },
      "output"_a, "y"_a, "options"_a);
  m.def(
      "decision_aware",
      [](const py::object& output, const Tensor& y, const DirectBPROptions& options, double epsilon,
         double weight, const Optional& penalty) {
        return result_of(
            decision_aware(to_distribution(output), y, {epsilon, weight, options}, penalty));
      },
      "output"_a, "y"_a, "options"_a, py::kw_only(), "epsilon"_a = aware.epsilon,
      "weight"_a = aware.weight, "penalty"_a = std::nullopt);
  m.def(
      "spo_plus",
      [](const py::object& output, const Tensor& y, std::shared_ptr<Program> program,
         const RankingOptions& of, const std::string& target, const Optional& weights,
         const Optional& open) {
        const SPOPlusOptions options{ProgramOrK(program), target, weights, open};
        return result_of(is_tensor(output) ? spo_plus(output.cast<Tensor>(), y, options)
                                           : spo_plus(to_distribution(output), y, options, of));
      },
      "output"_a, "y"_a, "program"_a, "ranking"_a = ranking, py::kw_only(), "target"_a = pg.target,
      "weights"_a = std::nullopt, "open"_a = std::nullopt);
  m.def(
      "perturbation_gradient",
      [](const py::object& output, const Tensor& y, std::shared_ptr<Program> program,
         const RankingOptions& of, double sigma, bool two_sides, const std::string& target,
         const Optional& weights, const Optional& open) {
        const PerturbationGradientOptions options{
            ProgramOrK(program), sigma, two_sides, target, weights, open};
        return result_of(is_tensor(output)
                             ? perturbation_gradient(output.cast<Tensor>(), y, options)
                             : perturbation_gradient(to_distribution(output), y, options, of));
      },
      "output"_a, "y"_a, "program"_a, "ranking"_a = ranking, py::kw_only(), "sigma"_a = pg.sigma,
      "two_sides"_a = pg.two_sides, "target"_a = pg.target, "weights"_a = std::nullopt,
      "open"_a = std::nullopt);
  m.def(
      "resolved_ranking",
      [](const std::string& function, const std::string& name, const py::object& output) {
        return resolved_ranking(function.c_str(), name, to_distribution(output));
      },
      "function"_a, "ranking"_a, "forecast"_a);
  m.def(
      "ranking_scores",
      [](const std::string& function, const py::object& output, const RankingOptions& options) {
        return ranking_scores(function.c_str(), to_distribution(output), options);
      },
      "function"_a, "forecast"_a, "options"_a);
  m.def("derived_key", &derived_key, "key"_a, "stream"_a);
}

}  // namespace topreach::python
