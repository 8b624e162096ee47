// Events for Python: the arrays that topreach.Events holds, checked, and counts over them.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "../events.h"
#include "module.h"

namespace py = pybind11;

namespace topreach::python {

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

template <typename T>
std::vector<T> to_vector(const Array<T>& given) {
  return {given.data(), given.data() + given.size()};
}

template <typename T>
py::array_t<T> to_array(const std::vector<T>& given, std::vector<int64_t> shape) {
  py::array_t<T> made(shape);
  std::copy(given.begin(), given.end(), made.mutable_data());
  return made;
}

int64_t columns(const Events& events, CountBy by) {
  return by == CountBy::kPlace  ? events.num_places()
         : by == CountBy::kType ? events.num_types()
                                : events.num_nodes();
}

}  // namespace

void bind_events(py::module_& m) {
  py::class_<Events>(m, "Events", R"(Arrays of N dated events at I places, of S types, with Q marks.

`topreach.Events` reads a table and holds one of these. Times are days (or the table's own unit)
after the window's start; those <= 0 are history.

Raises:
    ValueError: arrays that do not fit together; times that do not ascend or lie after `end`; an
        event without a type; a mark that is not finite. The message names the event.)")
      .def(py::init([](std::vector<std::string> places, std::vector<std::string> types,
                       std::vector<std::string> mark_names, std::vector<std::string> ids,
                       const Array<double>& times, const Array<int64_t>& place,
                       const Array<uint8_t>& flags, const Array<double>& marks,
                       double complete_through, double end, double start, bool dates) {
             EventData data;
             data.places = std::move(places);
             data.types = std::move(types);
             data.mark_names = std::move(mark_names);
             data.ids = std::move(ids);
             data.times = to_vector(times);
             data.place = to_vector(place);
             data.flags = to_vector(flags);
             data.marks = to_vector(marks);
             data.complete_through = complete_through;
             data.end = end;
             data.start = start;
             data.dates = dates;
             return Events(std::move(data));
           }),
           py::kw_only(), py::arg("places"), py::arg("types"), py::arg("mark_names"),
           py::arg("ids"), py::arg("times"), py::arg("place"), py::arg("flags"), py::arg("marks"),
           py::arg("complete_through"), py::arg("end"), py::arg("start") = 0.0,
           py::arg("dates") = false)
      .def_static(
          "read_csv", &Events::read_csv, py::arg("path"),
          "Reads a file in the format of `write_csv`.\n\nRaises:\n    ValueError: any other "
          "file; the message names the line.")
      .def("write_csv", &Events::write_csv, py::arg("path"), "Writes the events as text.")
      .def_property_readonly("places", [](const Events& e) { return e.data().places; })
      .def_property_readonly("types", [](const Events& e) { return e.data().types; })
      .def_property_readonly("mark_names", [](const Events& e) { return e.data().mark_names; })
      .def_property_readonly("ids", [](const Events& e) { return e.data().ids; })
      .def_property_readonly(
          "times", [](const Events& e) { return to_array(e.data().times, {e.num_events()}); })
      .def_property_readonly(
          "place", [](const Events& e) { return to_array(e.data().place, {e.num_events()}); })
      .def_property_readonly(
          "flags",
          [](const Events& e) { return to_array(e.data().flags, {e.num_events(), e.num_types()}); })
      .def_property_readonly(
          "marks",
          [](const Events& e) {
            return to_array(e.data().marks, {e.num_events(), int64_t(e.data().mark_names.size())});
          })
      .def_property_readonly("start", [](const Events& e) { return e.data().start; })
      .def_property_readonly("end", [](const Events& e) { return e.data().end; })
      .def_property_readonly("complete_through",
                             [](const Events& e) { return e.data().complete_through; })
      .def_property_readonly("dates", [](const Events& e) { return e.data().dates; })
      .def(
          "node_events",
          [](const Events& e) {
            const NodeEvents made = e.node_events();
            const std::vector<int64_t> shape{int64_t(made.times.size())};
            return py::make_tuple(to_array(made.times, shape), to_array(made.node, shape),
                                  to_array(made.event, shape), to_array(made.share, shape));
          },
          "(times, node, event, share): an event of c types is c entries, each a share of 1/c.")
      .def(
          "counts",
          [](const Events& e, const Array<double>& edges, const std::string& name) {
            const CountBy by = count_by("Events.counts", name);
            const auto made = e.counts(to_vector(edges), by);
            return to_array(made, {int64_t(edges.size()) - 1, columns(e, by)});
          },
          py::arg("edges"), py::arg("by"),
          "Number of events in (edges[k], edges[k+1]], int64 [B, I, S or M].")
      .def(
          "counts_before",
          [](const Events& e, const Array<double>& times, const std::string& name) {
            const CountBy by = count_by("Events.counts_before", name);
            const auto made = e.counts_before(to_vector(times), by);
            return to_array(made, {int64_t(times.size()), columns(e, by)});
          },
          py::arg("times"), py::arg("by"),
          "Number of events strictly before each time, int64 [B, I, S or M].")
      .def(
          "whole_periods",
          [](const Events& e, const Calendar& calendar) {
            const auto made = e.whole_periods(calendar);
            return to_array(made, {int64_t(made.size())});
          },
          py::arg("calendar"),
          "Edges of the calendar's whole periods within (0, complete_through].")
      .def(
          "block_edges",
          [](const Events& e, const Calendar& calendar, const Array<double>& also) {
            const auto made = e.block_edges(calendar, to_vector(also));
            return to_array(made, {int64_t(made.size())});
          },
          py::arg("calendar"), py::arg("also"),
          "0, the beginnings of periods, `also` and complete_through, ascending.")
      .def(
          "recent_rate",
          [](const Events& e, const Array<double>& times, double length, const std::string& name) {
            const CountBy by = count_by("Events.recent_rate", name);
            const auto made = e.recent_rate(to_vector(times), length, by);
            return to_array(made, {int64_t(times.size()), columns(e, by)});
          },
          py::arg("times"), py::arg("length"), py::arg("by"),
          "log of the recent rate of each place, type or node as known at each time, float64 [B, "
          "...].")
      .def(
          "shared_types",
          [](const Events& e, const Array<double>& times) {
            const SharedTypes made = e.shared_types(to_vector(times));
            const int64_t size = int64_t(times.size()), places = e.num_places(),
                          types = e.num_types();
            return py::make_tuple(to_array(made.together, {size, places, types, types}),
                                  to_array(made.events, {size, places}));
          },
          py::arg("times"),
          "(together [B, I, S, S], events [B, I]) of the events strictly before each time.")
      .def_static(
          "shifts",
          [](const std::vector<std::string>& ids) {
            std::vector<double> made;
            for (const std::string& id : ids) made.push_back(event_shift(id));
            return to_array(made, {int64_t(made.size())});
          },
          py::arg("ids"), "A number in (0, 1) for each id, which depends on the id alone.")
      .def_static(
          "hashes",
          [](const std::vector<std::string>& texts) {
            std::vector<uint64_t> made;
            for (const std::string& text : texts) made.push_back(stable_hash(text));
            return to_array(made, {int64_t(made.size())});
          },
          py::arg("texts"), "FNV-1a of each text, uint64.");
}

}  // namespace topreach::python
