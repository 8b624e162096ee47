// SHA-256 [FIPS 180-4], for the digest of a model file.
#pragma once

#include <string>
#include <string_view>

namespace topreach {

/// The digest as 64 lower-case hexadecimal digits.
///
///   topreach::sha256("abc")   // "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
std::string sha256(std::string_view bytes);

}  // namespace topreach
