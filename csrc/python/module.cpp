// topreach._C: what Python shares with C++ as one object. Operators are not here: Python finds them as
// torch.ops.topreach.*.
#include "module.h"

#include "../words.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "Objects that topreach's Python and C++ share.";
  m.def("plain_id", &topreach::plain_id, pybind11::arg("id"),
        "What two spellings of one id share.");
  m.def(
      "did_you_mean", &topreach::did_you_mean, pybind11::arg("unknown"), pybind11::arg("ids"),
      "A sentence that names the id of which an unknown one is another spelling; \"\" if none is.");
  topreach::python::bind_calendar(m);
  topreach::python::bind_events(m);
  topreach::python::bind_forecast(m);
  topreach::python::bind_programs(m);
  topreach::python::bind_plan(m);
  topreach::python::bind_ranker(m);
  topreach::python::bind_objectives(m);
}
