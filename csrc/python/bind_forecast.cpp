#include "bind_forecast.h"

#include <pybind11/stl.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include "../require.h"
#include "module.h"

namespace py = pybind11;

namespace topreach::python {

namespace {

using torch::Tensor;

// A forecast written in Python. References to it are read and counted only with Python's lock held.
class PyForecast {
 public:
  explicit PyForecast(py::object object)
      : object_(new py::object(std::move(object)), [](py::object* o) {
          const py::gil_scoped_acquire lock;
          delete o;
        }) {
    has_expected_ratio_ = has("expected_ratio") && flag("has_expected_ratio", true);
    whole_counts_ = flag("whole_counts", true);
    independent_sites_ = flag("independent_sites", true);
  }

  Tensor mean() const { return property("mean"); }
  Tensor variance() const { return property("variance"); }
  Tensor sample(int64_t num_samples, const SampleOptions& options) const {
    const py::gil_scoped_acquire lock;
    const NegBinSampleOptions own = with_key(options, mean().device());
    return cast("sample", object_->attr("sample")(num_samples, py::arg("key") = *own.key));
  }
  Tensor site_log_prob(const Tensor& y) const { return call("site_log_prob", y); }
  Tensor joint_log_prob(const Tensor& y) const {
    if (has("joint_log_prob")) return call("joint_log_prob", y);
    return observed_sum([this](const Tensor& value) { return site_log_prob(value); }, y);
  }
  Tensor cdf(const Tensor& y) const {
    if (has("cdf")) return call("cdf", y);
    return summed_cdf([this](const Tensor& value) { return site_log_prob(value); }, y,
                      mean().sizes());
  }
  Tensor quantile(double probability) const {
    if (has("quantile")) return call("quantile", probability);
    return count_quantile(
        "quantile", [this](const Tensor& y) { return cdf(y); }, mean(), variance(), probability);
  }
  std::optional<Tensor> expected_ratio(double offset) const {
    if (!has_expected_ratio_) return std::nullopt;
    return call("expected_ratio", offset);
  }
  bool has_expected_ratio() const { return has_expected_ratio_; }
  bool whole_counts() const { return whole_counts_; }
  bool independent_sites() const { return independent_sites_; }

 private:
  bool has(const char* name) const {
    const py::gil_scoped_acquire lock;
    return py::hasattr(*object_, name);
  }
  bool flag(const char* name, bool otherwise) const {
    const py::gil_scoped_acquire lock;
    if (!py::hasattr(*object_, name)) return otherwise;
    py::object value = object_->attr(name);
    if (PyCallable_Check(value.ptr())) value = value();
    return value.cast<bool>();
  }
  // A tensor that is an attribute, as in topreach.distributions, or a method without arguments.
  Tensor property(const char* name) const {
    const py::gil_scoped_acquire lock;
    py::object value = object_->attr(name);
    if (!THPVariable_Check(value.ptr()) && PyCallable_Check(value.ptr())) value = value();
    return cast(name, value);
  }
  template <typename Argument>
  Tensor call(const char* name, const Argument& argument) const {
    const py::gil_scoped_acquire lock;
    return cast(name, object_->attr(name)(argument));
  }
  Tensor cast(const char* name, const py::object& value) const {
    TR_REQUIRE_TYPE(THPVariable_Check(value.ptr()), "{}.{}: must give a tensor, got {}",
                    Py_TYPE(object_->ptr())->tp_name, name, Py_TYPE(value.ptr())->tp_name);
    return value.cast<Tensor>();
  }

  std::shared_ptr<py::object> object_;
  bool has_expected_ratio_ = false, whole_counts_ = true, independent_sites_ = true;
};

CountDistribution site_mixture(const std::string& family, const Tensor& logits, const Tensor& first,
                               const std::optional<Tensor>& second) {
  if (family == "truncated_normal" && second)
    return SiteMixture<TruncatedNormal>{logits, {first, *second}};
  TR_REQUIRE(family == "poisson" && !second,
             "Forecast.site_mixture: family must be 'truncated_normal' with a second parameter, or "
             "'poisson' without, got '{}'",
             family);
  return SiteMixture<Poisson>{logits, {first}};
}

CountDistribution zero_inflated(const CountDistribution& base, const Tensor& probs) {
  if (const auto* counts = base.get_if<NegativeBinomial>()) return ZeroInflated{*counts, probs};
  if (const auto* counts = base.get_if<Poisson>()) return ZeroInflated{*counts, probs};
  if (const auto* counts = base.get_if<Binomial>()) return ZeroInflated{*counts, probs};
  const auto* coins = base.get_if<Bernoulli>();
  TR_REQUIRE_TYPE(
      coins,
      "ZeroInflated: base must be NegativeBinomial, Poisson, Binomial or Bernoulli, got "
      "another distribution");
  return ZeroInflated{*coins, probs};
}

CountDistribution mixture(const Tensor& weights, const CountDistribution& parts) {
  if (const auto* counts = parts.get_if<NegativeBinomial>()) return Mixture{weights, *counts};
  if (const auto* counts = parts.get_if<Poisson>()) return Mixture{weights, *counts};
  if (const auto* counts = parts.get_if<ZeroInflated<NegativeBinomial>>())
    return Mixture{weights, *counts};
  const auto* counts = parts.get_if<ZeroInflated<Poisson>>();
  TR_REQUIRE_TYPE(
      counts,
      "Mixture: components must be NegativeBinomial, Poisson or ZeroInflated of one, got "
      "another distribution");
  return Mixture{weights, *counts};
}

}  // namespace

CountDistribution to_distribution(const py::object& object) {
  if (py::isinstance<CountDistribution>(object)) return object.cast<CountDistribution>();
  py::object view = object;
  if (!py::hasattr(view, "_forecast"))
    view = py::module_::import("topreach.distributions.forecast").attr("as_forecast")(object);
  if (py::hasattr(view, "_forecast")) return view.attr("_forecast")().cast<CountDistribution>();
  return PyForecast(view);
}

void bind_forecast(py::module_& m) {
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  py::class_<CountDistribution>(m, "Forecast", R"doc(A forecast of counts [..., S].

`TopKRanker.predict_distribution` returns one, and every class of `topreach.distributions` is a view of
one. It can be made from any of those, from a distribution of `torch.distributions`, or from your own
object with `mean`, `variance`, `sample(M, key=)` and `site_log_prob(y)`.

Example:
    >>> forecast = Forecast(tr.distributions.Poisson(torch.tensor([2.0, 5.0])))
    >>> forecast.quantile(0.5)
    tensor([2., 5.])
)doc")
      .def(py::init(&to_distribution), py::arg("distribution"))
      .def_static("negative_binomial",
                  [](const Tensor& total_count, const Tensor& logits) {
                    return CountDistribution(NegativeBinomial{total_count, logits});
                  })
      .def_static("poisson", [](const Tensor& rate) { return CountDistribution(Poisson{rate}); })
      .def_static("binomial",
                  [](const Tensor& total_count, const Tensor& probs) {
                    return CountDistribution(Binomial{total_count, probs});
                  })
      .def_static("bernoulli",
                  [](const Tensor& probs) { return CountDistribution(Bernoulli{probs}); })
      .def_static("zero_inflated", &zero_inflated, py::arg("base"), py::arg("probs"))
      .def_static("mixture", &mixture, py::arg("weights"), py::arg("components"))
      .def_static("site_mixture", &site_mixture, py::arg("family"), py::arg("logits"),
                  py::arg("first"), py::arg("second") = std::nullopt)
      .def_static("sampled",
                  [](const Tensor& draws) { return CountDistribution(SampledForecast(draws)); })
      .def_property_readonly("mean", &CountDistribution::mean, "Mean of each site, [..., S].")
      .def_property_readonly("variance", &CountDistribution::variance,
                             "Variance of each site, [..., S].")
      .def(
          "sample",
          [](const CountDistribution& of, int64_t num_samples, std::optional<Tensor> key,
             std::optional<at::Generator> generator,
             int64_t row_offset) { return of.sample(num_samples, {key, generator, row_offset}); },
          py::arg("num_samples"), py::kw_only(), py::arg("key") = std::nullopt,
          py::arg("generator") = std::nullopt, py::arg("row_offset") = 0, Unlocked(),
          "Draws [M, ..., S], without gradient; a key int64 [2] fixes them.")
      .def("site_log_prob", &CountDistribution::site_log_prob, py::arg("y"), Unlocked(),
           "log P(y_s) of each site by itself, [..., S] or [M, ..., S]; differentiable.")
      .def("joint_log_prob", &CountDistribution::joint_log_prob, py::arg("y"), Unlocked(),
           "log P of all sites of a row together, [...] or [M, ...]; NaN cells are left out.")
      .def("cdf", &CountDistribution::cdf, py::arg("y"), Unlocked(),
           "P(Y_s <= y_s), float64, without gradient.")
      .def("quantile", &CountDistribution::quantile, py::arg("probability"), Unlocked(),
           "The least value y_s with cdf >= probability, [..., S].")
      .def("interval_log_prob", &CountDistribution::interval_log_prob, py::arg("low"),
           py::arg("high"), Unlocked(), "log P(low_s <= Y_s <= high_s), [..., S]; differentiable.")
      .def("expected_ratio", &CountDistribution::expected_ratio, py::arg("offset") = 0.0,
           Unlocked(), "E[y_s / (offset + sum y)], [..., S], or None if it has no exact form.")
      .def_property_readonly("has_expected_ratio", &CountDistribution::has_expected_ratio)
      .def_property_readonly("whole_counts", &CountDistribution::whole_counts)
      .def_property_readonly("independent_sites", &CountDistribution::independent_sites);
}

}  // namespace topreach::python
