// Eight floats in an AVX register. AVX2, FMA and F16C are assumed.
#pragma once

#include <immintrin.h>

#include "../row_math.h"
#include "../half.h"

namespace kd {
namespace KD_BODY {

struct Ops {
  using Scalar = float;
  using V = __m256;
  using M = __m256;
  static constexpr int lanes = 8;

  static KD_INLINE V set(float x) { return _mm256_set1_ps(x); }
  static KD_INLINE V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static KD_INLINE V fms(V a, V b, V c) { return _mm256_fmsub_ps(a, b, c); }
  static KD_INLINE V abs(V x) { return _mm256_andnot_ps(set(-0.f), x); }
  // b if either is NaN: the order of the operands decides whether a NaN survives.
  static KD_INLINE V max(V a, V b) { return _mm256_max_ps(a, b); }
  static KD_INLINE M less(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static KD_INLINE M equal(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
  static KD_INLINE V select(M m, V yes, V no) { return _mm256_blendv_ps(no, yes, m); }
  static KD_INLINE M lane_is(int i) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(lanes, _mm256_set1_epi32(i)));
  }
  static KD_INLINE float sum(V x) {
    __m128 half = _mm256_castps256_ps128(x) + _mm256_extractf128_ps(x, 1);
    half += _mm_movehl_ps(half, half);
    return half[0] + half[1];
  }
  static KD_INLINE float largest(V x) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return half[0] > half[1] ? half[0] : half[1];
  }

  // 2^(x rate) for x <= 0: x rate = n + f, rounded once, and 2^n 2^f. `least` is least_exponent by
  // the rate: below it the result is 0. NaN stays NaN.
  static constexpr float least_exponent = -126;
  static KD_INLINE V exp2(V x, V rate, V least) {
    const V bounded = max(least, x);
    const V n = _mm256_round_ps(bounded * rate, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const V f = fms(bounded, rate, n);
    const V power = fma(polynomial<Ops>(exp2_coefficients, f), f, set(1.f));
    const __m256i exponent =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(less(x, least), power * _mm256_castsi256_ps(exponent));
  }

  // log x for x > 0: x = 2^e m with m in [sqrt(1/2), sqrt(2)).
  static KD_INLINE V log(V x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i shifted = _mm256_sub_epi32(bits, _mm256_set1_epi32(0x3f3504f3));
    const __m256i exponent = _mm256_srai_epi32(shifted, 23);
    const V e = _mm256_cvtepi32_ps(exponent);
    const V m = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(exponent, 23))) -
                set(1.f);
    const V tail = fma(polynomial<Ops>(log_coefficients, m), m, set(-0.5f)) * (m * m);
    // x - x is 0, or NaN if x is NaN, which taking the bits apart has lost.
    return fma(e, set(0.693359375f), m + fma(e, set(-2.12194440e-4f), tail)) + (x - x);
  }

  static KD_INLINE V load(const float* p) { return _mm256_loadu_ps(p); }
  static KD_INLINE V load(const BFloat16* p) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
  }
  static KD_INLINE V load(const Float16* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  // The first n lanes; `fill` in the others.
  template <class T>
  static KD_INLINE V load(const T* p, int n, V fill) {
    alignas(32) T buffer[lanes] = {};
    for (int i = 0; i < n; ++i) buffer[i] = p[i];
    return select(first(n), load(buffer), fill);
  }
  static KD_INLINE V load(const float* p, int n, V fill) {
    return select(first(n), _mm256_maskload_ps(p, _mm256_castps_si256(first(n))), fill);
  }

  static KD_INLINE void store(float* p, V x) { _mm256_storeu_ps(p, x); }
  static KD_INLINE void store(BFloat16* p, V x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    rounded = _mm256_srli_epi32(rounded, 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
    const __m256i packed =
        _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0b11011000);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }
  static KD_INLINE void store(Float16* p, V x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  template <class T>
  static KD_INLINE void store(T* p, V x, int n) {
    alignas(32) T buffer[lanes];
    store(buffer, x);
    for (int i = 0; i < n; ++i) p[i] = buffer[i];
  }
  static KD_INLINE void store(float* p, V x, int n) {
    _mm256_maskstore_ps(p, _mm256_castps_si256(first(n)), x);
  }

  // A store past the caches, to an aligned address. 16-bit types go through the caches.
  static KD_INLINE void stream(float* p, V x) { _mm256_stream_ps(p, x); }
  template <class T>
  static KD_INLINE void stream(T* p, V x) {
    store(p, x);
  }
  static KD_INLINE void end_streams() { _mm_sfence(); }

  // Rows become columns: halves of the register, pairs of lanes, lanes.
  static KD_INLINE void transpose(V (&r)[8]) {
    V a[8], b[8];
    for (int i = 0; i < 4; ++i) {
      a[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
      a[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i += 4)
      for (int j = i; j < i + 2; ++j) {
        b[j] = _mm256_shuffle_ps(a[j], a[j + 2], _MM_SHUFFLE(1, 0, 1, 0));
        b[j + 2] = _mm256_shuffle_ps(a[j], a[j + 2], _MM_SHUFFLE(3, 2, 3, 2));
      }
    for (int i = 0; i < 8; i += 2) {
      r[i] = _mm256_blend_ps(b[i], _mm256_moveldup_ps(b[i + 1]), 0b10101010);
      r[i + 1] = _mm256_blend_ps(_mm256_movehdup_ps(b[i]), b[i + 1], 0b10101010);
    }
  }

 private:
  static KD_INLINE V first(int n) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes));
  }
};

}  // namespace KD_BODY
}  // namespace kd
