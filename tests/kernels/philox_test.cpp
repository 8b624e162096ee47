// Philox4x32-10 against the known answers of Salmon et al. (2011), as in Random123's kat_vectors.
#include "../../kernels/philox.h"

#include <gtest/gtest.h>

namespace topreach::kernels {
namespace {

void expect_words(PhiloxWords got, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
  EXPECT_EQ(got.x, x);
  EXPECT_EQ(got.y, y);
  EXPECT_EQ(got.z, z);
  EXPECT_EQ(got.w, w);
}

TEST(Philox, KnownAnswers) {
  expect_words(philox4x32({0, 0}, {0, 0, 0, 0}), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
  const uint32_t ones = 0xffffffff;
  expect_words(philox4x32({ones, ones}, {ones, ones, ones, ones}), 0x408f276d, 0x41c83b0e,
               0xa20bc7c6, 0x6d5451fd);
  expect_words(
      philox4x32({0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
      0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1);
}

}  // namespace
}  // namespace topreach::kernels
