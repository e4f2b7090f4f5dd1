// The two 16-bit types by their bits, and conversions of one number at a time.
#pragma once

#include <cstdint>
#include <cstring>

#include "row_math.h"

namespace kd {
namespace KD_BODY {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

KD_INLINE float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
KD_INLINE uint32_t to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

KD_INLINE float to_float(float x) { return x; }
KD_INLINE double to_float(double x) { return x; }
KD_INLINE float to_float(BFloat16 x) { return from_bits(uint32_t(x.bits) << 16); }
KD_INLINE float to_float(Float16 x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
  if (rest >= 0x7c00) return from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  // The product raises the exponent's bias from 15 to 127. It also makes subnormal numbers normal.
  const float magnitude = from_bits(rest << 13) * 5.192296858534828e33f;  // 2^112
  return from_bits(sign | to_bits(magnitude));
}

KD_INLINE void from_float(float& out, float x) { out = x; }
KD_INLINE void from_float(double& out, double x) { out = x; }
KD_INLINE void from_float(BFloat16& out, float x) {
  const uint32_t bits = to_bits(x);
  out.bits = x != x ? 0x7fc0 : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
KD_INLINE void from_float(Float16& out, float x) {
  const uint32_t sign = to_bits(x) >> 16 & 0x8000;
  const float size = from_bits(to_bits(x) & 0x7fffffff);
  if (size != size) {
    out.bits = 0x7e00;
  } else if (size >= 65520.f) {
    out.bits = uint16_t(sign | 0x7c00);
  } else if (size < 6.103515625e-05f) {
    // Subnormal: adding 2^-1, which is 2^23 units of 2^-24, rounds to the last bit that is left.
    out.bits = uint16_t(sign | (to_bits(size + 0.5f) - to_bits(0.5f)));
  } else {
    const uint32_t bits = to_bits(size);
    out.bits = uint16_t(sign | ((bits + 0xfff + (bits >> 13 & 1) - (112u << 23)) >> 13));
  }
}

}  // namespace KD_BODY
}  // namespace kd
