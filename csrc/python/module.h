// The parts of the Python module topreach._C: one function per subject, each in its own file.
#pragma once

#include <pybind11/pybind11.h>

namespace topreach::python {

void bind_calendar(pybind11::module_& m);
void bind_events(pybind11::module_& m);
void bind_forecast(pybind11::module_& m);
void bind_objectives(pybind11::module_& m);
void bind_plan(pybind11::module_& m);
void bind_programs(pybind11::module_& m);
void bind_ranker(pybind11::module_& m);

}  // namespace topreach::python
