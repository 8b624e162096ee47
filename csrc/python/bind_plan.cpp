// Graph and topreach::plan for Python: they take arrays and return a PlanSolved. The GIL is released while a
// program is solved.
#include <torch/csrc/utils/pybind.h>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "../graph.h"
#include "../programs/milp.h"
#include "../programs/plan_programs.h"
#include "../programs/planned.h"
#include "module.h"

namespace py = pybind11;

namespace topreach::python {

namespace {

constexpr double kEver = std::numeric_limits<double>::infinity();

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;
using Numbers = Array<double>;

template <typename T>
std::vector<T> to_vector(const Array<T>& given) {
  return {given.data(), given.data() + given.size()};
}

template <typename T>
py::array_t<T> to_array(const std::vector<T>& given) {
  py::array_t<T> made(static_cast<py::ssize_t>(given.size()));
  std::copy(given.begin(), given.end(), made.mutable_data());
  return made;
}

// Calls `solve` without the GIL.
template <typename Solve>
plan::Solved released(Solve&& solve) {
  const py::gil_scoped_release release;
  return solve();
}

void bind_graph(py::module_& m) {
  py::class_<Graph>(m, "Graph", "N nodes with ids, and undirected edges between them.")
      .def(py::init([](std::vector<std::string> ids, const Array<int32_t>& from,
                       const Array<int32_t>& to, const Numbers& weights) {
             return Graph(std::move(ids), to_vector(from), to_vector(to), to_vector(weights));
           }),
           py::kw_only(), py::arg("ids"), py::arg("from_nodes"), py::arg("to_nodes"),
           py::arg("weights") = Numbers(0))
      .def_static(
          "from_edges",
          [](std::vector<std::string> ids, const std::vector<std::string>& from,
             const std::vector<std::string>& to, const Numbers& weights) {
            return Graph::from_edges(std::move(ids), from, to, to_vector(weights));
          },
          py::kw_only(), py::arg("ids"), py::arg("from_ids"), py::arg("to_ids"),
          py::arg("weights") = Numbers(0),
          "Edges by ids; without ids the nodes are those of the edges.\n\nRaises:\n    ValueError: "
          "an id that is not among `ids`; the message names the row, from 1.")
      .def_property_readonly("ids", [](const Graph& g) { return g.ids(); })
      .def_property_readonly("num_nodes", &Graph::nodes)
      .def_property_readonly("num_edges", &Graph::edges)
      .def_property_readonly("has_weights", &Graph::has_weights)
      .def_property_readonly("start", [](const Graph& g) { return to_array(g.adjacency().start); })
      .def_property_readonly("neighbours",
                             [](const Graph& g) { return to_array(g.adjacency().neighbours); })
      .def_property_readonly("weights",
                             [](const Graph& g) { return to_array(g.adjacency().weights); })
      .def("index_of", &Graph::index_of, py::arg("id"), "Number of a node; -1 if there is none.")
      .def("reordered", &Graph::reordered, py::arg("ids"))
      .def(
          "components", [](const Graph& g) { return to_array(kernels::components(g.adjacency())); },
          "The component of each node, int32 [N].")
      .def(
          "steps_from",
          [](const Graph& g, const std::vector<int32_t>& sources, int32_t limit) {
            for (const int32_t node : sources)
              if (node < 0 || node >= g.nodes())
                throw py::value_error("Graph.steps_from: sources must be nodes of the graph");
            return to_array(kernels::steps_from(g.adjacency(), sources, limit));
          },
          py::arg("sources"), py::arg("limit") = std::numeric_limits<int32_t>::max(),
          "Steps from the nearest source, int32 [N]; -1: out of reach.");
}

void bind_types(py::module_& m) {
  using plan::Constraints, plan::Grouping, plan::Solved;
  py::class_<Constraints>(m, "PlanConstraints")
      .def(py::init([](int64_t k, std::vector<Grouping> groupings, const Array<int8_t>& lock) {
             return Constraints{k, std::move(groupings), to_vector(lock)};
           }),
           py::arg("k"), py::arg("groupings"), py::arg("lock"))
      .def_property_readonly("lock", [](const Constraints& c) { return to_array(c.lock); });
  py::class_<Solved>(m, "PlanSolved")
      .def_property_readonly("program", [](const Solved& s) { return s.program; })
      .def_property_readonly("status", [](const Solved& s) { return s.status; })
      .def_property_readonly("maximised", [](const Solved& s) { return s.maximised; })
      .def_property_readonly("chosen", [](const Solved& s) { return to_array(s.chosen); })
      .def_property_readonly("value", [](const Solved& s) { return s.value; })
      .def_property_readonly("bound", [](const Solved& s) { return s.bound; })
      .def_property_readonly("gap", [](const Solved& s) { return s.gap; })
      .def_property_readonly("seconds", [](const Solved& s) { return s.seconds; })
      .def_property_readonly("numbers",
                             [](const Solved& s) {
                               py::dict made;
                               for (const auto& [name, value] : s.numbers)
                                 made[py::str(name)] = value;
                               return made;
                             })
      .def_property_readonly("columns",
                             [](const Solved& s) {
                               py::dict made;
                               for (const auto& [name, column] : s.columns)
                                 made[py::str(name)] = to_array(column);
                               return made;
                             })
      .def_property_readonly("parts", [](const Solved& s) { return s.parts; })
      .def_property_readonly("edges", [](const Solved& s) { return s.edges; })
      .def_property_readonly("amounts", [](const Solved& s) { return to_array(s.amounts); })
      .def_property_readonly("essential", [](const Solved& s) { return to_array(s.essential); })
      .def_property_readonly("replaceable", [](const Solved& s) { return to_array(s.replaceable); })
      .def_property_readonly("notes", [](const Solved& s) { return s.notes; });
}

void bind_choices(py::module_& m) {
  using plan::Constraints, plan::SolveOptions;
  m.def("set_highs_library", &set_highs_library, py::arg("path"));
  m.def("has_highs", &has_highs);
  m.def("highs_version", &highs_version);
  m.def(
      "plan_quota_topk",
      [](const Numbers& scores, const Constraints& constraints, double gap, double time) {
        return released(
            [&] { return plan::quota_topk(to_vector(scores), constraints, {gap, time}); });
      },
      py::arg("scores"), py::arg("constraints"), py::arg("gap") = 1e-4, py::arg("time") = kEver);
  m.def(
      "plan_quota_topk_rows",
      [](const Numbers& scores, int64_t sites, const Constraints& constraints) {
        return to_array(plan::quota_topk_rows(to_vector(scores), sites, constraints));
      },
      py::arg("scores"), py::arg("sites"), py::arg("constraints"),
      "Plans of all rows of scores [M, S], uint8 [M S].");
  m.def(
      "plan_budget_topk",
      [](const Numbers& scores, const Numbers& cost, double budget, const Constraints& constraints,
         double gap, double time) {
        return released([&] {
          return plan::budget_topk(to_vector(scores), to_vector(cost), budget, constraints,
                                   {gap, time});
        });
      },
      py::arg("scores"), py::arg("cost"), py::arg("budget"), py::arg("constraints"),
      py::arg("gap") = 1e-4, py::arg("time") = kEver);
  m.def(
      "plan_spaced",
      [](const Numbers& scores, const Numbers& x, const Numbers& y, double distance,
         const Constraints& constraints, double gap, double time) {
        return released([&] {
          return plan::spaced(to_vector(scores), to_vector(x), to_vector(y), distance, constraints,
                              {gap, time});
        });
      },
      py::arg("scores"), py::arg("x"), py::arg("y"), py::arg("distance"), py::arg("constraints"),
      py::arg("gap") = 1e-4, py::arg("time") = kEver);
  m.def(
      "plan_spaced_graph",
      [](const Numbers& scores, const Graph& too_close, const Constraints& constraints, double gap,
         double time) {
        return released(
            [&] { return plan::spaced(to_vector(scores), too_close, constraints, {gap, time}); });
      },
      py::arg("scores"), py::arg("too_close"), py::arg("constraints"), py::arg("gap") = 1e-4,
      py::arg("time") = kEver);
  m.def(
      "plan_connected",
      [](const Numbers& scores, const Graph& graph, const Constraints& constraints, double gap,
         double time) {
        return released(
            [&] { return plan::connected(to_vector(scores), graph, constraints, {gap, time}); });
      },
      py::arg("scores"), py::arg("graph"), py::arg("constraints"), py::arg("gap") = 1e-4,
      py::arg("time") = kEver);
  m.def(
      "plan_phased",
      [](const Numbers& scores, const std::vector<int64_t>& k, int64_t sites,
         const Numbers& opening, const Numbers& before, int64_t rest, int64_t most_visits,
         const Constraints& constraints, double gap, double time) {
        return released([&] {
          return plan::phased(to_vector(scores), k, sites,
                              {to_vector(opening), to_vector(before), rest, most_visits,
                               constraints.groupings, constraints.lock},
                              {gap, time});
        });
      },
      py::arg("scores"), py::arg("k"), py::arg("sites"), py::arg("opening"), py::arg("before"),
      py::arg("rest"), py::arg("most_visits"), py::arg("constraints"), py::arg("gap") = 1e-4,
      py::arg("time") = kEver);
  m.def(
      "plan_fair",
      [](const Numbers& scores, const plan::Grouping& fair_to, const Numbers& floors,
         const Constraints& constraints, double gap, double time) {
        return released([&] {
          return plan::fair(to_vector(scores), fair_to, to_vector(floors), constraints,
                            {gap, time});
        });
      },
      py::arg("scores"), py::arg("fair_to"), py::arg("floors"), py::arg("constraints"),
      py::arg("gap") = 1e-4, py::arg("time") = kEver);
}

void bind_networks(py::module_& m) {
  using plan::Constraints;
  m.def(
      "plan_coverage",
      [](const Graph& graph, const Numbers& weight, const Constraints& constraints, double gap,
         double time) {
        return released(
            [&] { return plan::coverage(graph, to_vector(weight), constraints, {gap, time}); });
      },
      py::arg("graph"), py::arg("weight"), py::arg("constraints"), py::arg("gap") = 1e-4,
      py::arg("time") = kEver);
  m.def(
      "plan_coverage_of",
      [](int64_t seeds, const Numbers& a, const Numbers& weight, const Array<int64_t>& start,
         const Array<int32_t>& seed, const Numbers& chance, const Constraints& constraints,
         bool capped, double gap, double time) {
        return released([&] {
          const kernels::Coverage given{
              weight.size(),    seeds,           to_vector(a),     to_vector(weight),
              to_vector(start), to_vector(seed), to_vector(chance)};
          return plan::coverage(given, constraints, capped, {gap, time});
        });
      },
      py::arg("seeds"), py::arg("a"), py::arg("weight"), py::arg("start"), py::arg("seed"),
      py::arg("chance"), py::arg("constraints"), py::arg("capped") = false, py::arg("gap") = 1e-4,
      py::arg("time") = kEver,
      "Rows are people: entries start[i] to start[i + 1] - 1 are the seeds that reach person i, "
      "and "
      "their chances.");
  m.def(
      "plan_spillover",
      [](const Graph& graph, const Numbers& treated, const Numbers& spilled,
         const Constraints& constraints, const Numbers& compliance, double gap, double time) {
        return released([&] {
          return plan::spillover(graph, to_vector(treated), to_vector(spilled), constraints,
                                 to_vector(compliance), {gap, time});
        });
      },
      py::arg("graph"), py::arg("treated"), py::arg("spilled"), py::arg("constraints"),
      py::arg("compliance"), py::arg("gap") = 1e-4, py::arg("time") = kEver);
  m.def(
      "plan_call_in",
      [](const Graph& graph, const Numbers& comes, const Numbers& passes,
         const Constraints& constraints, const Numbers& weight, bool capped, double gap,
         double time) {
        return released([&] {
          return plan::call_in(graph, to_vector(comes), to_vector(passes), constraints,
                               to_vector(weight), capped, {gap, time});
        });
      },
      py::arg("graph"), py::arg("comes"), py::arg("passes"), py::arg("constraints"),
      py::arg("weight"), py::arg("capped") = false, py::arg("gap") = 1e-4, py::arg("time") = kEver);
  m.def(
      "plan_dominating_set",
      [](const Graph& graph, const Numbers& cost, const Array<int8_t>& lock, double gap,
         double time) {
        return released([&] {
          return plan::dominating_set(graph, to_vector(cost), to_vector(lock), {gap, time});
        });
      },
      py::arg("graph"), py::arg("cost"), py::arg("lock"), py::arg("gap") = 1e-4,
      py::arg("time") = kEver);
  m.def(
      "plan_reach_at_least",
      [](const Graph& graph, const Numbers& comes, const Numbers& passes, double reach, bool capped,
         double gap, double time) {
        return released([&] {
          return plan::reach_at_least(
              kernels::call_in(graph.adjacency(), to_vector(comes), to_vector(passes)), reach,
              capped, {gap, time});
        });
      },
      py::arg("graph"), py::arg("comes"), py::arg("passes"), py::arg("reach"),
      py::arg("capped") = false, py::arg("gap") = 1e-4, py::arg("time") = kEver);
  m.def(
      "plan_tours",
      [](const Graph& graph, const Numbers& gain, int64_t k, const Numbers& size, double min_size,
         double max_size, const Array<int8_t>& lock, double gap, double time) {
        return released([&] {
          return plan::tours(graph, to_vector(gain), k,
                             {to_vector(size), min_size, max_size, to_vector(lock)}, {gap, time});
        });
      },
      py::arg("graph"), py::arg("gain"), py::arg("k"), py::arg("size"), py::arg("min_size"),
      py::arg("max_size"), py::arg("lock"), py::arg("gap") = 1e-4, py::arg("time") = kEver);
  m.def(
      "plan_tour_gain",
      [](const Numbers& events, const Numbers& area, double rho) {
        return to_array(plan::tour_gain(to_vector(events), to_vector(area), rho));
      },
      py::arg("events"), py::arg("area"), py::arg("rho"));
  m.def(
      "plan_subgraph",
      [](const Graph& graph, const std::vector<int32_t>& terminals, bool neighbours, double gap,
         double time) {
        return released([&] { return plan::subgraph(graph, terminals, neighbours, {gap, time}); });
      },
      py::arg("graph"), py::arg("terminals"), py::arg("neighbours") = false, py::arg("gap") = 1e-4,
      py::arg("time") = kEver);
  m.def(
      "plan_assign",
      [](const Numbers& need, const Numbers& capacity, const Numbers& if_opened, int64_t open,
         const Numbers& distance, double radius, double unserved, bool prices, double gap,
         double time) {
        return released([&] {
          return plan::assign(to_vector(need), {to_vector(capacity), to_vector(if_opened), open},
                              to_vector(distance), radius, unserved, prices, {gap, time});
        });
      },
      py::arg("need"), py::arg("capacity"), py::arg("if_opened"), py::arg("open"),
      py::arg("distance"), py::arg("radius"), py::arg("unserved"), py::arg("prices"),
      py::arg("gap") = 1e-4, py::arg("time") = kEver);
}

}  // namespace

void bind_plan(py::module_& m) {
  py::class_<Planned, Program, std::shared_ptr<Planned>>(m, "PlannedProgram");
  bind_graph(m);
  bind_types(m);
  bind_choices(m);
  bind_networks(m);
}

}  // namespace topreach::python
