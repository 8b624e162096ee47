// The algorithms of allocation programs, which do not use torch. In an installation their folder is beside
// the library's; in the source tree it is one level higher.
#pragma once

#if __has_include("../../kernels/programs/coverage.h")
#include "../../kernels/programs/coverage.h"
#include "../../kernels/programs/graph.h"
#include "../../kernels/programs/linear_program.h"
#include "../../kernels/programs/quota_topk.h"
#include "../../kernels/programs/solution.h"
#else
#include "../kernels/programs/coverage.h"
#include "../kernels/programs/graph.h"
#include "../kernels/programs/linear_program.h"
#include "../kernels/programs/quota_topk.h"
#include "../kernels/programs/solution.h"
#endif
