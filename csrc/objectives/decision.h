// Shared by all objectives that train for a choice: the program, how a forecast ranks the sites, and which
// cells take part.
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>

#include "../distributions/count_distribution.h"
#include "../programs/program.h"
#include "../programs/topk.h"

namespace topreach {

/// A program, or K for TopK(K): the objectives' options take either, `{.program = 100}`.
class ProgramOrK {
 public:
  ProgramOrK(int64_t k) : program_(std::make_shared<TopK>(k)) {}
  ProgramOrK(int k) : ProgramOrK(int64_t(k)) {}
  ProgramOrK(ProgramPtr program) : program_(std::move(program)) {}
  template <typename P>
    requires std::derived_from<P, Program>
  ProgramOrK(std::shared_ptr<P> program) : program_(std::move(program)) {}

  const Program& operator*() const { return *program_; }
  const Program* operator->() const { return program_.get(); }

 private:
  ProgramPtr program_;
};

/// How a forecast ranks the sites.
struct RankingOptions {
  // "exact": the ratio ranking without draws; "ratio": over draws; "mean"; or "auto": "exact" where the
  // forecast has it, else "ratio".
  std::string ranking = "auto";
  int64_t model_samples = 100;                            // M, draws for "ratio"
  std::string ranking_estimator = "score_loo";            // gradient of "ratio"
  double offset = 0.0;                                    // c in y_s / (c + sum y)
  std::optional<torch::Tensor> key = std::nullopt;        // int64[2] of the draws; drawn if absent
  std::optional<at::Generator> generator = std::nullopt;  // to draw the key from
};

/// The ranking that `ranking` means for this forecast: "exact", "ratio" or "mean". Raises
/// c10::ValueError for an unknown name, c10::TypeError for "exact" if the forecast cannot compute it.
std::string resolved_ranking(const char* function, const std::string& ranking,
                             const CountDistribution& counts);

/// Scores r [..., S] of a forecast, with their gradient.
torch::Tensor ranking_scores(const char* function, const CountDistribution& counts,
                             const RankingOptions& options);

/// Scores and counts of a choice, checked, with closed sites taken out.
struct Decision {
  torch::Tensor scores;      // [..., T, S], or [..., 1, S] for all periods; -inf at closed sites
  torch::Tensor y;           // [..., T, S], no gradient; 0 at closed sites
  torch::Tensor has_events;  // bool [..., T]
};

/// `open` (bool [..., T, S]) says which sites can be acted on; all if absent. A closed site takes no part
/// in the choice, and its count, which may be NaN, is not read.
///
/// Raises c10::ValueError for undefined tensors, scores of another shape than y (or one row), a NaN
/// score, a count that is NaN or negative at an open site, and a program without a plan for S sites.
Decision decision_of(const char* function, const torch::Tensor& scores, const torch::Tensor& y,
                     const std::optional<torch::Tensor>& open, const Program& program);

/// sum_t w_t values_t over [..., T]. Raises c10::ValueError for weights of another shape than [T], or that
/// are negative or not finite.
torch::Tensor weighted_sum(const char* function, const torch::Tensor& values,
                           const std::optional<torch::Tensor>& weights);

/// Mean of values over the periods with events; NaN if there are none.
torch::Tensor mean_over_events(const torch::Tensor& values, const torch::Tensor& has_events);

}  // namespace topreach
