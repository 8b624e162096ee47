// The networked Hawkes process of STEMMED: its likelihood, and its future. kernels/hawkes.h has the equations
// of the likelihood; those of the future are below.
//
// Shapes: N events at nodes (an event of c types is c of them), M = I S nodes, B blocks, Q refreshes of the
// network, P = p + q + 4 parameters of a node. Tensors are float64 unless marked int64. The likelihood and
// its derivatives run on CUDA if `parameters` is there; everything else runs on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace topreach {

/// The data that all nodes share; see kernels::HawkesProblem.
struct HawkesEvents {
  at::Tensor time;        // [N], ascending
  at::Tensor node;        // int64 [N]
  at::Tensor marks;       // [N, q]
  at::Tensor edges;       // [B + 1], ascending
  at::Tensor weights;     // [B], of blocks
  at::Tensor covariates;  // [B, M, p] or [B, I, p]
  at::Tensor distance;    // [I, I]
  at::Tensor refresh;     // int64 [B], ascending from 0: which refresh is in force
  /// The network's tables by `hawkes_network`; undefined: theta = 1.
  at::Tensor joint, either, prior;  // [Q, S, S, I], [Q, S, S, I], [Q, S, S]
  double prior_weight = 5.0;        // in events
};

/// Value [R], gradient [R, P], Hessian [R, P, P] of the log-likelihood of R items; and for each item the first
/// event at which the intensity is not a positive number (the value is then -inf or NaN), or -1. An item is a
/// node with natural parameters (log gamma, beta, log alpha, delta_g, omega, delta_k), [R, P].
///
/// order: 0 for the value alone, 1 with the gradient, 2 with the Hessian too; the other tensors are empty.
/// Raises c10::ValueError for shapes that do not agree, times that do not ascend, and nodes that do not exist.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> hawkes_derivatives(
    const HawkesEvents& events, const at::Tensor& item_node, const at::Tensor& parameters,
    int64_t order);

/// Tables of the network between types at Q refreshes, from Events::shared_types: together [Q, I, S, S] and
/// events [Q, I]. theta_uv of nodes (i, s) and (j, s') is, with sums over the places i and j (once if i = j),
///   "jaccard": c(s, s') / (c(s, s) + c(s', s') - c(s, s')),   "share": c(s, s') / n      [STEMMED Eq. 6],
/// shrunk to the same ratio of all places by `prior_weight` events. Gives joint, either, prior.
std::tuple<at::Tensor, at::Tensor, at::Tensor> hawkes_network(const at::Tensor& together,
                                                              const at::Tensor& events,
                                                              std::string_view kind);

/// theta [M, M] (receiver, source) of refresh r of such tables.
at::Tensor hawkes_theta(const at::Tensor& joint, const at::Tensor& either, const at::Tensor& prior,
                        double prior_weight, int64_t refresh);

/// Mean [H, M] and, if wanted, covariance [H, M, M] of the counts of H periods to come, exactly.
///
/// From time 0, with rates lambda = mu + S, dS = -D S dt + sum of jumps: an event at node v adds a random
/// vector k_v to S, of mean jump[:, v]. With C = K - D, K = jump:
///   d E[S] = (C E[S] + K mu) dt,  d E[N] = (mu + E[S]) dt
///   dV/dt = F V + V F' + sum_v E[lambda_v] E[(k_v, e_v) (k_v, e_v)'],  F = [[C, 0], [I, 0]]
/// the first by matrix exponentials, the second by Gauss's rule between them. The base rate is constant in
/// each period.
///
/// base [H, M] > 0, decay [M] > 0, excitation [M] >= 0: mu, D and S at time 0; jump [M, M]; second [M, M, M]:
/// E[k_v k_v'] for each v, or undefined if jumps are constant; edges [H + 1]: 0 = e_0 < e_1 < ..., in the
/// unit of time of mu and D. cumulative: counts from 0 to e_h instead of those of each period.
std::tuple<at::Tensor, at::Tensor> hawkes_moments(const at::Tensor& base, const at::Tensor& decay,
                                                  const at::Tensor& excitation,
                                                  const at::Tensor& jump,
                                                  const std::optional<at::Tensor>& second,
                                                  const at::Tensor& edges, bool covariance,
                                                  bool cumulative);

/// Natural parameters from working coordinates [..., P] = (log gamma, beta[p], log nu, softplus^-1 delta_g,
/// omega[q], log delta_k), nu = alpha / delta_k, and back (delta_g, delta_k > 0).
at::Tensor hawkes_natural(const at::Tensor& working, int64_t covariates);
at::Tensor hawkes_working(const at::Tensor& parameters, int64_t covariates);

/// Gradient [R, P] and Hessian [R, P, P] for natural parameters, at working coordinates [R, P], as those for
/// the working coordinates.
std::tuple<at::Tensor, at::Tensor> hawkes_chain(const at::Tensor& working,
                                                const at::Tensor& gradient,
                                                const at::Tensor& hessian, int64_t covariates);

/// Dynamics that start from today's excitation and relax to the recent rates, so that growth is not taken for
/// excitation (docs/stemmed.md, `anchor`): factors f [M] <= 1 for jump and excitation, such that
/// (B rate)_u <= .8 rate_u with B = f jump / decay, and the base rate (I - B) rate. Gives (base, f).
std::tuple<at::Tensor, at::Tensor> hawkes_anchor(const at::Tensor& decay, const at::Tensor& jump,
                                                 const at::Tensor& rate);

/// The course of fitted rates. At each of the n own events of all items in (b_0, b_B]: intensity lambda, base
/// rate mu, and compensator int_{b_0}^{t} lambda, [n] each. Item r has events start[r] to start[r + 1] - 1.
/// For each block: int lambda and int mu, [R, B].
struct HawkesCourse {
  at::Tensor start, intensity, immigrant, compensator, block_total, block_base;
};
HawkesCourse hawkes_course(const HawkesEvents& events, const at::Tensor& item_node,
                           const at::Tensor& parameters);

/// The state that forecasts start from, at the last edge T and with the last block's covariates and refresh:
/// base rate mu [M], excitation S [M], mean jump [M, M] (receiver, source) of S by an event, and, if wanted,
/// E[k_v k_v'] [M, M, M] (source, receiver, receiver), else [0]. An event of node v takes the marks of one of
/// the records pool[pool_start[v]..pool_start[v + 1] - 1].
struct HawkesState {
  at::Tensor base, excitation, jump, second;
};
HawkesState hawkes_state(const HawkesEvents& events, const at::Tensor& parameters,
                         const at::Tensor& pool_start, const at::Tensor& pool, bool second);

/// R [M, M] (receiver u, source v): what n events still add, without theta, to the excitation of each node,
///   R_uv = sum over events x at v of sign_x alpha_u exp(-delta_g,u dist + omega_u m_x - delta_k,u lag_x).
/// So each record updates R in O(M), in any order: new and late ones with sign 1, deleted ones with sign -1.
/// lag [n] >= 0, time since the events; sign [n]; node int64 [n]; marks [n, q]; distance [I, I]; parameters
/// [M, P].
at::Tensor hawkes_event_terms(const at::Tensor& lag, const at::Tensor& sign, const at::Tensor& node,
                              const at::Tensor& marks, const at::Tensor& distance,
                              const at::Tensor& parameters);

/// Counts int32 [paths, H, M] of simulated futures, and which paths were cut off at `most_events` [paths]:
/// see kernels/hawkes_branching.h. Path r has the parameters of set r / ceil(paths / sets).
///
/// parameters [sets, M, P], excitation [sets, M], base [sets, H, M], edges [H + 1] from 0; mode
/// "branching", "thinning" or "paper"; key int64[2]. The draws depend on key and path alone.
std::tuple<at::Tensor, at::Tensor> hawkes_simulate(
    const HawkesEvents& events, const at::Tensor& parameters, const at::Tensor& excitation,
    const at::Tensor& base, const at::Tensor& edges, const at::Tensor& pool_start,
    const at::Tensor& pool, int64_t num_paths, std::string_view mode, int64_t most_events,
    const at::Tensor& key);

}  // namespace topreach
