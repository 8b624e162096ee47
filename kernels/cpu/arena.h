// Hands out pieces of working memory, 64-byte aligned. Included once for each instruction set.
#pragma once

#include <cstdint>

#include "isa.h"

namespace topreach::kernels::TR_ISA {
namespace {

struct Arena {
  char* base;  // null: only counts
  int64_t used;
  template <typename T>
  TR_INLINE T* take(int64_t count) {
    T* at = base == nullptr ? nullptr : reinterpret_cast<T*>(base + used);
    used += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
    return at;
  }
};

}  // namespace
}  // namespace topreach::kernels::TR_ISA
