#include "with_effect.h"

#include <ATen/ATen.h>

#include <cmath>
#include <map>

#include "../require.h"
#include "site_name.h"

namespace topreach {

WithEffect::WithEffect(ProgramPtr program, std::vector<double> effect,
                       std::vector<std::string> sites)
    : program_(std::move(program)),
      effect_(std::move(effect)),
      sites_(std::move(sites)) {
  TR_REQUIRE(program_ != nullptr, "WithEffect: program must be given, got none");
  TR_REQUIRE(!effect_.empty(), "WithEffect: effect must have one entry per site, got none");
  TR_REQUIRE(sites_.empty() || sites_.size() == effect_.size(),
             "WithEffect: sites must have one id for each of {} effects, got {}", effect_.size(),
             sites_.size());
  for (size_t s = 0; s < effect_.size(); ++s)
    TR_REQUIRE(effect_[s] >= 0 && effect_[s] <= 1,
               "WithEffect: effect must be a share from 0 to 1, got {} for site {}", effect_[s],
               site_name(sites_, s));
  factor_ = at::tensor(effect_, at::kDouble);
}

ProgramConfig WithEffect::config() const {
  ProgramConfig config = program_->config();
  config.emplace_back("effect", effect_);
  config.emplace_back("effect_sites", sites_);
  return config;
}

std::string WithEffect::describe() const {
  std::string text = program_->describe();
  if (!text.empty() && text.back() == ')') text.pop_back();
  return text + ", by effect)";
}

void WithEffect::check(const char* function, int64_t sites) const {
  TR_REQUIRE(sites == int64_t(effect_.size()),
             "{}: effect must have an entry for each of S = {} sites, got {}", function, sites,
             effect_.size());
  program_->check(function, sites);
}

ProgramPtr WithEffect::for_sites(const char* function, const std::vector<std::string>& ids) const {
  const ProgramPtr moved = program_->for_sites(function, ids);
  const ProgramPtr& inner = moved ? moved : program_;
  if (sites_ == ids) return moved ? std::make_shared<WithEffect>(inner, effect_, ids) : nullptr;
  if (sites_.empty()) {
    TR_REQUIRE(ids.size() == effect_.size(),
               "{}: effect must have an entry for each of S = {} sites, got {}", function,
               ids.size(), effect_.size());
    return std::make_shared<WithEffect>(inner, effect_, ids);
  }
  std::map<std::string, double> known;
  for (size_t s = 0; s < sites_.size(); ++s) known[sites_[s]] = effect_[s];
  std::vector<double> effect;
  for (const std::string& id : ids) {
    const auto at = known.find(id);
    TR_REQUIRE(at != known.end(), "{}: effect must have every site, got none for site '{}'",
               function, id);
    effect.push_back(at->second);
  }
  return std::make_shared<WithEffect>(inner, std::move(effect), ids);
}

// A closed site (value -inf) stays closed whatever its effect.
at::Tensor WithEffect::site_values(const at::Tensor& values) const {
  TR_REQUIRE(values.dim() >= 1 && values.size(-1) == factor_.size(0),
             "{}: values must have shape [..., S = {}] for its effects, got {}", name(),
             factor_.size(0), values.sizes());
  const at::Tensor factor =
      factor_.to(values.device())
          .to(at::isFloatingType(values.scalar_type()) ? values.scalar_type() : at::kDouble);
  const at::Tensor own = program_->site_values(values);
  return at::where(own.isinf(), own.to(factor.scalar_type()), own * factor);
}

at::Tensor WithEffect::best(const at::Tensor& values) const {
  return program_->best(site_values(values));
}

Solution WithEffect::solve(const at::Tensor& values) const {
  return program_->solve(site_values(values));
}

at::Tensor WithEffect::soft(const at::Tensor& values, const SoftOptions& options) const {
  return program_->soft(site_values(values), options);
}

at::Tensor WithEffect::reach(const at::Tensor& plan, const at::Tensor& y) const {
  return program_->reach(plan, site_values(y));
}

at::Tensor WithEffect::bpr(const at::Tensor& scores, const at::Tensor& y) const {
  return program_->bpr(site_values(scores), site_values(y));
}

at::Tensor WithEffect::soft_bpr(const at::Tensor& plan, const at::Tensor& y) const {
  return program_->soft_bpr(plan, site_values(y));
}

at::Tensor WithEffect::chance(const at::Tensor& samples) const {
  return program_->chance(site_values(samples));
}

}  // namespace topreach
