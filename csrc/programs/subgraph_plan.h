// The subgraph of interest: how some nodes of a network hang together.
#pragma once

#include <vector>

#include "../graph.h"
#include "solved.h"

namespace topreach::plan {

/// The least tree that joins the terminals (numbers of nodes), one for each component that holds
/// some; edges count 1, or their weights. Exact up to 12 terminals in a component, above at most
/// twice the optimum, with a bound. `chosen` are the nodes of the trees and, with `neighbours`,
/// those next to a terminal; `edges` are the trees' edges. Other trees are often as short:
/// `essential` nodes are in every one, `replaceable` ones are not (only where the tree is exact).
/// Numbers: "trees". Columns: "betweenness" [nodes], for each node the expected number of pairs of
/// terminals whose shortest path, one at random among the shortest, passes through it.
Solved subgraph(const Graph& graph, const std::vector<int32_t>& terminals, bool neighbours = false,
                const SolveOptions& options = {});

}  // namespace topreach::plan
