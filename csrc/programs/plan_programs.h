// topreach::plan: from scores to a plan that can be carried out, one function for each program.
#pragma once

#include "assign_plan.h"
#include "budget_plan.h"
#include "coverage_plan.h"
#include "phased_plan.h"
#include "quota_plan.h"
#include "spaced_plan.h"
#include "subgraph_plan.h"
#include "tour_plan.h"
