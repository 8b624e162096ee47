// Ranker, ModelFile, Panel, Plan and Forecaster for Python.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include "../io/model_file_format.h"
#include "../ranker.h"
#include "bind_forecast.h"
#include "bind_programs.h"
#include "module.h"

namespace py = pybind11;

namespace topreach::python {

namespace {

// ---- plain values -------------------------------------------------------------------------------

c10::IValue to_value(const std::string& name, const py::handle& value) {
  if (value.is_none()) return {};
  if (py::isinstance<py::bool_>(value)) return value.cast<bool>();
  if (py::isinstance<py::int_>(value)) return value.cast<int64_t>();
  if (py::isinstance<py::float_>(value)) return value.cast<double>();
  if (py::isinstance<py::str>(value)) return value.cast<std::string>();
  if (THPVariable_Check(value.ptr())) return value.cast<at::Tensor>().detach().cpu().clone();
  if (py::isinstance<py::list>(value) || py::isinstance<py::tuple>(value)) {
    c10::impl::GenericList list(c10::AnyType::get());
    for (const py::handle& item : value) list.push_back(to_value(name, item));
    return list;
  }
  throw py::type_error("ModelFile: " + name + " must hold plain values and tensors, got " +
                       py::str(py::type::of(value)).cast<std::string>());
}

py::object from_value(const c10::IValue& value) {
  if (value.isNone()) return py::none();
  if (value.isBool()) return py::bool_(value.toBool());
  if (value.isInt()) return py::int_(value.toInt());
  if (value.isDouble()) return py::float_(value.toDouble());
  if (value.isString()) return py::str(value.toStringRef());
  if (value.isTensor()) return py::cast(value.toTensor());
  if (value.isList()) {
    py::list list;
    for (const auto& item : value.toListRef()) list.append(from_value(item));
    return list;
  }
  throw py::type_error("ModelFile: a value of type " + value.tagKind() + " has no Python form");
}

NamedValues to_values(const py::dict& dict) {
  NamedValues values;
  for (const auto& [name, value] : dict)
    values.emplace_back(name.cast<std::string>(), to_value(name.cast<std::string>(), value));
  return values;
}

py::dict from_values(const NamedValues& values) {
  py::dict dict;
  for (const auto& [name, value] : values) dict[py::str(name)] = from_value(value);
  return dict;
}

template <typename T>
py::dict dict_of(const std::vector<std::pair<std::string, T>>& items) {
  py::dict dict;
  for (const auto& [name, value] : items) dict[py::str(name)] = value;
  return dict;
}

template <typename T>
std::vector<std::pair<std::string, T>> items_of(const py::dict& dict) {
  std::vector<std::pair<std::string, T>> items;
  for (const auto& [name, value] : dict)
    items.emplace_back(name.template cast<std::string>(), value.template cast<T>());
  return items;
}

at::Tensor to_cpu(const std::optional<at::Tensor>& tensor) {
  return tensor ? tensor->detach().cpu().contiguous() : at::Tensor();
}

std::optional<at::Tensor> from_tensor(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

SiteHistory to_history(const py::dict& state) {
  SiteHistory history;
  history.half_lives = state["half_lives"].cast<std::vector<double>>();
  history.concentration = state["concentration"].cast<std::vector<double>>();
  history.shape = state["shape"].cast<double>();
  history.level = state["level"].cast<double>();
  history.season = state["season"].cast<int64_t>();
  history.mean_exposure = state["mean_exposure"].cast<double>();
  history.smoothing = state["smoothing"].cast<double>();
  history.seasonal_smoothing = state["seasonal_smoothing"].cast<double>();
  for (const py::handle& graph : state["graphs"]) {
    const py::dict near = graph.cast<py::dict>();
    history.graphs.push_back({near["start"].cast<at::Tensor>(), near["sites"].cast<at::Tensor>(),
                              near["weights"].cast<at::Tensor>()});
  }
  return history;
}

py::dict from_history(const SiteHistory& history) {
  py::list graphs;
  for (const Neighbours& near : history.graphs) {
    py::dict graph;
    graph["start"] = near.start;
    graph["sites"] = near.sites;
    graph["weights"] = near.weights;
    graphs.append(graph);
  }
  py::dict state;
  state["half_lives"] = history.half_lives;
  state["concentration"] = history.concentration;
  state["shape"] = history.shape;
  state["level"] = history.level;
  state["season"] = history.season;
  state["mean_exposure"] = history.mean_exposure;
  state["smoothing"] = history.smoothing;
  state["seasonal_smoothing"] = history.seasonal_smoothing;
  state["graphs"] = graphs;
  return state;
}

// ---- a forecaster written in Python ---------------------------------------------------------------

// Calls a Python object: needs, and forecast(inputs) or scores(inputs). The object is kept alive; it is
// released with the interpreter's lock held.
class PyForecaster : public Forecaster {
 public:
  PyForecaster(std::string name, const Needs& needs, py::object call)
      : name_(std::move(name)),
        needs_(needs),
        call_(new py::object(std::move(call)), [](py::object* object) {
          py::gil_scoped_acquire lock;
          delete object;
        }) {}

  std::string name() const override { return name_; }
  Needs needs() const override { return needs_; }
  CountDistribution forecast(const ForecastInputs& inputs) const override {
    if (!needs_.counts) return Forecaster::forecast(inputs);
    py::gil_scoped_acquire lock;
    return to_distribution((*call_)(inputs));
  }
  at::Tensor scores(const ForecastInputs& inputs) const override {
    if (needs_.counts) return Forecaster::scores(inputs);
    py::gil_scoped_acquire lock;
    return (*call_)(inputs).cast<at::Tensor>();
  }

 private:
  std::string name_;
  Needs needs_;
  std::shared_ptr<py::object> call_;
};

void bind_model_file(py::module_& m) {
  py::class_<ModelFile> file(m, "ModelFile");
  file.def(py::init<>())
      .def_readwrite("model", &ModelFile::model)
      .def_property(
          "config", [](const ModelFile& f) { return from_values(f.config); },
          [](ModelFile& f, const py::dict& v) { f.config = to_values(v); })
      .def_property(
          "fit", [](const ModelFile& f) { return from_values(f.fit); },
          [](ModelFile& f, const py::dict& v) { f.fit = to_values(v); })
      .def_property(
          "state", [](const ModelFile& f) { return dict_of(f.state); },
          [](ModelFile& f, const py::dict& v) {
            f.state.clear();
            for (const auto& [name, tensor] : items_of<at::Tensor>(v))
              f.state.emplace_back(name, tensor.detach().cpu().clone());
          })
      .def_property(
          "standardizer",
          [](const ModelFile& f) {
            py::dict state;
            state["feature_names"] = f.standardizer.feature_names;
            state["kept"] = f.standardizer.kept;
            state["mean"] = f.standardizer.mean;
            state["scale"] = f.standardizer.scale;
            return state;
          },
          [](ModelFile& f, const py::dict& v) {
            f.standardizer = {v["feature_names"].cast<std::vector<std::string>>(),
                              v["kept"].cast<std::vector<int64_t>>(), v["mean"].cast<at::Tensor>(),
                              v["scale"].cast<at::Tensor>()};
          })
      .def_readwrite("time_origin", &ModelFile::time_origin)
      .def_readwrite("time_scale", &ModelFile::time_scale)
      .def_readwrite("calendar", &ModelFile::calendar)
      .def_readwrite("fitted_times", &ModelFile::fitted_times)
      .def_property(
          "past_times", [](const ModelFile& f) { return f.past.times; },
          [](ModelFile& f, std::vector<double> v) { f.past.times = std::move(v); })
      .def_property(
          "past_counts", [](const ModelFile& f) { return from_tensor(f.past.counts); },
          [](ModelFile& f, std::optional<at::Tensor> v) { f.past.counts = to_cpu(v); })
      .def_property(
          "past_upper", [](const ModelFile& f) { return from_tensor(f.past.upper); },
          [](ModelFile& f, std::optional<at::Tensor> v) { f.past.upper = to_cpu(v); })
      .def_property(
          "past_exposure", [](const ModelFile& f) { return from_tensor(f.past.exposure); },
          [](ModelFile& f, std::optional<at::Tensor> v) { f.past.exposure = to_cpu(v); })
      .def_property(
          "last_features", [](const ModelFile& f) { return from_tensor(f.last_features); },
          [](ModelFile& f, std::optional<at::Tensor> v) { f.last_features = to_cpu(v); })
      .def_property(
          "constant_features", [](const ModelFile& f) { return from_tensor(f.constant_features); },
          [](ModelFile& f, std::optional<at::Tensor> v) { f.constant_features = to_cpu(v); })
      .def_readwrite("site_ids", &ModelFile::site_ids)
      .def_readwrite("opened", &ModelFile::opened)
      .def_readwrite("closed", &ModelFile::closed)
      .def_property_readonly("program",
                             [](const ModelFile& f) {
                               py::dict program;
                               program["name"] = f.program;
                               program["config"] = from_config(f.program_config);
                               return program;
                             })
      .def("set_program",
           [](ModelFile& f, const Program& program) {
             f.program = program.name();
             f.program_config = program.config();
           })
      .def_readwrite("ranking", &ModelFile::ranking)
      .def_readwrite("model_samples", &ModelFile::model_samples)
      .def_property(
          "key", [](const ModelFile& f) { return f.key; },
          [](ModelFile& f, const at::Tensor& v) { f.key = v.detach().cpu().clone(); })
      .def_readwrite("uses_exposure", &ModelFile::uses_exposure)
      .def_property(
          "site_history",
          [](const ModelFile& f) {
            return f.site_history ? std::optional(from_history(*f.site_history)) : std::nullopt;
          },
          [](ModelFile& f, std::optional<py::dict> v) {
            f.site_history = v ? std::optional(to_history(*v)) : std::nullopt;
          })
      .def_property(
          "table", [](const ModelFile& f) { return dict_of(f.table); },
          [](ModelFile& f, const py::dict& v) { f.table = items_of<std::string>(v); })
      .def_readonly("topreach_version", &ModelFile::topreach_version)
      .def_readonly("torch_version", &ModelFile::torch_version)
      .def_readonly("digest", &ModelFile::digest);
  m.def(
      "standardized",
      [](const torch::Tensor& x, const torch::Tensor& mean, const torch::Tensor& scale) {
        Standardizer all{std::vector<std::string>(size_t(mean.numel())), {}, mean, scale};
        for (int64_t p = 0; p < mean.numel(); ++p) all.kept.push_back(p);
        return all.transform(x);
      },
      py::arg("x"), py::arg("mean"), py::arg("scale"));
  m.def("load_model_file", &load_model_file, py::arg("path"));
  m.def("save_model_file", &save_model_file, py::arg("file"), py::arg("path"));
}

void bind_panel(py::module_& m) {
  py::class_<Panel>(m, "Panel")
      .def(py::init([](std::vector<std::string> site_ids, const Calendar& calendar,
                       std::vector<double> times, std::vector<std::string> feature_names,
                       std::optional<at::Tensor> x, std::optional<at::Tensor> y,
                       std::optional<at::Tensor> y_upper, std::optional<at::Tensor> exposure,
                       std::vector<double> history_times, std::optional<at::Tensor> history,
                       std::optional<at::Tensor> history_exposure, std::vector<double> opened,
                       std::vector<double> closed) {
             return Panel{std::move(site_ids),
                          calendar,
                          std::move(times),
                          std::move(feature_names),
                          to_cpu(x),
                          to_cpu(y),
                          to_cpu(y_upper),
                          to_cpu(exposure),
                          std::move(history_times),
                          to_cpu(history),
                          to_cpu(history_exposure),
                          std::move(opened),
                          std::move(closed)};
           }),
           py::kw_only(), py::arg("site_ids"), py::arg("calendar"), py::arg("times"),
           py::arg("feature_names") = std::vector<std::string>(), py::arg("x") = std::nullopt,
           py::arg("y") = std::nullopt, py::arg("y_upper") = std::nullopt,
           py::arg("exposure") = std::nullopt, py::arg("history_times") = std::vector<double>(),
           py::arg("history") = std::nullopt, py::arg("history_exposure") = std::nullopt,
           py::arg("opened") = std::vector<double>(), py::arg("closed") = std::vector<double>());
}

void bind_plan_of_sites(py::module_& m) {
  py::class_<PlannedSite>(m, "PlannedSite")
      .def_readonly("site", &PlannedSite::site)
      .def_readonly("index", &PlannedSite::index)
      .def_readonly("score", &PlannedSite::score)
      .def_readonly("expected_count", &PlannedSite::expected_count)
      .def_readonly("chance_top_k", &PlannedSite::chance_top_k)
      .def_readonly("rank", &PlannedSite::rank)
      .def_readonly("selected", &PlannedSite::selected);
  py::class_<Plan>(m, "Plan")
      .def_readonly("time", &Plan::time)
      .def_readonly("period", &Plan::period)
      .def_readonly("data_until", &Plan::data_until)
      .def_readonly("periods_ahead", &Plan::periods_ahead)
      .def_readonly("learnt", &Plan::learnt)
      .def_readonly("sites", &Plan::sites)
      .def_readonly("program", &Plan::program)
      .def_readonly("value", &Plan::value)
      .def_readonly("bound", &Plan::bound)
      .def_readonly("gap", &Plan::gap)
      .def_readonly("status", &Plan::status)
      .def_readonly("model", &Plan::model)
      .def_readonly("model_digest", &Plan::model_digest)
      .def_readonly("notes", &Plan::notes)
      .def("selected_ids", &Plan::selected_ids)
      // All sites by column, for a table.
      .def("columns", [](const Plan& plan) {
        const size_t n = plan.sites.size();
        py::list site;
        py::array_t<double> score(n), count(n), chance(n);
        py::array_t<int64_t> rank(n);
        py::array_t<bool> selected(n);
        for (size_t i = 0; i < n; ++i) {
          const PlannedSite& place = plan.sites[i];
          site.append(place.site);
          score.mutable_at(i) = place.score;
          count.mutable_at(i) = place.expected_count.value_or(NAN);
          chance.mutable_at(i) = place.chance_top_k.value_or(NAN);
          rank.mutable_at(i) = place.rank;
          selected.mutable_at(i) = place.selected;
        }
        py::dict columns;
        columns["site"] = site;
        columns["score"] = score;
        columns["expected_count"] = count;
        columns["chance_top_k"] = chance;
        columns["rank"] = rank;
        columns["selected"] = selected;
        return columns;
      });
}

}  // namespace

void bind_ranker(py::module_& m) {
  py::class_<Needs>(m, "Needs")
      .def(py::init([](bool features, bool time, bool past, int64_t window, bool exposure,
                       bool suppressed, bool sites, bool counts, bool events) {
             return Needs{features,   time,  past,   window, exposure,
                          suppressed, sites, counts, events};
           }),
           py::kw_only(), py::arg("features") = true, py::arg("time") = false,
           py::arg("past") = false, py::arg("window") = 0, py::arg("exposure") = false,
           py::arg("suppressed") = false, py::arg("sites") = true, py::arg("counts") = true,
           py::arg("events") = false)
      .def_readonly("features", &Needs::features)
      .def_readonly("time", &Needs::time)
      .def_readonly("past", &Needs::past)
      .def_readonly("window", &Needs::window)
      .def_readonly("exposure", &Needs::exposure)
      .def_readonly("suppressed", &Needs::suppressed)
      .def_readonly("sites", &Needs::sites)
      .def_readonly("counts", &Needs::counts)
      .def_readonly("events", &Needs::events);
  m.def("make_program", [](const std::string& name, const py::dict& config) {
    return std::const_pointer_cast<Program>(make_program(name, to_config(config)));
  });
  py::class_<ForecasterKind>(m, "ForecasterKind")
      .def_readonly("name", &ForecasterKind::name)
      .def_readonly("short_name", &ForecasterKind::short_name)
      .def_readonly("summary", &ForecasterKind::summary)
      .def_readonly("needs", &ForecasterKind::needs);
  m.def("forecaster_registry", &forecaster_registry);
  py::class_<ForecastInputs>(m, "ForecastInputs")
      .def_property_readonly("x", [](const ForecastInputs& in) { return from_tensor(in.x); })
      .def_property_readonly("time", [](const ForecastInputs& in) { return from_tensor(in.time); })
      .def_property_readonly("history",
                             [](const ForecastInputs& in) { return from_tensor(in.history); })
      .def_property_readonly("exposure",
                             [](const ForecastInputs& in) { return from_tensor(in.exposure); })
      .def_property_readonly("timeline",
                             [](const ForecastInputs& in) { return from_tensor(in.timeline); })
      .def_readonly("rows", &ForecastInputs::rows);
  bind_model_file(m);
  bind_panel(m);
  bind_plan_of_sites(m);
  py::class_<Forecaster, std::shared_ptr<Forecaster>>(m, "Forecaster");
  py::class_<PyForecaster, Forecaster, std::shared_ptr<PyForecaster>>(m, "PyForecaster")
      .def(py::init<std::string, const Needs&, py::object>(), py::arg("name"), py::arg("needs"),
           py::arg("call"));
  py::class_<RankerInputs>(m, "RankerInputs")
      .def_readonly("model", &RankerInputs::model)
      .def_readonly("site_ids", &RankerInputs::site_ids)
      .def_readonly("times", &RankerInputs::times)
      .def_readonly("periods", &RankerInputs::periods)
      .def_readonly("data_until", &RankerInputs::data_until)
      .def_readonly("learnt", &RankerInputs::learnt)
      .def_property_readonly("y", [](const RankerInputs& in) { return from_tensor(in.y); })
      .def_property_readonly("open", [](const RankerInputs& in) { return from_tensor(in.open); })
      .def_readonly("notes", &RankerInputs::notes);
  py::class_<Ranker>(m, "Ranker")
      .def(py::init([](const ModelFile& file, const std::string& device,
                       std::shared_ptr<Forecaster> forecaster, std::shared_ptr<Program> program) {
             return Ranker(file, torch::Device(device), forecaster, program);
           }),
           py::arg("file"), py::arg("device") = "cpu", py::arg("forecaster") = nullptr,
           py::arg("program") = nullptr)
      .def_static(
          "load",
          [](const std::string& path, const std::string& device) {
            return Ranker::load(path, torch::Device(device));
          },
          py::arg("path"), py::arg("device") = "cpu")
      .def("save", &Ranker::save, py::arg("path"), py::arg("with_past") = true)
      .def("file", &Ranker::file, py::arg("with_past") = true)
      .def("to",
           [](const Ranker& r, const std::string& device) { return r.to(torch::Device(device)); })
      .def("with_program", [](const Ranker& r,
                              std::shared_ptr<Program> program) { return r.with_program(program); })
      .def("with_table",
           [](const Ranker& r, const py::dict& table) {
             return r.with_table(items_of<std::string>(table));
           })
      .def(
          "inputs",
          [](const Ranker& r, const std::string& function, const Panel* table,
             std::optional<int64_t> periods_ahead) {
            return r.inputs(function.c_str(), table, periods_ahead);
          },
          py::arg("function"), py::arg("table").none(true), py::arg("periods_ahead") = std::nullopt)
      .def("scores", &Ranker::scores, py::arg("inputs"), py::call_guard<py::gil_scoped_release>())
      .def("expected_counts", &Ranker::expected_counts, py::arg("inputs"),
           py::call_guard<py::gil_scoped_release>())
      .def("forecast", &Ranker::forecast, py::arg("inputs"),
           py::call_guard<py::gil_scoped_release>())
      .def("plans", &Ranker::plans, py::arg("inputs"), py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("needs", &Ranker::needs)
      .def_property_readonly("site_ids", &Ranker::site_ids)
      .def_property_readonly("feature_names", &Ranker::feature_names)
      .def_property_readonly("calendar", &Ranker::calendar)
      .def_property_readonly("digest", &Ranker::digest)
      .def_property_readonly("device", [](const Ranker& r) { return r.device().str(); })
      .def_property_readonly("is_probabilistic", &Ranker::is_probabilistic);
}

}  // namespace topreach::python
