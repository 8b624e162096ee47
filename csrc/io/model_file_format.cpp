#include "model_file_format.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>

#include "../programs/program.h"
#include "../require.h"
#include "sha256.h"

namespace topreach {

namespace {

// A zip archive ends with a record of 22 bytes; the last two are the length of the comment that follows.
constexpr std::string_view kEndRecord("PK\5\6", 4);
constexpr std::string_view kLabel = "topreach-sha256:";
constexpr size_t kEndSize = 22, kDigestSize = 64, kCommentSize = kLabel.size() + kDigestSize;

void set_comment_length(std::string& archive, size_t length) {
  archive[archive.size() - 2] = char(length & 255);
  archive[archive.size() - 1] = char(length >> 8);
}

}  // namespace

CheckedArchive with_digest(std::string archive) {
  TORCH_INTERNAL_ASSERT(archive.size() >= kEndSize &&
                        archive.compare(archive.size() - kEndSize, 4, kEndRecord) == 0);
  set_comment_length(archive, kCommentSize);
  const std::string digest = sha256(archive);
  return {archive + std::string(kLabel) + digest, digest};
}

CheckedArchive checked_archive(const std::string& bytes, const std::string& path) {
  const size_t size = bytes.size() < kCommentSize ? 0 : bytes.size() - kCommentSize;
  const bool labelled = size >= kEndSize && bytes.compare(size, kLabel.size(), kLabel) == 0;
  TR_REQUIRE(
      labelled,
      "load_model_file: path must be a whole model file, got {}, which is damaged, cut short or "
      "of another kind (it does not end with a digest). Copy it again, or fit the model again.",
      path);
  std::string archive = bytes.substr(0, size);
  const std::string digest = bytes.substr(size + kLabel.size());
  const std::string found = sha256(archive);
  TR_REQUIRE(
      found == digest,
      "load_model_file: path must be a whole model file, got {}, which is damaged: its digest is "
      "not that of its contents. Copy it again, or fit the model again.",
      path);
  set_comment_length(archive, 0);
  return {std::move(archive), digest};
}

void check_model_file(const char* function, const ModelFile& file, bool own_program) {
  const int64_t sites = int64_t(file.site_ids.size());
  const int64_t features = int64_t(file.standardizer.feature_names.size());
  const auto require = [&](bool good, const char* part, const char* requirement) {
    TR_REQUIRE(good, "{}: {} must be {}, got another", function, part, requirement);
  };
  require(sites >= 1 && std::set<std::string>(file.site_ids.begin(), file.site_ids.end()).size() ==
                            file.site_ids.size(),
          "site_ids", "one or more distinct names");
  const Standardizer& scaling = file.standardizer;
  require(std::ranges::is_sorted(scaling.kept) &&
              std::ranges::all_of(scaling.kept, [&](int64_t c) { return c >= 0 && c < features; }),
          "standardizer.kept", "numbers of columns in feature_names, ascending");
  const int64_t kept = int64_t(scaling.kept.size());
  require(scaling.mean.defined() && scaling.scale.defined() &&
              scaling.mean.sizes() == at::IntArrayRef{kept} &&
              scaling.scale.sizes() == at::IntArrayRef{kept},
          "standardizer.mean and scale", "tensors with one entry per kept column");
  require(scaling.mean.isfinite().all().item<bool>() &&
              scaling.scale.isfinite().logical_and(scaling.scale.gt(0)).all().item<bool>(),
          "standardizer.mean and scale", "finite, and the scale positive");
  require(std::isfinite(file.time_origin), "time.origin", "finite");
  require(std::isfinite(file.time_scale) && file.time_scale > 0, "time.scale", "finite and > 0");
  require(std::ranges::is_sorted(file.fitted_times) && !file.fitted_times.empty(), "fitted_times",
          "one or more times, ascending");
  const auto ascend = [](const std::vector<double>& times) {
    return std::ranges::adjacent_find(times, [](double a, double b) { return !(a < b); }) ==
           times.end();
  };
  require(ascend(file.past.times), "past.times", "ascending");
  const int64_t rows = int64_t(file.past.times.size());
  for (const double time : file.past.times) file.calendar.index(time);
  for (const double time : file.fitted_times) file.calendar.index(time);
  require(rows == 0 || file.past.counts.defined(), "past.counts", "given with past.times");
  for (const torch::Tensor* part : {&file.past.counts, &file.past.upper, &file.past.exposure}) {
    require(!part->defined() || (part->scalar_type() == torch::kFloat &&
                                 part->sizes() == at::IntArrayRef({rows, sites})),
            "past.counts, upper and exposure", "float32 tensors of shape [N, S]");
  }
  if (file.past.counts.defined())
    require(
        !file.past.counts.lt(0).any().item<bool>() && !file.past.counts.isinf().any().item<bool>(),
        "past.counts", "finite and not negative, or NaN where not known");
  require(!file.last_features.defined() ||
              file.last_features.sizes() == at::IntArrayRef({sites, features}),
          "last_features", "of shape [S, P]");
  require(!file.constant_features.defined() ||
              (file.constant_features.scalar_type() == torch::kBool &&
               file.constant_features.sizes() == at::IntArrayRef{features}),
          "constant_features", "a bool tensor of shape [P]");
  for (const std::vector<double>* times : {&file.opened, &file.closed})
    require(times->empty() || int64_t(times->size()) == sites, "opened and closed",
            "empty or one time per site");
  if (!own_program) make_program(file.program, file.program_config)->check(function, sites);
  require(file.ranking == "exact" || file.ranking == "ratio" || file.ranking == "mean" ||
              file.ranking == "score",
          "ranking", "'exact', 'ratio', 'mean' or 'score'");
  require(file.model_samples >= 1, "model_samples", "at least 1");
  require(file.key.defined() && file.key.scalar_type() == torch::kLong &&
              file.key.sizes() == at::IntArrayRef{2},
          "key", "an int64 tensor of shape [2]");
  for (const auto& [name, tensor] : file.state) {
    TR_REQUIRE(
        tensor.defined() && (!tensor.is_floating_point() || !tensor.isnan().any().item<bool>()),
        "{}: state.{} must be a tensor without NaN, got another", function, name);
  }
  if (!file.site_history) return;
  const SiteHistory& history = *file.site_history;
  require(!history.half_lives.empty() &&
              std::ranges::all_of(history.half_lives, [](double h) { return h > 0; }),
          "site_history.half_lives", "numbers > 0, at least one");
  require(history.season >= 0, "site_history.season", "not negative");
  require(history.graphs.size() == history.concentration.size(), "site_history.concentration",
          "a list with one entry per graph");
  for (const Neighbours& near : history.graphs) {
    const int64_t edges = near.sites.numel();
    require(near.start.sizes() == at::IntArrayRef{sites + 1} && near.sites.dim() == 1 &&
                near.weights.sizes() == near.sites.sizes() && near.start[0].item<int64_t>() == 0 &&
                near.start[sites].item<int64_t>() == edges &&
                near.start.diff().ge(0).all().item<bool>() &&
                near.sites.ge(0).logical_and(near.sites.lt(sites)).all().item<bool>(),
            "site_history.graphs", "lists of sites for each site");
  }
}

}  // namespace topreach
