#include <pybind11/stl.h>

#include "../calendar.h"
#include "module.h"

namespace py = pybind11;

namespace topreach::python {

void bind_calendar(py::module_& m) {
  py::class_<Calendar>(m, "Calendar", R"(The periods of a table: numbers in steps, or dates.

A time is a float: a number as it is, or for a date the days from 1970-01-01 to the first moment of
its period, by the table's own clock. An integer index numbers the periods from `origin`.

Args:
    unit: "number", "hour", "day", "week", "month", "quarter" or "year".
    step: length of a period in units, > 0; whole for dates.
    origin: a time at which a period begins. Months, quarters and years begin on its day of the
        month, or, in a shorter month, on its last day: 31 January gives month ends.
    format: how times are written, in the table and by `label`: a strftime pattern of %Y %y %m %d %b
        %B %H %M %S, %q (quarter), %G and %V (ISO year and week). "%-m" has no leading zero, "%^b"
        is in capitals. "" for numbers, or for the unit's usual form.

Raises:
    ValueError: an unknown unit or letter, a step or an origin out of range.

Example:
    >>> quarters = tr.Calendar("quarter", 1, 15340, "%YQ%q")    # 15340: 2012-01-01
    >>> quarters.label(quarters.next(quarters.parse("2022Q4")))
    '2023Q1')")
      .def(py::init<>())
      .def(py::init<std::string, double, double, std::string>(), py::arg("unit"), py::arg("step"),
           py::arg("origin"), py::arg("format") = "")
      .def_static("infer", &Calendar::infer, py::arg("times"), py::arg("dates"),
                  py::arg("unit") = "", py::arg("format") = "",
                  R"(The calendar of times [T], distinct and ascending.

Its step is the largest of which all gaps are multiples. With one time the step is 1 of `unit`; for
a single date without a unit, a month.

Args:
    times: floats [T].
    dates: whether they are days since 1970-01-01.
    unit: unit of the periods; "" to find it.
    format: as in the constructor.

Raises:
    ValueError: no times, times that do not ascend, or gaps without a common step (names two times).

Example:
    >>> tr.Calendar.infer([2019, 2021, 2025], dates=False)
    Calendar(numbers, 2 apart))")
      .def_property_readonly("unit", &Calendar::unit)
      .def_property_readonly("step", &Calendar::step, "Length of a period in units.")
      .def_property_readonly("origin", &Calendar::origin, "The time whose index is 0.")
      .def_property_readonly("format", &Calendar::format, "How times are written; \"\": numbers.")
      .def_property_readonly("is_dates", &Calendar::is_dates)
      .def(
          "index", &Calendar::index, py::arg("time"),
          "Number of the period that `time` lies in.\n\nRaises:\n    ValueError: a number at which "
          "no period begins; a time out of range.")
      .def(
          "at", &Calendar::at, py::arg("index"),
          "First moment of the period with this number.\n\nRaises:\n    ValueError: it lies beyond "
          "the years -9999 to 9999.")
      .def("begins", &Calendar::begins, py::arg("time"), "Whether a period begins at `time`.")
      .def("distance", &Calendar::distance, py::arg("a"), py::arg("b"),
           "Periods from a to b; negative if b is earlier.")
      .def("next", &Calendar::next, py::arg("time"), py::arg("n") = 1, "The time n periods later.")
      .def("label", &Calendar::label, py::arg("time"), "The time as the table writes it.")
      .def("parse", &Calendar::parse, py::arg("text"),
           "The time that `text` gives.\n\nRaises:\n    ValueError: `text` does not follow the "
           "calendar's format.")
      .def("periods_per_year", &Calendar::periods_per_year,
           "Periods in a year, or 0 if a year is not a whole number of periods.")
      .def("describe", &Calendar::describe, "The periods in words, for messages.")
      .def(
          "check_same", &Calendar::check_same, py::arg("function"), py::arg("other"),
          "Raises ValueError, naming `function`, unless `other` has the same periods: both numbers "
          "or both\ndates, same unit and step, and the same beginnings.")
      .def(
          "__eq__", [](const Calendar& a, const Calendar& b) { return a == b; }, py::is_operator())
      .def("__hash__",
           [](const Calendar& c) {
             return py::hash(py::make_tuple(c.unit(), c.step(), c.origin(), c.format()));
           })
      .def(py::pickle(
          [](const Calendar& c) {
            return py::make_tuple(c.unit(), c.step(), c.origin(), c.format());
          },
          [](const py::tuple& state) {
            if (state.size() != 4) throw py::value_error("Calendar: state must have 4 entries");
            return Calendar(state[0].cast<std::string>(), state[1].cast<double>(),
                            state[2].cast<double>(), state[3].cast<std::string>());
          }))
      .def("__copy__", [](const Calendar& c) { return Calendar(c); })
      .def(
          "__deepcopy__", [](const Calendar& c, const py::dict&) { return Calendar(c); },
          py::arg("memo"))
      .def("__repr__", [](const Calendar& c) { return "Calendar(" + c.describe() + ")"; });
}

}  // namespace topreach::python
