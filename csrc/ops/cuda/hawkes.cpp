#include <ATen/Functions.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "../../../kernels/cuda/hawkes.h"
#include "../hawkes_checks.h"
#include "launch.h"

namespace topreach {
namespace {

constexpr const char* kName = "hawkes_log_likelihood";
constexpr int64_t kMostBlocks = 1024;               // items at work at one time
constexpr int64_t kMostScratch = int64_t{1} << 29;  // bytes, if one item needs no more
using Optional = std::optional<at::Tensor>;

// Events by node, in order of time; the first M + 1 entries are the positions where each node's begin.
at::Tensor events_by_node(const at::Tensor& node, int64_t nodes) {
  const int64_t events = node.size(0);
  const auto* const of = node.const_data_ptr<int32_t>();
  at::Tensor list = at::zeros({nodes + 1 + events}, at::kLong);
  auto* const start = list.mutable_data_ptr<int64_t>();
  for (int64_t x = 0; x < events; ++x) ++start[of[x] + 1];
  for (int64_t v = 0; v < nodes; ++v) start[v + 1] += start[v];
  std::vector<int64_t> next(start, start + nodes);
  for (int64_t x = 0; x < events; ++x) start[nodes + 1 + next[size_t(of[x])]++] = x;
  return list;
}

// Arguments are checked on the host, wherever they are: the problem, some megabytes at most, is copied
// there and back.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> derivatives_cuda(
    const at::Tensor& time, const at::Tensor& node, const at::Tensor& marks,
    const at::Tensor& edges, const at::Tensor& weights, const at::Tensor& covariates,
    const at::Tensor& distance, const at::Tensor& refresh, const Optional& joint,
    const Optional& either, const Optional& prior, double prior_weight, const at::Tensor& item_node,
    const at::Tensor& parameters, int64_t order) {
  check_hawkes_derivatives(kName, joint, either, prior, order);
  TR_REQUIRE(parameters.device().is_cuda(),
             "{}: parameters must be on the GPU where another argument is, got {}", kName,
             parameters.device());
  const HawkesTensors problem(kName,
                              events_of(time, node, marks, edges, weights, covariates, distance,
                                        refresh, joint, either, prior, prior_weight),
                              item_node, parameters);
  const OnDeviceOf device(parameters);
  const int64_t items = problem.items(), size = problem.size();
  const auto options = parameters.options().dtype(at::kDouble);
  at::Tensor value = at::empty({items}, options);
  at::Tensor gradient = at::empty({items, order >= 1 ? size : 0}, options);
  at::Tensor hessian = at::empty({items, order == 2 ? size : 0, order == 2 ? size : 0}, options);
  at::Tensor failed = at::empty({items}, options.dtype(at::kLong));
  if (items == 0) return {value, gradient, hessian, failed};

  std::vector<at::Tensor> held;
  kernels::cuda::HawkesBatch batch{};
  batch.problem = problem.view_on(parameters.device(), held);
  const at::Tensor item_nodes = held[held.size() - 2], item_parameters = held.back();
  const int64_t nodes = batch.problem.places * batch.problem.types;
  const at::Tensor list =
      events_by_node(problem.node(), nodes).to(parameters.device(), /*non_blocking=*/true);
  batch.items = {item_nodes.const_data_ptr<int32_t>(),
                 item_parameters.const_data_ptr<double>(),
                 value.mutable_data_ptr<double>(),
                 order >= 1 ? gradient.mutable_data_ptr<double>() : nullptr,
                 order == 2 ? hessian.mutable_data_ptr<double>() : nullptr,
                 failed.mutable_data_ptr<int64_t>()};
  batch.count = items;
  batch.own_start = list.const_data_ptr<int64_t>();
  batch.own = batch.own_start + nodes + 1;
  const int64_t bytes = kernels::cuda::hawkes_scratch(problem.view(), order == 2);
  batch.blocks = std::clamp<int64_t>(kMostScratch / bytes, 1, std::min(items, kMostBlocks));
  const at::Tensor scratch = workspace_like(parameters, bytes * batch.blocks);
  batch.scratch = scratch.mutable_data_ptr();
  C10_CUDA_CHECK(kernels::cuda::hawkes(batch, device.stream()));
  return {value, gradient, hessian, failed};
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CUDA, m) { m.impl("hawkes_derivatives", derivatives_cuda); }

}  // namespace topreach
