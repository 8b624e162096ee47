// The algorithms of allocation programs, which know no torch. In an installation their folder lies beside
// those of the library, in the source tree one higher.
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
