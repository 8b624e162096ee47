// All of topreach for C++.
#pragma once

#include "ops/key.h"
#include "ops/perturbed_topk.h"
#include "ops/ratio_ranking.h"
#include "ops/topk_mask.h"
