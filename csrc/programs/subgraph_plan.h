// The subgraph of interest: how some nodes of a network are connected.
#pragma once

#include <vector>

#include "../graph.h"
#include "solved.h"

namespace topreach::plan {

/// The shortest tree that joins the terminals (numbers of nodes), one for each component that holds
/// some. An edge counts 1, or its weight. Exact for up to 12 terminals in a component; above that at
/// most twice the optimum, with a bound.
///
/// `chosen` are the nodes of the trees and, with `neighbours`, those next to a terminal; `edges` are
/// the trees' edges. Other trees are often as short: `essential` nodes are in all of them,
/// `replaceable` ones are not (only if the tree is exact). Numbers: "trees". Columns: "betweenness"
/// [nodes], for each node the expected number of pairs of terminals whose shortest path passes
/// through it; among several shortest paths one is taken at random.
Solved subgraph(const Graph& graph, const std::vector<int32_t>& terminals, bool neighbours = false,
                const SolveOptions& options = {});

}  // namespace topreach::plan
