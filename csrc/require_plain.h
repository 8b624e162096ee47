// TR_REQUIRE for files without tensors, so that they need not include torch's; see require.h.
#pragma once

#include <c10/util/Exception.h>

#include <string>
#include <utility>

#pragma GCC visibility push(hidden)
#define FMT_HEADER_ONLY 1
#include <fmt/format.h>
#include <fmt/ostream.h>
#pragma GCC visibility pop

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
