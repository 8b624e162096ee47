// How operators behave under torch.autocast and torch.func.vmap: one boxed kernel for each, and a
// table that says where an operator keeps its rows.
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "../require.h"

namespace topreach {
namespace {

using torch::jit::Stack;

// ---- autocast ----------------------------------------------------------------------------------

// Scores, counts and probabilities are computed in float32: half and bfloat16 are converted.
template <c10::DispatchKey key, c10::DeviceType device>
void in_float32(const c10::OperatorHandle& op, Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(key);
  const size_t count = op.schema().arguments().size();
  for (size_t i = stack->size() - count; i < stack->size(); ++i) {
    at::IValue& value = (*stack)[i];
    if (value.isTensor()) value = at::autocast::cached_cast(at::kFloat, value.toTensor(), device);
  }
  op.callBoxed(stack);
}

// ---- vmap --------------------------------------------------------------------------------------

// The position of the batch in an argument or result.
enum class Layout {
  kRows,       // [..., S]: in front, the same leading shape for all tensors
  kBroadcast,  // in front, after the arguments have been given the same number of dimensions
};

struct Rule {
  std::string_view op;
  Layout layout;
  std::vector<int64_t> arguments;  // dimension of the batch in each tensor argument
  int64_t result = 0;              // and in the results
  int64_t least_dims = 1;          // of the first tensor, without the batch
  // Results have the shapes of these arguments (gradients), else that of the operator.
  std::vector<size_t> like = {};
};

// Arguments that all rows share: keys, and those that define the allowed plans.
bool is_shared(std::string_view argument) {
  return argument == "key" || argument == "groups" || argument == "lower" || argument == "upper" ||
         argument == "parent" || argument == "lock";
}

// The operators' tensor arguments in the order of schemas.cpp, shared ones left out.
const std::vector<Rule>& rules() {
  static const std::vector<Rule> table = {
      {"topk_mask", Layout::kRows, {0}},
      {"topk_mask_rows", Layout::kRows, {0, 0}},
      {"soft_rows", Layout::kRows, {0}, 0, 0},
      {"best_reach", Layout::kRows, {0}},
      {"expected_topk", Layout::kRows, {0}},
      {"expected_topk_jvp", Layout::kRows, {0, 0, 0}},
      {"perturbed_topk", Layout::kRows, {0}},
      {"perturbed_topk_backward", Layout::kRows, {0, 0, 0, 0, 0, 0}},
      {"quota_topk", Layout::kRows, {0}},
      {"expected_quota_topk", Layout::kRows, {0}},
      {"expected_quota_topk_jvp", Layout::kRows, {0, 0}},
      {"perturbed_quota_topk", Layout::kRows, {0}},
      {"perturbed_quota_topk_backward", Layout::kRows, {0, 0, 0}},
      {"ratio_ranking", Layout::kRows, {1, 1}, 0, 2},
      {"ratio_ranking_backward", Layout::kRows, {0, 1, 0}, 1},
      {"ratio_ranking_go", Layout::kRows, {1, 1, 1}, 0, 2},
      {"ratio_ranking_go_backward", Layout::kRows, {0, 1, 1}, 1},
      {"bpr", Layout::kBroadcast, {0, 0}},
      {"expected_ratio_ranking", Layout::kBroadcast, {0, 0, 0}},
      {"expected_ratio_ranking_backward", Layout::kBroadcast, {0, 0, 0, 0}, 0, 1, {1, 2, 3}},
      {"negbin_sample", Layout::kBroadcast, {0, 0}, 1, 0},
      {"poisson_sample", Layout::kBroadcast, {0}, 1, 0},
      {"zero_inflated_zeros", Layout::kBroadcast, {1, 1}, 1, 1},
      {"site_mixture_sample", Layout::kBroadcast, {0, 0, 0}, 1, 2},
      {"negbin_log_prob", Layout::kBroadcast, {0, 0, 0}, 0, 0},
      {"negbin_log_prob_backward", Layout::kBroadcast, {0, 0, 0, 0}, 0, 0, {2, 3}},
      {"topk_noise", Layout::kRows, {}},
      {"topk_noise_checksum", Layout::kRows, {}},
  };
  return table;
}

const Rule& rule_of(const c10::OperatorHandle& op) {
  const std::string_view name = op.schema().name();
  const auto found = std::find_if(rules().begin(), rules().end(), [&](const Rule& rule) {
    return name.substr(name.find("::") + 2) == rule.op;
  });
  TORCH_INTERNAL_ASSERT(found != rules().end());
  return *found;
}

// A tensor argument without the batch dimension of this level.
struct Argument {
  size_t position;  // on the stack
  at::Tensor tensor;
  std::optional<int64_t> batch;  // its dimension
  bool shared;

  int64_t dims() const { return tensor.dim() - (batch ? 1 : 0); }
};

// One call for each element of the batch, results stacked.
void call_in_turn(const c10::OperatorHandle& op, Stack* stack, const std::vector<Argument>& given,
                  int64_t size, int64_t level) {
  const size_t count = op.schema().arguments().size(), results = op.schema().returns().size();
  TR_REQUIRE(size > 0, "{}: the batch of vmap must not be empty, got size 0", op.schema().name());
  std::vector<std::vector<at::Tensor>> outputs(results);
  for (int64_t i = 0; i < size; ++i) {
    Stack own(stack->end() - int64_t(count), stack->end());
    for (const Argument& argument : given)
      own[argument.position] =
          argument.batch ? argument.tensor.select(*argument.batch, i) : argument.tensor;
    op.callBoxed(&own);
    for (size_t r = 0; r < results; ++r) outputs[r].push_back(own[r].toTensor());
  }
  stack->erase(stack->end() - int64_t(count), stack->end());
  for (const auto& output : outputs)
    stack->emplace_back(at::functorch::makeBatched(at::stack(output), 0, level));
}

// The argument with the batch at `where`, of `dims` dimensions without it.
at::Tensor placed(const Argument& argument, int64_t where, int64_t dims, int64_t size) {
  at::Tensor tensor = argument.tensor;
  if (argument.batch) {
    tensor = tensor.movedim(*argument.batch, 0);
  } else {
    std::vector<c10::SymInt> shape(tensor.sym_sizes().begin(), tensor.sym_sizes().end());
    shape.insert(shape.begin(), size);
    tensor = tensor.unsqueeze(0).expand_symint(shape);
  }
  while (tensor.dim() < dims + 1) tensor = tensor.unsqueeze(1);
  return where == 0 ? tensor : tensor.movedim(0, where);
}

// The batch becomes leading rows, so that each of its rows has its own row number and noise.
void over_rows(const c10::OperatorHandle& op, Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard no_batching(c10::DispatchKey::FuncTorchBatched);
  const Rule& rule = rule_of(op);
  const auto& schema = op.schema().arguments();
  const size_t first = stack->size() - schema.size();
  // The level of this vmap is the innermost at which an argument is batched.
  int64_t level = -1;
  for (size_t i = 0; i < schema.size(); ++i) {
    const at::IValue& value = (*stack)[first + i];
    if (!value.isTensor()) continue;
    const auto* batched = at::functorch::maybeGetBatchedImpl(value.toTensor());
    if (batched != nullptr) level = std::max(level, batched->level());
  }
  std::vector<Argument> given;
  std::optional<int64_t> size;
  for (size_t i = 0; i < schema.size(); ++i) {
    const at::IValue& value = (*stack)[first + i];
    if (!value.isTensor() || !value.toTensor().defined()) continue;
    const at::Tensor& tensor = value.toTensor();
    const auto* batched = at::functorch::maybeGetBatchedImpl(tensor);
    Argument argument{i, tensor, std::nullopt, is_shared(schema[i].name())};
    if (batched != nullptr && batched->level() == level) {
      argument.tensor = batched->value();
      argument.batch = batched->bdim();
      size = argument.tensor.size(*argument.batch);
    }
    given.push_back(argument);
  }
  if (!size) return op.callBoxed(stack);

  // Row numbers are those of the scores. If these are not batched, or keys are, calls are made in turn.
  const Argument* scores = nullptr;
  bool apart = false, has_key = false;
  int64_t dims = 0;
  std::vector<bool> batched_scores;
  for (const Argument& argument : given) {
    if (argument.shared) {
      has_key |= schema[argument.position].name() == "key";
      apart |= argument.batch.has_value();
      continue;
    }
    dims = std::max(dims, argument.dims());
    const bool names_rows =
        schema[argument.position].name() == "scores" || rule.layout == Layout::kBroadcast;
    if (names_rows) batched_scores.push_back(argument.batch.has_value());
    if (scores == nullptr) scores = &argument;
  }
  if (has_key)
    apart |= std::none_of(batched_scores.begin(), batched_scores.end(), [](bool b) { return b; });
  apart |= scores == nullptr || scores->dims() < rule.least_dims;
  if (apart) return call_in_turn(op, stack, given, *size, level);

  const bool scalars =
      has_key && rule.layout == Layout::kBroadcast && dims == 0;  // rows of one site
  std::vector<std::vector<c10::SymInt>> shapes(schema.size());
  size_t tensor = 0;
  for (size_t i = 0; i < schema.size(); ++i) {
    const auto argument = std::find_if(given.begin(), given.end(),
                                       [&](const Argument& a) { return a.position == i; });
    const bool is_tensor = schema[i].type()->isSubtypeOf(*c10::OptionalType::ofTensor());
    if (!is_tensor || is_shared(schema[i].name())) continue;
    const size_t number = tensor++;
    if (argument == given.end()) continue;
    const int64_t wanted =
        rule.layout == Layout::kBroadcast ? std::max<int64_t>(dims, scalars) : argument->dims();
    const at::Tensor in_front = placed(*argument, 0, argument->dims(), *size);
    shapes[i].assign(in_front.sym_sizes().begin(), in_front.sym_sizes().end());
    (*stack)[first + i] = placed(*argument, rule.arguments[number], wanted, *size);
  }
  op.callBoxed(stack);
  const size_t results = op.schema().returns().size(), begin = stack->size() - results;
  std::vector<size_t> tensor_positions;
  for (size_t i = 0; i < schema.size(); ++i)
    if (schema[i].type()->isSubtypeOf(*c10::OptionalType::ofTensor()) &&
        !is_shared(schema[i].name()))
      tensor_positions.push_back(i);
  for (size_t r = 0; r < results; ++r) {
    at::Tensor result = (*stack)[begin + r].toTensor();
    if (!rule.like.empty()) {
      const auto& shape = shapes[tensor_positions[rule.like[r]]];
      if (shape.empty()) continue;  // an argument that was not given
      result = result.reshape_symint(shape);
    }
    if (scalars) result = result.squeeze(-1);
    (*stack)[begin + r] = at::functorch::makeBatched(result, rule.result, level);
  }
}

using c10::DeviceType;
using c10::DispatchKey;
// Operators without a rule for vmap: it decomposes them (FuncTorchBatchedDecomposition, in the files that
// define them), or calls them in turn.
constexpr const char* kComposites[] = {"expected_topk_rows",
                                       "perturbed_topk_rows",
                                       "soft_bpr",
                                       "negbin_moments",
                                       "negbin_of_moments",
                                       "poisson_log_prob",
                                       "zero_inflated_moments",
                                       "zero_inflated_log_prob",
                                       "site_mixture_log_prob",
                                       "site_mixture_moments",
                                       "site_mixture_expected_ratio_ranking",
                                       "laplace_marginal",
                                       "laplace_path_posterior",
                                       "negbin_mixed_effects_marginal",
                                       "posterior_risk"};
constexpr auto kAutocastCpu = &in_float32<DispatchKey::AutocastCPU, DeviceType::CPU>;
constexpr auto kAutocastCuda = &in_float32<DispatchKey::AutocastCUDA, DeviceType::CUDA>;

}  // namespace

TORCH_LIBRARY_IMPL(topreach, AutocastCPU, m) {
  for (const Rule& rule : rules())
    m.impl(rule.op.data(), torch::CppFunction::makeFromBoxedFunction<kAutocastCpu>());
  for (const char* op : kComposites)
    m.impl(op, torch::CppFunction::makeFromBoxedFunction<kAutocastCpu>());
}

TORCH_LIBRARY_IMPL(topreach, AutocastCUDA, m) {
  for (const Rule& rule : rules())
    m.impl(rule.op.data(), torch::CppFunction::makeFromBoxedFunction<kAutocastCuda>());
  for (const char* op : kComposites)
    m.impl(op, torch::CppFunction::makeFromBoxedFunction<kAutocastCuda>());
}

TORCH_LIBRARY_IMPL(topreach, FuncTorchBatched, m) {
  for (const Rule& rule : rules())
    m.impl(rule.op.data(), torch::CppFunction::makeFromBoxedFunction<&over_rows>());
}

}  // namespace topreach
