// Each file of kernels/cpu but dispatch.cpp is compiled once per instruction set, its contents inside
// namespace TR_ISA; dispatch.cpp picks one at run time.
//
// Such files call no function template or inline function of the standard library: the linker
// would keep one copy of it for all, perhaps one that the machine cannot run.
#pragma once

#ifndef TR_ISA
#define TR_ISA baseline
#endif

#define TR_INLINE inline __attribute__((always_inline))
