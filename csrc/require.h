// The one way in which C++ refuses an argument:
//
//   TR_REQUIRE(k <= sites, "{}: k must be at most S = {}, got {}", function, sites, k);
//
// raises c10::ValueError (Python's ValueError) with a message that is formatted only when it is raised.
// TR_REQUIRE_TYPE raises c10::TypeError. A message reads "<function>: <argument> must <requirement>, got
// <value>", then how to mend it. Not part of the installed headers.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <string>
#include <utility>

#pragma GCC visibility push(hidden)
#define FMT_HEADER_ONLY 1
#include <fmt/format.h>
#include <fmt/ostream.h>
#pragma GCC visibility pop

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

namespace topreach {

template <typename Error>
[[noreturn]] inline void raise(c10::SourceLocation where, std::string message) {
  throw Error(where, std::move(message));
}

}  // namespace topreach

#define TR_RAISE_UNLESS(Error, condition, ...)                                        \
  do {                                                                                \
    if (C10_UNLIKELY(!(condition))) {                                                 \
      ::topreach::raise<Error>({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, \
                               ::fmt::format(__VA_ARGS__));                           \
    }                                                                                 \
  } while (false)

#define TR_REQUIRE(condition, ...) TR_RAISE_UNLESS(::c10::ValueError, condition, __VA_ARGS__)
#define TR_REQUIRE_TYPE(condition, ...) TR_RAISE_UNLESS(::c10::TypeError, condition, __VA_ARGS__)
