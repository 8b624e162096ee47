// Picks the instruction set of the CPU kernels once, at first use: the best that the machine has, or
// the one that the environment variable TOPREACH_CPU_CAPABILITY (baseline, avx2, avx512) names, if
// the machine has it. Results do not depend on the choice; tests check this.
#include "dispatch.h"

#include <cstdlib>
#include <cstring>

#include "../expected_topk.h"
#include "../hawkes.h"
#include "../hawkes_branching.h"
#include "../negbin.h"
#include "../perturbed_topk.h"
#include "../posterior_risk.h"
#include "../ratio_ranking.h"

namespace topreach::kernels {

#define TR_DECLARE_ISA(isa)                                              \
  namespace isa {                                                        \
  extern const TopKCpu<float> topk_float;                                \
  extern const TopKCpu<double> topk_double;                              \
  extern const ExpectedTopKCpu<float> expected_topk_float;               \
  extern const ExpectedTopKCpu<double> expected_topk_double;             \
  void noise_row(PhiloxKey, Noise, int64_t, uint32_t, uint32_t, float*); \
  uint32_t noise_checksum(PhiloxKey, Noise, int64_t, int64_t, uint32_t); \
  extern const RatioCpu<float> ratio_float;                              \
  extern const RatioCpu<double> ratio_double;                            \
  extern const NegBinCpu<float> negbin_float;                            \
  extern const NegBinCpu<double> negbin_double;                          \
  extern const PosteriorRiskCpu<float> posterior_risk_float;             \
  extern const PosteriorRiskCpu<double> posterior_risk_double;           \
  extern const PriorEm prior_em;                                         \
  extern const HawkesCpu hawkes;                                         \
  extern const HawkesBranchingCpu hawkes_branching;                      \
  }

TR_DECLARE_ISA(baseline)
#ifdef TOPREACH_X86_KERNELS
TR_DECLARE_ISA(avx2)
TR_DECLARE_ISA(avx512)
#endif

namespace {

enum class Capability { kBaseline, kAvx2, kAvx512 };

Capability detect() {
#ifdef TOPREACH_X86_KERNELS
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl");
  const char* wanted = std::getenv("TOPREACH_CPU_CAPABILITY");
  const auto allows = [&](const char* name) {
    return wanted == nullptr || std::strcmp(wanted, name) == 0;
  };
  if (avx512 && allows("avx512")) return Capability::kAvx512;
  if (avx2 && (allows("avx2") || (wanted && !std::strcmp(wanted, "avx512"))))
    return Capability::kAvx2;
#endif
  return Capability::kBaseline;
}

Capability capability() {
  static const Capability chosen = detect();
  return chosen;
}

}  // namespace

const char* cpu_capability() {
  switch (capability()) {
    case Capability::kAvx512: return "avx512";
    case Capability::kAvx2: return "avx2";
    default: return "baseline";
  }
}

#ifdef TOPREACH_X86_KERNELS
#define TR_PICK(name)                                 \
  (capability() == Capability::kAvx512 ? avx512::name \
   : capability() == Capability::kAvx2 ? avx2::name   \
                                       : baseline::name)
#else
#define TR_PICK(name) (baseline::name)
#endif

template <>
const TopKCpu<float>& topk_cpu<float>() {
  return TR_PICK(topk_float);
}

template <>
const TopKCpu<double>& topk_cpu<double>() {
  return TR_PICK(topk_double);
}

template <>
const ExpectedTopKCpu<float>& expected_topk_cpu<float>() {
  return TR_PICK(expected_topk_float);
}

template <>
const ExpectedTopKCpu<double>& expected_topk_cpu<double>() {
  return TR_PICK(expected_topk_double);
}

void noise_row_cpu(PhiloxKey key, Noise noise, int64_t sites, uint32_t draw, uint32_t row,
                   float* z) {
  TR_PICK(noise_row)(key, noise, sites, draw, row, z);
}

uint32_t noise_checksum_cpu(PhiloxKey key, Noise noise, int64_t sites, int64_t draws,
                            uint32_t row) {
  return TR_PICK(noise_checksum)(key, noise, sites, draws, row);
}

template <>
const RatioCpu<float>& ratio_cpu<float>() {
  return TR_PICK(ratio_float);
}

template <>
const RatioCpu<double>& ratio_cpu<double>() {
  return TR_PICK(ratio_double);
}

template <>
const NegBinCpu<float>& negbin_cpu<float>() {
  return TR_PICK(negbin_float);
}

template <>
const NegBinCpu<double>& negbin_cpu<double>() {
  return TR_PICK(negbin_double);
}

template <>
const PosteriorRiskCpu<float>& posterior_risk_cpu<float>() {
  return TR_PICK(posterior_risk_float);
}

template <>
const PosteriorRiskCpu<double>& posterior_risk_cpu<double>() {
  return TR_PICK(posterior_risk_double);
}

const PriorEm& prior_em_cpu() { return TR_PICK(prior_em); }

const HawkesCpu& hawkes_cpu() { return TR_PICK(hawkes); }

const HawkesBranchingCpu& hawkes_branching_cpu() { return TR_PICK(hawkes_branching); }

}  // namespace topreach::kernels
