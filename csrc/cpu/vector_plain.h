// Four floats in the compiler's own vector type, which it maps to SSE2, NEON or plain code; and
// one double, for float64 inputs.
#pragma once

#include <math.h>

#include "../row_math.h"
#include "../half.h"

namespace kd {
namespace KD_BODY {

struct Ops {
  using Scalar = float;
  typedef float V __attribute__((vector_size(16)));
  typedef int32_t M __attribute__((vector_size(16)));
  static constexpr int lanes = 4;

  static KD_INLINE V set(float x) { return V{x, x, x, x}; }
  static KD_INLINE V fma(V a, V b, V c) { return a * b + c; }
  static KD_INLINE V abs(V x) { return V(M(x) & 0x7fffffff); }
  // b if either is NaN: the order of the operands decides whether a NaN survives.
  static KD_INLINE V max(V a, V b) { return select(a > b, a, b); }
  static KD_INLINE M less(V a, V b) { return a < b; }
  static KD_INLINE M equal(V a, V b) { return a == b; }
  static KD_INLINE V select(M m, V yes, V no) { return V((M(yes) & m) | (M(no) & ~m)); }
  static KD_INLINE M lane_is(int i) { return M{0, 1, 2, 3} == i; }
  static KD_INLINE float sum(V x) { return (x[0] + x[1]) + (x[2] + x[3]); }
  static KD_INLINE float largest(V x) {
    const float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
  }

  // 2^(x rate) for x <= 0: x rate = n + f and 2^n 2^f. `least` is least_exponent by the rate: below
  // it the result is 0. NaN stays NaN.
  static constexpr float least_exponent = -126;
  static KD_INLINE V exp2(V x, V rate, V least) {
    const V y = max(least, x) * rate;
    // Adding 1.5 * 2^23 rounds to an integer, which is then in the lowest bits of the sum.
    const V shifted = y + set(12582912.f);
    const V f = y - (shifted - set(12582912.f));
    const V power = fma(polynomial<Ops>(exp2_coefficients, f), f, set(1.f));
    const M exponent = (M(shifted) - 0x4b400000 + 127) << 23;
    return V(M(power * V(exponent)) & ~(x < least));
  }
  static KD_INLINE V log(V x) { return V{logf(x[0]), logf(x[1]), logf(x[2]), logf(x[3])}; }

  template <class T>
  static KD_INLINE V load(const T* p) {
    return V{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])};
  }
  // The first n lanes; `fill` in the others.
  template <class T>
  static KD_INLINE V load(const T* p, int n, V fill) {
    for (int i = 0; i < n; ++i) fill[i] = to_float(p[i]);
    return fill;
  }
  template <class T>
  static KD_INLINE void store(T* p, V x, int n = lanes) {
    for (int i = 0; i < n; ++i) from_float(p[i], x[i]);
  }

  // This vector type has no store past the caches.
  template <class T>
  static KD_INLINE void stream(T* p, V x) {
    store(p, x);
  }
  static KD_INLINE void end_streams() {}

  static KD_INLINE void transpose(V (&r)[4]) {
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < i; ++j) {
        const float x = r[i][j];
        r[i][j] = r[j][i];
        r[j][i] = x;
      }
  }
};

struct DoubleOps {
  using Scalar = double;
  using V = double;
  using M = bool;
  static constexpr int lanes = 1;

  static KD_INLINE V set(double x) { return x; }
  static KD_INLINE V fma(V a, V b, V c) { return a * b + c; }
  static KD_INLINE V max(V a, V b) { return a > b ? a : b; }
  static KD_INLINE M less(V a, V b) { return a < b; }
  static KD_INLINE M equal(V a, V b) { return a == b; }
  static KD_INLINE V select(M m, V yes, V no) { return m ? yes : no; }
  static KD_INLINE M lane_is(int i) { return i == 0; }
  static KD_INLINE void transpose(V (&)[1]) {}
  static KD_INLINE double sum(V x) { return x; }
  static KD_INLINE double largest(V x) { return x; }
  static constexpr double least_exponent = -1100;
  static KD_INLINE V exp2(V x, V rate, V) { return ::exp2(x * rate); }
  static KD_INLINE V log(V x) { return ::log(x); }
  static KD_INLINE V load(const double* p) { return *p; }
  static KD_INLINE V load(const double* p, int n, V fill) { return n > 0 ? *p : fill; }
  static KD_INLINE void store(double* p, V x) { *p = x; }
  static KD_INLINE void store(double* p, V x, int n) {
    if (n > 0) *p = x;
  }
  static KD_INLINE void stream(double* p, V x) { *p = x; }
  static KD_INLINE void end_streams() {}
};

template <>
KD_INLINE double kl_term<DoubleOps>(double p, double q, double d) {
  return kl_term_double(p, q, d);
}

}  // namespace KD_BODY
}  // namespace kd
