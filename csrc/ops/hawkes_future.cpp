// A fitted networked Hawkes process: the course of its rates, its state at the end, and simulated futures.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "../../kernels/hawkes_branching.h"
#include "../../kernels/hawkes_path.h"
#include "../require.h"
#include "common.h"
#include "hawkes.h"
#include "hawkes_checks.h"
#include "scratch.h"

namespace topreach {
namespace {

using Optional = std::optional<at::Tensor>;

at::Tensor all_nodes(int64_t nodes) { return at::arange(nodes, at::kInt); }

// Records whose marks new events may have.
struct Pool {
  Pool(const char* name, const at::Tensor& start, const at::Tensor& records, int64_t nodes,
       int64_t events)
      : first(start.to(at::kCPU, at::kLong).contiguous()),
        record(records.to(at::kCPU, at::kLong).contiguous()) {
    TR_REQUIRE(first.dim() == 1 && first.size(0) == nodes + 1 && record.dim() == 1 &&
                   first[0].item<int64_t>() == 0 && first.diff().gt(0).all().item<bool>() &&
                   first[nodes].item<int64_t>() == record.size(0) &&
                   record.ge(0).all().item<bool>() && record.lt(events).all().item<bool>(),
               "{}: pool_start must have shape [M + 1] and give each node at least one record of "
               "pool, numbers from 0 to N - 1, got shapes {} and {}",
               name, first.sizes(), record.sizes());
  }
  at::Tensor first, record;
  const int64_t* start() const { return first.const_data_ptr<int64_t>(); }
  const int64_t* records() const { return record.const_data_ptr<int64_t>(); }
};

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> course(
    const at::Tensor& time, const at::Tensor& node, const at::Tensor& marks,
    const at::Tensor& edges, const at::Tensor& weights, const at::Tensor& covariates,
    const at::Tensor& distance, const at::Tensor& refresh, const Optional& joint,
    const Optional& either, const Optional& prior, double prior_weight, const at::Tensor& item_node,
    const at::Tensor& parameters) {
  const auto c = hawkes_course(events_of(time, node, marks, edges, weights, covariates, distance,
                                         refresh, joint, either, prior, prior_weight),
                               item_node, parameters);
  return {c.start, c.intensity, c.immigrant, c.compensator, c.block_total, c.block_base};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> state(
    const at::Tensor& time, const at::Tensor& node, const at::Tensor& marks,
    const at::Tensor& edges, const at::Tensor& weights, const at::Tensor& covariates,
    const at::Tensor& distance, const at::Tensor& refresh, const Optional& joint,
    const Optional& either, const Optional& prior, double prior_weight,
    const at::Tensor& parameters, const at::Tensor& pool_start, const at::Tensor& pool,
    bool second) {
  const auto s = hawkes_state(events_of(time, node, marks, edges, weights, covariates, distance,
                                        refresh, joint, either, prior, prior_weight),
                              parameters, pool_start, pool, second);
  return {s.base, s.excitation, s.jump, s.second};
}

std::tuple<at::Tensor, at::Tensor> simulate(
    const at::Tensor& time, const at::Tensor& node, const at::Tensor& marks,
    const at::Tensor& edges, const at::Tensor& weights, const at::Tensor& covariates,
    const at::Tensor& distance, const at::Tensor& refresh, const Optional& joint,
    const Optional& either, const Optional& prior, double prior_weight,
    const at::Tensor& parameters, const at::Tensor& excitation, const at::Tensor& base,
    const at::Tensor& period_edges, const at::Tensor& pool_start, const at::Tensor& pool,
    int64_t num_paths, std::string_view mode, int64_t most_events, const at::Tensor& key) {
  return hawkes_simulate(events_of(time, node, marks, edges, weights, covariates, distance, refresh,
                                   joint, either, prior, prior_weight),
                         parameters, excitation, base, period_edges, pool_start, pool, num_paths,
                         mode, most_events, key);
}

}  // namespace

HawkesCourse hawkes_course(const HawkesEvents& events, const at::Tensor& item_node,
                           const at::Tensor& parameters) {
  const HawkesTensors tensors("hawkes_course", events, item_node, parameters);
  const kernels::HawkesProblem& p = tensors.view();
  const int64_t items = tensors.items(), nodes = p.places * p.types;
  std::vector<int64_t> own(size_t(nodes), 0), start(size_t(items) + 1, 0);
  for (int64_t x = 0; x < p.events; ++x)
    if (p.time[x] > p.edge[0] && p.time[x] <= p.edge[p.blocks]) ++own[size_t(p.node[x])];
  for (int64_t r = 0; r < items; ++r)
    start[size_t(r) + 1] = start[size_t(r)] + own[size_t(tensors.item_node()[r])];
  const auto options = at::TensorOptions().dtype(at::kDouble);
  HawkesCourse out{at::tensor(start, at::kLong),          at::empty({start.back()}, options),
                   at::empty({start.back()}, options),    at::empty({start.back()}, options),
                   at::empty({items, p.blocks}, options), at::empty({items, p.blocks}, options)};
  at::parallel_for(0, items, 1, [&](int64_t begin, int64_t end) {
    const Scratch scratch(nodes * int64_t(sizeof(double)));
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = start[size_t(r)];
      kernels::hawkes_path(p, tensors.item_node()[r], tensors.parameters() + r * tensors.size(),
                           {out.intensity.mutable_data_ptr<double>() + at,
                            out.immigrant.mutable_data_ptr<double>() + at,
                            out.compensator.mutable_data_ptr<double>() + at,
                            out.block_total.mutable_data_ptr<double>() + r * p.blocks,
                            out.block_base.mutable_data_ptr<double>() + r * p.blocks},
                           static_cast<double*>(scratch.get()));
    }
  });
  return out;
}

HawkesState hawkes_state(const HawkesEvents& events, const at::Tensor& parameters,
                         const at::Tensor& pool_start, const at::Tensor& pool, bool second) {
  constexpr const char* name = "hawkes_state";
  const HawkesTensors tensors(name, events, all_nodes(parameters.size(0)), parameters);
  const kernels::HawkesProblem& p = tensors.view();
  const int64_t nodes = p.places * p.types, refresh = kernels::hawkes_refresh(p, p.blocks - 1);
  TR_REQUIRE(parameters.size(0) == nodes,
             "{}: parameters must have shape [M, P] with M = {}, got {}", name, nodes,
             parameters.sizes());
  const Pool records(name, pool_start, pool, nodes, p.events);
  const auto options = at::TensorOptions().dtype(at::kDouble);
  HawkesState out{at::empty({nodes}, options), at::empty({nodes}, options),
                  at::empty({nodes, nodes}, options),
                  second ? at::zeros({nodes, nodes, nodes}, options) : at::empty({0}, options)};
  double* jump = out.jump.mutable_data_ptr<double>();
  at::parallel_for(0, nodes, 1, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const double* z = tensors.parameters() + u * tensors.size();
      out.base.mutable_data_ptr<double>()[u] = kernels::hawkes_base(p, z, p.blocks - 1, u);
      out.excitation.mutable_data_ptr<double>()[u] = kernels::hawkes_excitation(p, u, z);
    }
  });
  // By source: an event of v with marks m adds theta_uv exp(log weight) to S_u.
  at::parallel_for(0, nodes, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> k(static_cast<size_t>(nodes));
    for (int64_t v = begin; v < end; ++v) {
      const int64_t first = records.start()[v], last = records.start()[v + 1];
      for (int64_t u = 0; u < nodes; ++u) jump[u * nodes + v] = 0.0;
      double* square = second ? out.second.mutable_data_ptr<double>() + v * nodes * nodes : nullptr;
      for (int64_t x = first; x < last; ++x) {
        const double* mark = p.marks + records.records()[x] * p.marks_per_event;
        for (int64_t u = 0; u < nodes; ++u) {
          k[size_t(u)] = kernels::hawkes_theta_of(p, refresh, u, v) *
                         kernels::exponential_lane(kernels::hawkes_log_weight(
                             p, tensors.parameters() + u * tensors.size(), u, v, mark));
          jump[u * nodes + v] += k[size_t(u)] / double(last - first);
        }
        for (int64_t u = 0; square != nullptr && u < nodes; ++u)
          for (int64_t w = 0; w < nodes; ++w)
            square[u * nodes + w] += k[size_t(u)] * k[size_t(w)] / double(last - first);
      }
    }
  });
  return out;
}

at::Tensor hawkes_event_terms(const at::Tensor& lag, const at::Tensor& sign, const at::Tensor& node,
                              const at::Tensor& marks, const at::Tensor& distance,
                              const at::Tensor& parameters) {
  constexpr const char* name = "hawkes_event_terms";
  const at::Tensor since = doubles(lag), signs = doubles(sign), mark = doubles(marks),
                   far = doubles(distance), z = doubles(parameters),
                   where = node.to(at::kCPU, at::kInt).contiguous();
  const int64_t n = since.numel();
  TR_REQUIRE(far.dim() == 2 && far.size(0) == far.size(1) && far.size(0) >= 1,
             "{}: distance must have shape [I, I], got {}", name, far.sizes());
  TR_REQUIRE(since.dim() == 1 && signs.sizes() == since.sizes() && where.sizes() == since.sizes() &&
                 mark.dim() == 2 && mark.size(0) == n,
             "{}: lag, sign and node must have shape [n] and marks [n, q], got {}, {}, {} and {}",
             name, since.sizes(), signs.sizes(), where.sizes(), mark.sizes());
  TR_REQUIRE(
      z.dim() == 2 && z.size(0) >= 1 && z.size(0) % far.size(0) == 0 &&
          z.size(1) >= mark.size(1) + 4,
      "{}: parameters must have shape [M, p + q + 4], M a multiple of I = {} and q = {}, got "
      "{}",
      name, far.size(0), mark.size(1), z.sizes());
  TR_REQUIRE(since.ge(0).all().item<bool>() && since.isfinite().all().item<bool>() &&
                 mark.isfinite().all().item<bool>() && z.isfinite().all().item<bool>(),
             "{}: lag must be finite and >= 0, marks and parameters finite, got one that is not",
             name);
  const int64_t nodes = z.size(0);
  TR_REQUIRE(n == 0 || (where.min().item<int64_t>() >= 0 && where.max().item<int64_t>() < nodes),
             "{}: node must lie from 0 to M - 1 = {}, got one that does not", name, nodes - 1);
  kernels::HawkesProblem p{};
  p.marks_per_event = mark.size(1);
  p.covariates_per_node = z.size(1) - mark.size(1) - 4;
  p.places = far.size(0);
  p.types = nodes / p.places;
  p.distance = far.const_data_ptr<double>();
  at::Tensor out = at::zeros({nodes, nodes}, at::kDouble);
  double* rows = out.mutable_data_ptr<double>();
  at::parallel_for(0, nodes, 1, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u)
      for (int64_t x = 0; x < n; ++x)
        kernels::hawkes_add_event(
            p, z.const_data_ptr<double>() + u * z.size(1), u, where.const_data_ptr<int32_t>()[x],
            mark.const_data_ptr<double>() + x * p.marks_per_event,
            since.const_data_ptr<double>()[x], signs.const_data_ptr<double>()[x], rows + u * nodes);
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor> hawkes_simulate(
    const HawkesEvents& events, const at::Tensor& parameters, const at::Tensor& excitation,
    const at::Tensor& base, const at::Tensor& edges, const at::Tensor& pool_start,
    const at::Tensor& pool, int64_t num_paths, std::string_view mode, int64_t most_events,
    const at::Tensor& key) {
  constexpr const char* name = "hawkes_simulate";
  TR_REQUIRE(parameters.dim() == 3 && parameters.size(0) >= 1,
             "{}: parameters must have shape [sets, M, P], got {}", name, parameters.sizes());
  const int64_t sets = parameters.size(0);
  const HawkesTensors tensors(name, events, all_nodes(parameters.size(1)), parameters[0]);
  const kernels::HawkesProblem& p = tensors.view();
  const int64_t nodes = p.places * p.types, periods = edges.numel() - 1;
  const at::Tensor z = doubles(parameters), s = doubles(excitation), mu = doubles(base),
                   e = doubles(edges);
  TR_REQUIRE(
      parameters.size(1) == nodes && s.sizes() == at::IntArrayRef({sets, nodes}),
      "{}: parameters must have shape [sets, M, P] and excitation [sets, M] with M = {}, got "
      "{} and {}",
      name, nodes, parameters.sizes(), s.sizes());
  TR_REQUIRE(
      e.dim() == 1 && periods >= 1 && e[0].item<double>() == 0 && e.diff().gt(0).all().item<bool>(),
      "{}: edges must ascend from 0, at least two of them, got {}", name, e.sizes());
  TR_REQUIRE(mu.sizes() == at::IntArrayRef({sets, periods, nodes}),
             "{}: base must have shape [sets, H, M] = [{}, {}, {}], got {}", name, sets, periods,
             nodes, mu.sizes());
  TR_REQUIRE(at::isfinite(z).all().item<bool>() && mu.ge(0).all().item<bool>() &&
                 mu.isfinite().all().item<bool>() && s.ge(0).all().item<bool>() &&
                 s.isfinite().all().item<bool>(),
             "{}: parameters must be finite, base and excitation finite and >= 0, got one that is "
             "not",
             name);
  TR_REQUIRE(num_paths >= 1 && most_events >= 1,
             "{}: num_paths and most_events must be at least 1, got {} and {}", name, num_paths,
             most_events);
  kernels::HawkesMode chosen = kernels::HawkesMode::kBranching;
  if (mode == "thinning") {
    chosen = kernels::HawkesMode::kThinning;
  } else if (mode == "paper") {
    chosen = kernels::HawkesMode::kPaper;
  } else {
    TR_REQUIRE(mode == "branching", "{}: mode must be 'branching', 'thinning' or 'paper', got '{}'",
               name, mode);
  }
  check_key(name, key, at::kCPU);
  const Pool records(name, pool_start, pool, nodes, p.events);
  at::Tensor counts = at::zeros({num_paths, periods, nodes}, at::kInt);
  at::Tensor failed = at::zeros({num_paths}, at::kByte);
  const kernels::HawkesFuture future{&p,
                                     chosen,
                                     key_words(key),
                                     sets,
                                     (num_paths + sets - 1) / sets,
                                     z.const_data_ptr<double>(),
                                     s.const_data_ptr<double>(),
                                     mu.const_data_ptr<double>(),
                                     e.const_data_ptr<double>(),
                                     periods,
                                     records.start(),
                                     records.records(),
                                     most_events,
                                     counts.mutable_data_ptr<int32_t>(),
                                     failed.mutable_data_ptr<uint8_t>()};
  at::parallel_for(0, num_paths, 16, [&](int64_t begin, int64_t end) {
    const Scratch scratch(kernels::hawkes_branching_cpu().scratch(future));
    kernels::hawkes_branching_cpu().simulate(future, begin, end, scratch.get());
  });
  return {counts, failed.to(at::kBool)};
}

// These run on the host and return tensors there, wherever their arguments are.
TORCH_LIBRARY_IMPL(topreach, CompositeExplicitAutograd, m) {
  m.impl("hawkes_course", course);
  m.impl("hawkes_state", state);
  m.impl("hawkes_event_terms", hawkes_event_terms);
  m.impl("hawkes_simulate", simulate);
}

}  // namespace topreach
