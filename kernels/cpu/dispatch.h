#pragma once

namespace topreach::kernels {

// The instruction set in use: "baseline", "avx2" or "avx512".
const char* cpu_capability();

}  // namespace topreach::kernels
