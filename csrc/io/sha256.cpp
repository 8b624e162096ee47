#include "sha256.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace topreach {

namespace {

// The first 32 bits of the fractional part of a root, exact for the primes below 312.
template <typename Root>
uint32_t fraction(int prime, Root root) {
  const long double value = root(static_cast<long double>(prime));
  return static_cast<uint32_t>((value - std::floor(value)) * 4294967296.0L);
}

struct Constants {
  std::array<uint32_t, 64> k;
  std::array<uint32_t, 8> start;
};

// Cube roots of the first 64 primes (round constants) and square roots of the first 8 (start).
Constants make_constants() {
  Constants c{};
  int found = 0;
  for (int n = 2; found < 64; ++n) {
    bool prime = true;
    for (int d = 2; d * d <= n; ++d) prime = prime && n % d != 0;
    if (!prime) continue;
    c.k[size_t(found)] = fraction(n, [](long double v) { return std::cbrt(v); });
    if (found < 8) c.start[size_t(found)] = fraction(n, [](long double v) { return std::sqrt(v); });
    ++found;
  }
  return c;
}

void add_block(std::array<uint32_t, 8>& state, const unsigned char* block, const Constants& c) {
  std::array<uint32_t, 64> w{};
  for (size_t i = 0; i < 16; ++i) {
    w[i] = uint32_t(block[4 * i]) << 24 | uint32_t(block[4 * i + 1]) << 16 |
           uint32_t(block[4 * i + 2]) << 8 | uint32_t(block[4 * i + 3]);
  }
  for (size_t i = 16; i < 64; ++i) {
    const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, d, e, f, g, h, l] = state;
  for (size_t i = 0; i < 64; ++i) {
    const uint32_t s1 = std::rotr(f, 6) ^ std::rotr(f, 11) ^ std::rotr(f, 25);
    const uint32_t t1 = l + s1 + ((f & g) ^ (~f & h)) + c.k[i] + w[i];
    const uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t t2 = s0 + ((a & b) ^ (a & d) ^ (b & d));
    l = h;
    h = g;
    g = f;
    f = e + t1;
    e = d;
    d = b;
    b = a;
    a = t1 + t2;
  }
  const std::array<uint32_t, 8> sum = {a, b, d, e, f, g, h, l};
  for (size_t i = 0; i < 8; ++i) state[i] += sum[i];
}

}  // namespace

std::string sha256(std::string_view bytes) {
  static const Constants constants = make_constants();
  std::array<uint32_t, 8> state = constants.start;
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  size_t left = bytes.size();
  for (; left >= 64; left -= 64, data += 64) add_block(state, data, constants);
  // Padding: a one bit, zeros, the length in bits.
  std::array<unsigned char, 128> tail{};
  if (left > 0) std::memcpy(tail.data(), data, left);
  tail[left] = 0x80;
  const size_t size = left < 56 ? 64 : 128;
  const uint64_t bits = uint64_t(bytes.size()) * 8;
  for (size_t i = 0; i < 8; ++i) tail[size - 1 - i] = static_cast<unsigned char>(bits >> (8 * i));
  for (size_t at = 0; at < size; at += 64) add_block(state, tail.data() + at, constants);
  std::string hex;
  for (const uint32_t word : state)
    for (int shift = 28; shift >= 0; shift -= 4) hex += "0123456789abcdef"[word >> shift & 15];
  return hex;
}

}  // namespace topreach
