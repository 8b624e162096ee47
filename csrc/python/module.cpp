// topreach._C: what Python shares with C++ as one object. Operators are not here: Python finds them as
// torch.ops.topreach.*.
#include "module.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "Objects that topreach's Python and C++ share.";
  topreach::python::bind_calendar(m);
  topreach::python::bind_events(m);
  topreach::python::bind_forecast(m);
  topreach::python::bind_programs(m);
  topreach::python::bind_plan(m);
  topreach::python::bind_ranker(m);
  topreach::python::bind_objectives(m);
}
