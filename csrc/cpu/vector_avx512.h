// Sixteen floats in an AVX-512 register. F, VL, BW and DQ are assumed (every server CPU since
// 2017).
#pragma once

#include <immintrin.h>

#include "../row_math.h"
#include "../half.h"

namespace kd {
namespace KD_BODY {

struct Ops {
  using Scalar = float;
  using V = __m512;
  using M = __mmask16;
  static constexpr int lanes = 16;

  static KD_INLINE V set(float x) { return _mm512_set1_ps(x); }
  static KD_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static KD_INLINE V fms(V a, V b, V c) { return _mm512_fmsub_ps(a, b, c); }
  static KD_INLINE V abs(V x) { return _mm512_abs_ps(x); }
  // b if either is NaN: the order of the operands decides whether a NaN survives.
  static KD_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }
  static KD_INLINE M less(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static KD_INLINE M equal(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
  static KD_INLINE V select(M m, V yes, V no) { return _mm512_mask_blend_ps(m, no, yes); }
  static KD_INLINE M lane_is(int i) { return M(1u << i); }
  static KD_INLINE float sum(V x) { return _mm512_reduce_add_ps(x); }
  static KD_INLINE float largest(V x) { return _mm512_reduce_max_ps(x); }

  // 2^(x rate) for x <= 0: x rate = n + f, rounded once, and 2^n 2^f. `least` is least_exponent by
  // the rate: below it the result is 0. NaN stays NaN.
  static constexpr float least_exponent = -160;
  static KD_INLINE V exp2(V x, V rate, V least) {
    x = max(least, x);
    const V n = _mm512_roundscale_ps(x * rate, _MM_FROUND_TO_NEAREST_INT);
    const V f = fms(x, rate, n);
    return _mm512_scalef_ps(fma(polynomial<Ops>(exp2_coefficients, f), f, set(1.f)), n);
  }

  // log x for x > 0: x = 2^e m with m in [sqrt(1/2), sqrt(2)).
  static KD_INLINE V log(V x) {
    V e = _mm512_getexp_ps(x);
    V m = _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src);
    const M high = less(set(1.41421356f), m);
    e = select(high, e + set(1.f), e);
    m = select(high, m * set(0.5f), m) - set(1.f);
    const V tail = fma(polynomial<Ops>(log_coefficients, m), m, set(-0.5f)) * (m * m);
    return fma(e, set(0.693359375f), m + fma(e, set(-2.12194440e-4f), tail));
  }

  static KD_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
  static KD_INLINE V load(const BFloat16* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static KD_INLINE V load(const Float16* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  // The first n lanes; `fill` in the others.
  static KD_INLINE V load(const float* p, int n, V fill) {
    return _mm512_mask_loadu_ps(fill, first(n), p);
  }
  static KD_INLINE V load(const BFloat16* p, int n, V fill) {
    return select(first(n), widen(_mm256_maskz_loadu_epi16(first(n), p)), fill);
  }
  static KD_INLINE V load(const Float16* p, int n, V fill) {
    return select(first(n), _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p)), fill);
  }

  static KD_INLINE void store(float* p, V x) { _mm512_storeu_ps(p, x); }
  static KD_INLINE void store(BFloat16* p, V x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bfloat16(x));
  }
  static KD_INLINE void store(Float16* p, V x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_float16(x));
  }
  static KD_INLINE void store(float* p, V x, int n) { _mm512_mask_storeu_ps(p, first(n), x); }
  static KD_INLINE void store(BFloat16* p, V x, int n) {
    _mm256_mask_storeu_epi16(p, first(n), to_bfloat16(x));
  }
  static KD_INLINE void store(Float16* p, V x, int n) {
    _mm256_mask_storeu_epi16(p, first(n), to_float16(x));
  }

  // A store past the caches, to an aligned address.
  static KD_INLINE void stream(float* p, V x) { _mm512_stream_ps(p, x); }
  static KD_INLINE void stream(BFloat16* p, V x) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), to_bfloat16(x));
  }
  static KD_INLINE void stream(Float16* p, V x) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), to_float16(x));
  }
  static KD_INLINE void end_streams() { _mm_sfence(); }

  // Rows become columns: pairs of lanes, fours, then the quarters of the register twice.
  static KD_INLINE void transpose(V (&r)[16]) {
    V a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      a[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
      a[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const __m512d low = _mm512_castps_pd(a[i + j]), high = _mm512_castps_pd(a[i + j + 2]);
        b[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
        b[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
      }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const V low = _mm512_shuffle_f32x4(b[j], b[j + 4], 0x88);
      const V low_odd = _mm512_shuffle_f32x4(b[j], b[j + 4], 0xdd);
      const V high = _mm512_shuffle_f32x4(b[j + 8], b[j + 12], 0x88);
      const V high_odd = _mm512_shuffle_f32x4(b[j + 8], b[j + 12], 0xdd);
      r[j] = _mm512_shuffle_f32x4(low, high, 0x88);
      r[j + 8] = _mm512_shuffle_f32x4(low, high, 0xdd);
      r[j + 4] = _mm512_shuffle_f32x4(low_odd, high_odd, 0x88);
      r[j + 12] = _mm512_shuffle_f32x4(low_odd, high_odd, 0xdd);
    }
  }

 private:
  static KD_INLINE __mmask16 first(int n) { return __mmask16((1u << n) - 1); }
  static KD_INLINE V widen(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  }
  static KD_INLINE __m256i to_bfloat16(V x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(
        nan, _mm512_srli_epi32(rounded, 16), _mm512_set1_epi32(0x7fc0)));
  }
  static KD_INLINE __m256i to_float16(V x) {
    return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
};

}  // namespace KD_BODY
}  // namespace kd
