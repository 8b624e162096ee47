#include <torch/csrc/utils/pybind.h>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "../programs/program_arguments.h"
#include "../programs/quotas.h"
#include "../programs/topk.h"
#include "../programs/with_effect.h"
#include "bind_programs.h"
#include "module.h"

namespace py = pybind11;

namespace topreach::python {

namespace {

template <typename T>
using Whole = py::array_t<T, py::array::c_style | py::array::forcecast>;

template <typename T>
std::vector<T> to_vector(const Whole<T>& given) {
  return {given.data(), given.data() + given.size()};
}

ProgramArgument to_argument(const std::string& name, const py::handle& value) {
  if (py::isinstance<py::str>(value)) return value.cast<std::string>();
  if (py::isinstance<py::sequence>(value)) {
    const auto items = value.cast<py::sequence>();
    if (py::len(items) > 0 && py::isinstance<py::str>(items[0]))
      return value.cast<std::vector<std::string>>();
    return value.cast<std::vector<double>>();
  }
  try {
    return value.cast<double>();
  } catch (const py::cast_error&) {
    throw py::type_error("Program.config: " + name +
                         " must be a number, a string, or a list of one of these, got " +
                         py::str(py::type::of(value)).cast<std::string>());
  }
}

// A program written in Python: a subclass of topreach.programs.Program.
class PyProgram : public Program {
 public:
  using Program::Program;

  std::string name() const override { PYBIND11_OVERRIDE_PURE(std::string, Program, name); }
  ProgramConfig config() const override {
    py::gil_scoped_acquire lock;
    const py::function own = py::get_override(static_cast<const Program*>(this), "config");
    if (!own) throw py::type_error("Program: config must be defined, got a program without");
    return to_config(own());
  }
  void check(const char* function, int64_t sites) const override {
    PYBIND11_OVERRIDE_PURE(void, Program, check, function, sites);
  }
  int64_t size() const override { PYBIND11_OVERRIDE_PURE(int64_t, Program, size); }
  at::Tensor best(const at::Tensor& values) const override {
    PYBIND11_OVERRIDE_PURE(at::Tensor, Program, best, values);
  }
  Solution solve(const at::Tensor& values) const override {
    PYBIND11_OVERRIDE(Solution, Program, solve, values);
  }
  ProgramPtr for_sites(const char* function, const std::vector<std::string>& ids) const override {
    py::gil_scoped_acquire lock;
    const py::function own = py::get_override(static_cast<const Program*>(this), "for_sites");
    if (!own) return nullptr;
    const py::object found = own(function, ids);
    if (found.is_none()) return nullptr;
    // The object lives as long as the program is used.
    auto* held = new py::object(found);
    return ProgramPtr(found.cast<const Program*>(), [held](const Program*) {
      py::gil_scoped_acquire lock;
      delete held;
    });
  }
  at::Tensor reach(const at::Tensor& plan, const at::Tensor& y) const override {
    PYBIND11_OVERRIDE(at::Tensor, Program, reach, plan, y);
  }
};

}  // namespace

ProgramConfig to_config(const py::handle& object) {
  ProgramConfig config;
  const py::dict items(object.cast<py::object>());
  for (const auto& [name, value] : items) {
    const auto argument = name.cast<std::string>();
    config.emplace_back(argument, to_argument(argument, value));
  }
  return config;
}

py::dict from_config(const ProgramConfig& config) {
  py::dict items;
  for (const auto& [name, value] : config) items[py::str(name)] = value;
  return items;
}

void bind_programs(py::module_& m) {
  py::class_<Solution>(m, "Solution")
      .def(py::init([](const at::Tensor& plan, double value, std::optional<double> bound,
                       std::optional<double> gap, const std::string& status, double seconds,
                       std::vector<std::string> notes) {
             return Solution{plan, value, bound, gap, status, seconds, std::move(notes)};
           }),
           py::arg("plan"), py::arg("value"), py::arg("bound") = std::nullopt,
           py::arg("gap") = std::nullopt, py::arg("status") = "optimal", py::arg("seconds") = 0.0,
           py::arg("notes") = std::vector<std::string>())
      .def_readonly("plan", &Solution::plan)
      .def_readonly("value", &Solution::value)
      .def_readonly("bound", &Solution::bound)
      .def_readonly("gap", &Solution::gap)
      .def_readonly("status", &Solution::status)
      .def_readonly("seconds", &Solution::seconds)
      .def_readonly("notes", &Solution::notes);
  py::class_<Program, PyProgram, std::shared_ptr<Program>>(m, "Program")
      .def(py::init<>())
      .def("name", &Program::name)
      .def("config", [](const Program& program) { return from_config(program.config()); })
      .def("describe", &Program::describe)
      .def("check", &Program::check, py::arg("function"), py::arg("sites"))
      .def("size", &Program::size)
      .def(
          "for_sites",
          [](const Program& program, const std::string& function,
             const std::vector<std::string>& ids) -> std::optional<std::shared_ptr<Program>> {
            const ProgramPtr found = program.for_sites(function.c_str(), ids);
            if (!found) return std::nullopt;
            return std::const_pointer_cast<Program>(found);
          },
          py::arg("function"), py::arg("ids"))
      .def("site_values", &Program::site_values, py::arg("values"))
      .def("best", &Program::best, py::arg("values"))
      .def("solve", &Program::solve, py::arg("values"))
      .def(
          "soft",
          [](const Program& program, const at::Tensor& values, double sigma,
             const std::string& topk, int64_t num_samples, const std::string& estimator,
             const std::string& noise, std::optional<at::Tensor> key) {
            return program.soft(values, {sigma, topk, num_samples, estimator, noise, key});
          },
          py::arg("values"), py::arg("sigma"), py::arg("topk") = "exact",
          py::arg("num_samples") = 100, py::arg("estimator") = "score_loo",
          py::arg("noise") = "normal", py::arg("key") = std::nullopt)
      .def("reach", &Program::reach, py::arg("plan"), py::arg("y"))
      .def("best_reach", &Program::best_reach, py::arg("y"))
      .def("bpr", &Program::bpr, py::arg("scores"), py::arg("y"))
      .def("soft_bpr", &Program::soft_bpr, py::arg("plan"), py::arg("y"))
      .def("chance", &Program::chance, py::arg("samples"))
      .def("__repr__", &Program::describe);
  py::class_<TopK, Program, std::shared_ptr<TopK>>(m, "TopK")
      .def(py::init<int64_t>(), py::arg("k"))
      .def_property_readonly("k", &TopK::k);
  py::class_<Grouping>(m, "Grouping")
      .def(py::init([](std::string name, std::vector<std::string> groups,
                       const Whole<int32_t>& group, const Whole<int64_t>& lower,
                       const Whole<int64_t>& upper) {
             return Grouping{std::move(name), std::move(groups), to_vector(group), to_vector(lower),
                             to_vector(upper)};
           }),
           py::arg("name"), py::arg("groups"), py::arg("group"), py::arg("lower"), py::arg("upper"))
      .def_static("by_name", &plan::group_by, py::arg("name"), py::arg("group_of_site"),
                  py::arg("limited"), py::arg("lower"), py::arg("upper"), py::arg("function"))
      .def_readonly("name", &Grouping::name)
      .def_readonly("groups", &Grouping::groups)
      .def_readonly("group", &Grouping::group)
      .def_readonly("lower", &Grouping::lower)
      .def_readonly("upper", &Grouping::upper);
  m.def(
      "quota_arguments",
      [](const std::vector<Grouping>& groupings, const std::vector<int8_t>& lock) {
        return from_config(quota_arguments({-1, groupings, lock}));
      },
      py::arg("groupings"), py::arg("lock"));
  py::class_<Quotas, Program, std::shared_ptr<Quotas>>(m, "Quotas")
      .def(
          py::init<int64_t, std::vector<Grouping>, std::vector<int8_t>, std::vector<std::string>>(),
          py::arg("k"), py::arg("groupings"), py::arg("lock") = std::vector<int8_t>(),
          py::arg("sites") = std::vector<std::string>())
      .def_property_readonly("k", &Quotas::k)
      .def_property_readonly("groupings", &Quotas::groupings)
      .def_property_readonly("sites", &Quotas::sites)
      .def_property_readonly("crosses", &Quotas::crosses)
      .def("expected_best", &Quotas::expected_best, py::arg("values"));
  py::class_<WithEffect, Program, std::shared_ptr<WithEffect>>(m, "WithEffect")
      .def(py::init([](std::shared_ptr<Program> program, std::vector<double> effect,
                       std::vector<std::string> sites) {
             return std::make_shared<WithEffect>(std::move(program), std::move(effect),
                                                 std::move(sites));
           }),
           py::arg("program"), py::arg("effect"), py::arg("sites") = std::vector<std::string>(),
           py::keep_alive<1, 2>())  // a program written in Python lives in its object
      .def_property_readonly("effect", &WithEffect::effect);
}

}  // namespace topreach::python
