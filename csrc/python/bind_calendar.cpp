#include <pybind11/stl.h>

#include "../calendar.h"
#include "module.h"

namespace py = pybind11;

namespace topreach::python {

void bind_calendar(py::module_& m) {
  py::class_<Calendar>(m, "Calendar")
      .def(py::init<>())
      .def(py::init<std::string, double, double, std::string>(), py::arg("unit"), py::arg("step"),
           py::arg("origin"), py::arg("format") = "")
      .def_static("infer", &Calendar::infer, py::arg("times"), py::arg("dates"),
                  py::arg("unit") = "", py::arg("format") = "")
      .def_property_readonly("unit", &Calendar::unit)
      .def_property_readonly("step", &Calendar::step)
      .def_property_readonly("origin", &Calendar::origin)
      .def_property_readonly("format", &Calendar::format)
      .def_property_readonly("is_dates", &Calendar::is_dates)
      .def("index", &Calendar::index, py::arg("time"))
      .def("at", &Calendar::at, py::arg("index"))
      .def("distance", &Calendar::distance, py::arg("a"), py::arg("b"))
      .def("next", &Calendar::next, py::arg("time"), py::arg("n") = 1)
      .def("label", &Calendar::label, py::arg("time"))
      .def("parse", &Calendar::parse, py::arg("text"))
      .def("periods_per_year", &Calendar::periods_per_year)
      .def("describe", &Calendar::describe)
      .def("check_same", &Calendar::check_same, py::arg("function"), py::arg("other"))
      .def("__eq__", [](const Calendar& a, const Calendar& b) { return a == b; })
      .def("__repr__", [](const Calendar& c) { return "Calendar(" + c.describe() + ")"; });
}

}  // namespace topreach::python
