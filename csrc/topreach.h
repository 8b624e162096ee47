// All of topreach for C++.
#pragma once

#include "io/model_file.h"
#include "metrics/bpr.h"
#include "models/linear_scorer.h"
#include "models/mlp_scorer.h"
#include "models/negative_binomial.h"
#include "models/negbin_mixed_effects.h"
#include "objectives/decision_aware.h"
#include "objectives/direct_bpr.h"
#include "objectives/nll.h"
#include "ops/expected_topk.h"
#include "ops/key.h"
#include "ops/negbin.h"
#include "ops/perturbed_topk.h"
#include "ops/ratio_ranking.h"
#include "ops/topk_mask.h"
#include "ranker.h"
