#include "program.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string_view>

#include "../ops/key.h"
#include "../require.h"
#include "config_reader.h"
#include "planned.h"
#include "quotas.h"
#include "topk.h"
#include "with_effect.h"

namespace topreach {

namespace {

constexpr size_t kShown = 3;  // items of a list that describe() shows

// All programs of the library.
struct Maker {
  const char* name;
  ProgramPtr (*make)(ConfigReader&);
};
constexpr Maker kMakers[] = {
    {"TopK", TopK::from_config},
    {"Quotas", Quotas::from_config},
    {"Budget", [](ConfigReader& c) { return Planned::from_config("Budget", c); }},
    {"Spaced", [](ConfigReader& c) { return Planned::from_config("Spaced", c); }},
    {"Connected", [](ConfigReader& c) { return Planned::from_config("Connected", c); }},
    {"Coverage", [](ConfigReader& c) { return Planned::from_config("Coverage", c); }},
    {"Spillover", [](ConfigReader& c) { return Planned::from_config("Spillover", c); }},
    {"CallIn", [](ConfigReader& c) { return Planned::from_config("CallIn", c); }},
    {"Fair", [](ConfigReader& c) { return Planned::from_config("Fair", c); }},
};

std::string text_of(double value) { return fmt::format("{}", value); }
std::string text_of(const std::string& value) { return fmt::format("'{}'", value); }
template <typename T>
std::string text_of(const std::vector<T>& values) {
  std::string text = "[";
  for (size_t i = 0; i < std::min(values.size(), kShown); ++i)
    text += (i ? ", " : "") + text_of(values[i]);
  return text + (values.size() > kShown ? fmt::format(", ... {} in all]", values.size())
                                        : std::string("]"));
}

}  // namespace

std::string Program::describe() const {
  std::string text = name() + "(";
  for (const auto& [argument, value] : config()) {
    text += fmt::format("{}{}={}", text.back() == '(' ? "" : ", ", argument,
                        std::visit([](const auto& v) { return text_of(v); }, value));
  }
  return text + ")";
}

ProgramPtr Program::for_sites(const char*, const std::vector<std::string>&) const {
  return nullptr;
}

at::Tensor Program::site_values(const at::Tensor& values) const { return values; }

Solution Program::solve(const at::Tensor& values) const {
  TR_REQUIRE(values.dim() == 1, "{}.solve: values must have shape [S], got {}", name(),
             values.sizes());
  const auto begin = std::chrono::steady_clock::now();
  Solution solution;
  solution.plan = best(values.unsqueeze(0)).select(0, 0);
  const at::Tensor chosen = solution.plan.gt(0.5).logical_and(values.isfinite());
  solution.value = at::where(chosen, values, 0.0).sum(at::kDouble).item<double>();
  solution.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return solution;
}

at::Tensor Program::soft(const at::Tensor& values, const SoftOptions& options) const {
  TR_REQUIRE(options.topk == "sampled" || options.topk == "exact",
             "{}.soft: topk must be 'sampled' for this program, got '{}'", name(), options.topk);
  TR_REQUIRE(options.noise == "normal",
             "{}.soft: noise must be 'normal' for this program, got '{}'", name(), options.noise);
  TR_REQUIRE(options.sigma > 0 && options.num_samples >= 2,
             "{}.soft: sigma must be > 0 and num_samples >= 2, got {} and {}", name(),
             options.sigma, options.num_samples);
  const at::Tensor key = options.key ? *options.key : draw_key(options.generator, values.device());
  static const auto noise_op = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("topreach::topk_noise", "")
                                   .typed<at::Tensor(const at::Tensor&, int64_t, int64_t, int64_t,
                                                     std::string_view, int64_t)>();
  const int64_t sites = values.size(-1), rows = values.numel() / std::max<int64_t>(sites, 1);
  std::vector<int64_t> shape = values.sizes().vec();
  shape.insert(shape.begin(), options.num_samples);
  const at::Tensor z = noise_op.call(key, options.num_samples, rows, sites, "normal", 0)
                           .to(values.scalar_type())
                           .view(shape);
  const at::Tensor plans = best(values.detach().unsqueeze(0) + options.sigma * z);
  // Score-function gradient with the leave-one-out baseline, as a vector-Jacobian product: the value is
  // the mean plan, the gradient that of sum_j plan_j (log density of values + sigma z_j).
  const at::Tensor centred = (plans - plans.mean(0, true)) / double(options.num_samples - 1);
  // d/dvalues log density = z / sigma; (values - values.detach()) carries the gradient.
  const at::Tensor along =
      (z / options.sigma * (values - values.detach()).unsqueeze(0)).sum(-1, /*keepdim=*/true);
  return plans.mean(0) + (centred * along).sum(0);
}

at::Tensor Program::reach(const at::Tensor& plan, const at::Tensor& y) const {
  return (plan * y.to(plan.scalar_type())).sum(-1);
}

at::Tensor Program::best_reach(const at::Tensor& y) const { return reach(best(y), y); }

at::Tensor Program::bpr(const at::Tensor& scores, const at::Tensor& y) const {
  const at::Tensor values = y.to(scores.scalar_type());
  const at::Tensor most = best_reach(values);
  return at::where(most.gt(0), reach(best(scores), values) / most, std::nan(""));
}

at::Tensor Program::soft_bpr(const at::Tensor& plan, const at::Tensor& y) const {
  const at::Tensor values = y.detach().to(plan.scalar_type());
  const at::Tensor most = best_reach(values), safe = at::where(most.gt(0), most, 1.0);
  return at::where(most.gt(0), reach(plan, values) / safe, std::nan(""));
}

at::Tensor Program::chance(const at::Tensor& samples) const {
  return best(samples).to(at::kDouble).mean(0);
}

ProgramPtr make_program(const std::string& name, const ProgramConfig& config) {
  std::string names;
  for (const Maker& maker : kMakers) {
    if (name == maker.name) {
      ConfigReader reader(name, config);
      ProgramPtr program = maker.make(reader);
      const std::vector<double> effect = reader.numbers("effect");
      const std::vector<std::string> sites = reader.texts("effect_sites");
      reader.finish();
      return effect.empty() ? program : std::make_shared<WithEffect>(program, effect, sites);
    }
    names += fmt::format("{}'{}'", names.empty() ? "" : ", ", maker.name);
  }
  TR_REQUIRE(false, "make_program: name must be one of {}, got '{}'", names, name);
}

}  // namespace topreach
