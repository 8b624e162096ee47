#include <torch/csrc/utils/pybind.h>

#include <pybind11/stl.h>

#include "../programs/topk.h"
#include "module.h"

namespace py = pybind11;

namespace topreach::python {

namespace {

// A program written in Python: a subclass of topreach.programs.Program.
class PyProgram : public Program {
 public:
  using Program::Program;
  using Config = std::vector<std::pair<std::string, double>>;

  std::string name() const override { PYBIND11_OVERRIDE_PURE(std::string, Program, name); }
  Config config() const override { PYBIND11_OVERRIDE_PURE(Config, Program, config); }
  void check(const char* function, int64_t sites) const override {
    PYBIND11_OVERRIDE_PURE(void, Program, check, function, sites);
  }
  int64_t size() const override { PYBIND11_OVERRIDE_PURE(int64_t, Program, size); }
  at::Tensor best(const at::Tensor& values) const override {
    PYBIND11_OVERRIDE_PURE(at::Tensor, Program, best, values);
  }
  at::Tensor reach(const at::Tensor& plan, const at::Tensor& y) const override {
    PYBIND11_OVERRIDE(at::Tensor, Program, reach, plan, y);
  }
};

}  // namespace

void bind_programs(py::module_& m) {
  py::class_<Program, PyProgram, std::shared_ptr<Program>>(m, "Program")
      .def(py::init<>())
      .def("name", &Program::name)
      .def("config", &Program::config)
      .def("describe", &Program::describe)
      .def("check", &Program::check, py::arg("function"), py::arg("sites"))
      .def("size", &Program::size)
      .def("best", &Program::best, py::arg("values"))
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
}

}  // namespace topreach::python
