// Each file of kernels/cpu except dispatch.cpp is compiled once per instruction set, with its contents
// inside namespace TR_ISA; dispatch.cpp picks one at run time.
//
// Such files must not call function templates or inline functions of the standard library: the linker
// would keep a single copy for all instruction sets, perhaps one that the machine cannot run.
#pragma once

#ifndef TR_ISA
#define TR_ISA baseline
#endif

#define TR_INLINE inline __attribute__((always_inline))
