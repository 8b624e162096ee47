// C++ code refuses an argument like this:
//
//   TR_REQUIRE(k <= sites, "{}: k must be at most S = {}, got {}", function, sites, k);
//
// raises c10::ValueError (Python's ValueError) with a message that is formatted only when it is raised.
// TR_REQUIRE_TYPE raises c10::TypeError. A message reads "<function>: <argument> must <requirement>, got
// <value>", then how to mend it. Not part of the installed headers.
#pragma once

#include <ATen/core/Tensor.h>

#include "require_plain.h"

template <>
struct fmt::formatter<c10::IntArrayRef> : fmt::ostream_formatter {};
template <>
struct fmt::formatter<c10::SymIntArrayRef> : fmt::ostream_formatter {};
template <>
struct fmt::formatter<c10::ScalarType> : fmt::ostream_formatter {};
template <>
struct fmt::formatter<c10::Device> : fmt::ostream_formatter {};
template <>
struct fmt::formatter<c10::SymInt> : fmt::ostream_formatter {};
template <>
struct fmt::formatter<at::Tensor> : fmt::ostream_formatter {};
