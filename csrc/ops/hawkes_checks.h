// Checks the tensors of a networked Hawkes process and converts them for the kernels. Not installed.
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <optional>
#include <vector>

#include "../../kernels/hawkes.h"
#include "../require.h"
#include "hawkes.h"

namespace topreach {

// The arguments of an operator as one table.
inline HawkesEvents events_of(const at::Tensor& time, const at::Tensor& node,
                              const at::Tensor& marks, const at::Tensor& edges,
                              const at::Tensor& weights, const at::Tensor& covariates,
                              const at::Tensor& distance, const at::Tensor& refresh,
                              const std::optional<at::Tensor>& joint,
                              const std::optional<at::Tensor>& either,
                              const std::optional<at::Tensor>& prior, double prior_weight) {
  return {time,
          node,
          marks,
          edges,
          weights,
          covariates,
          distance,
          refresh,
          joint.value_or(at::Tensor()),
          either.value_or(at::Tensor()),
          prior.value_or(at::Tensor()),
          prior_weight};
}

// Checks the arguments of hawkes_derivatives, except its tensors' shapes.
inline void check_hawkes_derivatives(const char* name, const std::optional<at::Tensor>& joint,
                                     const std::optional<at::Tensor>& either,
                                     const std::optional<at::Tensor>& prior, int64_t order) {
  TR_REQUIRE(order >= 0 && order <= 2, "{}: order must be 0, 1 or 2, got {}", name, order);
  TR_REQUIRE(joint.has_value() == either.has_value() && joint.has_value() == prior.has_value(),
             "{}: joint, either and prior must be given together, got some of them", name);
}

inline at::Tensor doubles(const at::Tensor& tensor) {
  return tensor.detach().to(at::kCPU, at::kDouble).contiguous();
}

// The problem that the tensors describe. Owns the tensors.
class HawkesTensors {
 public:
  HawkesTensors(const char* name, const HawkesEvents& e, const at::Tensor& item_node,
                const at::Tensor& parameters)
      : time_(doubles(e.time)),
        marks_(doubles(e.marks)),
        edges_(doubles(e.edges)),
        weights_(doubles(e.weights)),
        covariates_(doubles(e.covariates)),
        distance_(doubles(e.distance)),
        node_(e.node.to(at::kCPU, at::kInt).contiguous()),
        refresh_(e.refresh.to(at::kCPU, at::kInt).contiguous()),
        item_node_(item_node.to(at::kCPU, at::kInt).contiguous()),
        parameters_(doubles(parameters)) {
    const auto shape = [name](const char* argument, const at::Tensor& t, int64_t dim,
                              const char* wanted) {
      TR_REQUIRE(t.dim() == dim, "{}: {} must have shape {}, got {}", name, argument, wanted,
                 t.sizes());
    };
    shape("time", time_, 1, "[N]");
    shape("edges", edges_, 1, "[B + 1]");
    shape("distance", distance_, 2, "[I, I]");
    shape("covariates", covariates_, 3, "[B, M, p] or [B, I, p]");
    const int64_t n = time_.size(0), blocks = edges_.size(0) - 1, places = distance_.size(0);
    TR_REQUIRE(blocks >= 1, "{}: edges must be at least two, got {}", name, edges_.size(0));
    TR_REQUIRE(marks_.dim() == 2 && marks_.size(0) == n,
               "{}: marks must have shape [N, q] with N = {}, got {}", name, n, marks_.sizes());
    TR_REQUIRE(node_.dim() == 1 && node_.size(0) == n,
               "{}: node must have shape [N] = [{}], got {}", name, n, node_.sizes());
    TR_REQUIRE(weights_.dim() == 1 && weights_.size(0) == blocks,
               "{}: weights must have shape [B] = [{}], got {}", name, blocks, weights_.sizes());
    TR_REQUIRE(refresh_.dim() == 1 && refresh_.size(0) == blocks,
               "{}: refresh must have shape [B] = [{}], got {}", name, blocks, refresh_.sizes());
    TR_REQUIRE(places >= 1 && distance_.size(1) == places,
               "{}: distance must have shape [I, I], got {}", name, distance_.sizes());
    ascending(name, "time", time_, false);
    ascending(name, "edges", edges_, true);
    TR_REQUIRE(marks_.isfinite().all().item<bool>() && covariates_.isfinite().all().item<bool>() &&
                   distance_.ge(0).all().item<bool>() && distance_.isfinite().all().item<bool>() &&
                   weights_.ge(0).all().item<bool>() && weights_.isfinite().all().item<bool>(),
               "{}: marks and covariates must be finite, distance and weights finite and >= 0, got "
               "a value that is not",
               name);
    refreshes_ = refresh_[blocks - 1].item<int64_t>() + 1;
    TR_REQUIRE(refresh_[0].item<int64_t>() >= 0 &&
                   (blocks == 1 || refresh_.diff().ge(0).all().item<bool>()),
               "{}: refresh must ascend from 0, got {} to {}", name, refresh_[0].item<int64_t>(),
               refreshes_ - 1);

    const int64_t rows = covariates_.size(1);
    int64_t types = 1;
    if (e.joint.defined()) {
      joint_ = e.joint.to(at::kCPU, at::kFloat).contiguous();
      either_ = e.either.to(at::kCPU, at::kFloat).contiguous();
      prior_ = doubles(e.prior);
      TR_REQUIRE(joint_.dim() == 4 && joint_.size(0) >= refreshes_ &&
                     joint_.size(1) == joint_.size(2) && joint_.size(3) == places &&
                     either_.sizes() == joint_.sizes() &&
                     prior_.sizes() == joint_.sizes().slice(0, 3),
                 "{}: joint and either must have shape [Q, S, S, I] with Q >= {} and I = {}, and "
                 "prior [Q, S, S], got {}, {} and {}",
                 name, refreshes_, places, joint_.sizes(), either_.sizes(), prior_.sizes());
      types = joint_.size(1);
    } else {
      const int64_t highest = n > 0 ? node_.max().item<int64_t>() : 0;
      types = rows > places && rows % places == 0 ? rows / places : highest / places + 1;
    }
    nodes_ = places * types;
    TR_REQUIRE(covariates_.size(0) == blocks && (rows == places || rows == nodes_),
               "{}: covariates must have shape [B, M, p] or [B, I, p] with B = {}, M = {}, I = {}, "
               "got {}",
               name, blocks, nodes_, places, covariates_.sizes());
    nodes_exist(name, "node", node_);
    TR_REQUIRE(item_node_.dim() == 1, "{}: item_node must have shape [R], got {}", name,
               item_node_.sizes());
    nodes_exist(name, "item_node", item_node_);
    problem_ = {
        time_.const_data_ptr<double>(),
        node_.const_data_ptr<int32_t>(),
        marks_.const_data_ptr<double>(),
        n,
        marks_.size(1),
        edges_.const_data_ptr<double>(),
        weights_.const_data_ptr<double>(),
        covariates_.const_data_ptr<double>(),
        rows == places && nodes_ != places,
        blocks,
        covariates_.size(2),
        places,
        types,
        distance_.const_data_ptr<double>(),
        refresh_.const_data_ptr<int32_t>(),
        {nullptr, joint_.defined() ? joint_.const_data_ptr<float>() : nullptr,
         joint_.defined() ? either_.const_data_ptr<float>() : nullptr,
         joint_.defined() ? prior_.const_data_ptr<double>() : nullptr, e.prior_weight, refreshes_}};
    const int64_t size = kernels::hawkes_parameters(problem_);
    TR_REQUIRE(parameters_.dim() == 2 && parameters_.size(0) == item_node_.size(0) &&
                   parameters_.size(1) == size,
               "{}: parameters must have shape [R, p + q + 4] = [{}, {}], got {}", name,
               item_node_.size(0), size, parameters_.sizes());
  }

  const kernels::HawkesProblem& view() const { return problem_; }
  int64_t items() const { return item_node_.size(0); }
  int64_t size() const { return parameters_.size(1); }
  const at::Tensor& node() const { return node_; }
  // The same arrays on another device; `held` keeps them alive. item_node and parameters come last.
  kernels::HawkesProblem view_on(const at::Device& device, std::vector<at::Tensor>& held) const {
    const auto put = [&](const at::Tensor& tensor) -> const at::Tensor& {
      return held.emplace_back(tensor.to(device, /*non_blocking=*/true));
    };
    kernels::HawkesProblem p = problem_;
    p.time = put(time_).const_data_ptr<double>();
    p.node = put(node_).const_data_ptr<int32_t>();
    p.marks = put(marks_).const_data_ptr<double>();
    p.edge = put(edges_).const_data_ptr<double>();
    p.weight = put(weights_).const_data_ptr<double>();
    p.covariates = put(covariates_).const_data_ptr<double>();
    p.distance = put(distance_).const_data_ptr<double>();
    p.refresh = put(refresh_).const_data_ptr<int32_t>();
    if (joint_.defined()) {
      p.theta.joint = put(joint_).const_data_ptr<float>();
      p.theta.either = put(either_).const_data_ptr<float>();
      p.theta.prior = put(prior_).const_data_ptr<double>();
    }
    put(item_node_);
    put(parameters_);
    return p;
  }
  const int32_t* item_node() const { return item_node_.const_data_ptr<int32_t>(); }
  const double* parameters() const { return parameters_.const_data_ptr<double>(); }

 private:
  static void ascending(const char* name, const char* argument, const at::Tensor& t,
                        bool strictly) {
    const bool finite = t.isfinite().all().item<bool>();
    const at::Tensor steps = t.diff();
    const bool rises = (strictly ? steps.gt(0) : steps.ge(0)).all().item<bool>();
    TR_REQUIRE(finite && rises, "{}: {} must be finite and ascend, got {}", name, argument,
               finite ? "a later one before an earlier one" : "a value that is not finite");
  }
  void nodes_exist(const char* name, const char* argument, const at::Tensor& t) const {
    if (t.numel() == 0) return;
    const auto low = t.min().item<int64_t>(), high = t.max().item<int64_t>();
    TR_REQUIRE(low >= 0 && high < nodes_, "{}: {} must lie from 0 to M - 1 = {}, got {}", name,
               argument, nodes_ - 1, low < 0 ? low : high);
  }

  at::Tensor time_, marks_, edges_, weights_, covariates_, distance_;
  at::Tensor node_, refresh_, item_node_, parameters_, joint_, either_, prior_;
  int64_t nodes_ = 0, refreshes_ = 0;
  kernels::HawkesProblem problem_;
};

}  // namespace topreach
