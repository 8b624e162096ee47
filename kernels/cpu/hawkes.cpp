// CPU loops of the networked Hawkes likelihood; see ../hawkes.h for the model and the method. The lanes
// of a vector are different items over the same events, so nothing is gathered or scattered.
#include "hawkes_walk.h"

namespace topreach::kernels::TR_ISA {
namespace {

// Events by node, in order of time.
void list_own_events(const HawkesProblem& p, const Memory& m) {
  const int64_t nodes = p.places * p.types;
  for (int64_t v = 0; v <= nodes; ++v) m.own_start[v] = 0;
  for (int64_t x = 0; x < p.events; ++x) ++m.own_start[p.node[x] + 1];
  for (int64_t v = 0; v < nodes; ++v) m.own_start[v + 1] += m.own_start[v];
  for (int64_t x = 0; x < p.events; ++x) m.own[m.own_start[p.node[x]]++] = x;
  for (int64_t v = nodes; v > 0; --v) m.own_start[v] = m.own_start[v - 1];
  m.own_start[0] = 0;
}

template <int order>
void run_group(const HawkesProblem& p, const HawkesItems& out, const Group& group,
               const Memory& memory) {
  Walk<order> walk{p, out, sizes_of(p), memory, group, Lane{}, 0, 0, {}, {}, {}, {}};
  walk.start();
  walk.forward();
  if constexpr (order >= 1) walk.backward();
  for (int l = 0; l < walk.g.lanes; ++l) {
    const int64_t item = walk.g.item[l];
    if (out.value != nullptr) out.value[item] = walk.value[l];
    if (out.failed_event != nullptr) out.failed_event[item] = walk.failed[l];
  }
}

void evaluate(const HawkesProblem& p, const HawkesItems& out, int64_t begin, int64_t end,
              void* scratch) {
  const Memory memory = memory_of(p, scratch);
  const int64_t size = hawkes_parameters(p);
  list_own_events(p, memory);
  const auto decay_rate = [&](int64_t item) { return out.parameters[(item + 1) * size - 1]; };
  for (int64_t item = begin; item < end;) {
    Group group{};
    const bool alone = hawkes_needs_cutting(p, decay_rate(item));
    do {
      group.item[group.lanes++] = item++;
    } while (!alone && group.lanes < kLanes && item < end &&
             !hawkes_needs_cutting(p, decay_rate(item)));
    for (int l = 0; l < kLanes; ++l) {
      const int64_t from = group.item[l < group.lanes ? l : 0];
      group.item[l] = from;
      group.node[l] = out.node[from];
      group.z[l] = out.parameters + from * size;
    }
    if (out.hessian != nullptr) {
      run_group<2>(p, out, group, memory);
    } else if (out.gradient != nullptr) {
      run_group<1>(p, out, group, memory);
    } else {
      run_group<0>(p, out, group, memory);
    }
  }
}

int64_t scratch_bytes(const HawkesProblem& p) { return memory_of(p, nullptr).bytes; }

}  // namespace

extern const HawkesCpu hawkes;
const HawkesCpu hawkes{scratch_bytes, evaluate};

}  // namespace topreach::kernels::TR_ISA
