// The few names of the CUDA runtime that launchers' declarations need: streams and errors. In the
// tests they come from the host emulation (tests/kernels/cuda_emulation).
#pragma once

#if defined(TOPREACH_CUDA_EMULATION)
#include "cuda_emulation.h"
#else
#include <cuda_runtime_api.h>
#endif
