// The arithmetic of one row, shared by the CPU bodies and the CUDA kernels.
//
// With q = softmax(s / Ts), p = softmax(t / Tt), r = softmax(s), d = log p - log q:
//
//   loss    = a sum_k p_k d_k + b (log Z1 - (s_y - max s))       a = kl_weight (* Ts * Tt)
//   d/ds    = (a / Ts) (q - p) + b (r - onehot_y)                b = ce_weight
//   d/dTs   = a slope_s / Ts^2 + kl da/dTs,   slope_s = -sum_k (q - p)_k s_k
//   d/dTt   = a slope_t / Tt^2 + kl da/dTt,   slope_t = -sum_k p_k t_k d_k + (sum p t)(sum p d)
//
// and the sums Zs = sum exp((s - max s)/Ts), Zt = sum exp((t - max t)/Tt), Z1 = sum exp(s - max s).
//
// `Ops` names a type V of one or more lanes, its mask M, its scalar type, and the operations
// set, fma, abs, less, equal, select. The same templates serve vectors and single numbers.
//
// Every file that includes this defines KD_BODY, its own namespace: the linker must not merge an
// inline function that is compiled for two instruction sets.
#pragma once

#include <math.h>

#include "row_parameters.h"

#ifdef __CUDACC__
#define KD_INLINE __host__ __device__ __forceinline__
#else
#define KD_INLINE inline __attribute__((always_inline))
#endif

#ifndef KD_UNROLL
#ifdef __CUDACC__
#define KD_UNROLL _Pragma("unroll")
#else
#define KD_UNROLL _Pragma("GCC unroll 16")
#endif
#endif

// A table that device code reads must be in device memory.
#ifdef __CUDA_ARCH__
#define KD_TABLE __device__ constexpr
#else
#define KD_TABLE constexpr
#endif

#ifndef KD_BODY
#error "define KD_BODY before including row_math.h"
#endif

namespace kd {
namespace KD_BODY {

// exp(x / T) = 2^(x * log2e / T): the temperature is folded into the change of base.
constexpr double log2e = 1.4426950408889634;

// 2^f = 1 + f * (c0 + c1 f + ...) on [-1/2, 1/2], relative error 2e-9. 2^0 is exactly 1, so that
// the cross entropy of a row with a certain prediction is 0.
KD_TABLE float exp2_coefficients[] = {0.6931472027810179f,   0.2402264791425339f,
                                       0.055503325737071f,    0.009618437500762867f,
                                       0.001339884382219636f, 0.00015353285298711172f};

// exp(-d) - 1 + d = d^2 * (c0 + c1 d + ...) on [-1/2, 1/2], relative error 8e-7.
KD_TABLE float kl_coefficients[] = {0.49999995973701883f, -0.16666280114901777f,
                                     0.04166747685332225f, -0.008395411037810517f,
                                     0.001391465314611944f};

// log(1 + x) = x - x^2/2 + x^3 * (c0 + c1 x + ...) on [sqrt(1/2) - 1, sqrt(2) - 1], error 6e-9.
KD_TABLE float log_coefficients[] = {0.33333331707619784f, -0.25000821033397513f,
                                      0.20001226884870846f, -0.16623357380606543f,
                                      0.14201757817301108f, -0.1316018186527195f,
                                      0.12761578130547582f, -0.0763449928147244f};

template <class Ops, int N>
KD_INLINE typename Ops::V polynomial(const float (&coefficients)[N], typename Ops::V x) {
  typename Ops::V sum = Ops::set(coefficients[N - 1]);
KD_UNROLL
  for (int i = N - 2; i >= 0; --i) sum = Ops::fma(sum, x, Ops::set(coefficients[i]));
  return sum;
}

// A term of the divergence, p d + (q - p) >= 0. The second part sums to 0 over the row.
// With q = p exp(-d) the term is p (exp(-d) - 1 + d). Its series keeps the digits that the plain
// form loses if student and teacher agree. A class of p = 0 gives q, by selection: 0 * inf is NaN.
template <class Ops>
KD_INLINE typename Ops::V kl_term(typename Ops::V p, typename Ops::V q, typename Ops::V d) {
  const auto series = (d * d) * (p * polynomial<Ops>(kl_coefficients, d));
  const auto plain = Ops::fma(p, d, q - p);
  const auto term = Ops::select(Ops::less(Ops::abs(d), Ops::set(0.5f)), series, plain);
  return Ops::select(Ops::equal(p, Ops::set(0.f)), q, term);
}

// The same term in double: the series where it is exact, expm1 up to 1, and the plain form above,
// where the exponential could overflow.
KD_INLINE double kl_term_double(double p, double q, double d) {
  if (p == 0) return q;
  const double size = d < 0 ? -d : d;
  if (size < 0.01) {
    const double series =
        1. / 2 + d * (-1. / 6 + d * (1. / 24 + d * (-1. / 120 + d * (1. / 720 - d / 5040))));
    return p * (d * d) * series;
  }
  return size < 1 ? p * (::expm1(-d) + d) : p * d + (q - p);
}

// The values of a row that are known before its logits are read.
template <class Scalar>
struct RowConstants {
  Scalar student_temperature, teacher_temperature;
  Scalar student_rate, teacher_rate;  // log2e / T
  Scalar inverse_student;             // 1 / Ts
  Scalar inverse_teacher;             // 1 / Tt
  Scalar inverse_difference;          // 1 / Tt - 1 / Ts
  Scalar kl_weight;                   // a, with T^2 if requested
  Scalar ce_weight;                   // b, 0 for a row without cross entropy
  Scalar student_gradient;            // a / Ts, times the gradient's factor and scale
  Scalar ce_gradient;                 // b, times the gradient's factor and scale
  int64_t label;                      // class of the label, or -1: no cross entropy
  bool dead;                          // fewer than two classes are left: 0 and no gradient
};

template <class Scalar>
KD_INLINE Scalar row_value(const RowValue& value, int64_t student, int64_t row) {
  if (value.data == nullptr) return Scalar(value.value);
  return static_cast<const Scalar*>(
      value.data)[student * value.student_stride + row * value.row_stride];
}

KD_INLINE bool class_kept(const RowParameters& parameters, int64_t row, int64_t k) {
  return parameters.class_mask == nullptr ||
         parameters.class_mask[row * parameters.mask_row_stride + k * parameters.mask_class_stride];
}

// The largest power of two whose product with `bound` stays below 2^14, so that float16 neither
// overflows nor wastes exponents. |gradient| <= a/Ts + b.
KD_INLINE float float16_scale(float bound) {
  float scale = 1;
  if (!(bound > 0 && bound < 1e30f)) return scale;
  while (bound * scale > 16384.f) scale *= 0.5f;
  while (bound * scale <= 8192.f && scale < 1e30f) scale *= 2;
  return scale;
}

// The constants without the label's. They are the same for all rows if all row values are numbers.
template <class Scalar>
KD_INLINE RowConstants<Scalar> constants_without_label(const RowParameters& parameters,
                                                       int64_t student, int64_t row) {
  RowConstants<Scalar> c;
  c.student_temperature = row_value<Scalar>(parameters.student_temperature, student, row);
  c.teacher_temperature = row_value<Scalar>(parameters.teacher_temperature, student, row);
  c.student_rate = Scalar(log2e / c.student_temperature);
  c.teacher_rate = Scalar(log2e / c.teacher_temperature);
  c.inverse_student = 1 / c.student_temperature;
  c.inverse_teacher = 1 / c.teacher_temperature;
  c.inverse_difference = c.inverse_teacher - c.inverse_student;
  c.kl_weight = row_value<Scalar>(parameters.kl_weight, student, row);
  if (parameters.scale_by_t2) c.kl_weight *= c.student_temperature * c.teacher_temperature;
  c.ce_weight = row_value<Scalar>(parameters.ce_weight, student, row);
  c.student_gradient = c.kl_weight / c.student_temperature * Scalar(parameters.gradient_factor);
  c.ce_gradient = c.ce_weight * Scalar(parameters.gradient_factor);
  c.label = -1;
  c.dead = false;
  return c;
}

// The class of the row's label, or -1 for a row without cross entropy.
KD_INLINE int64_t counted_label(const RowParameters& parameters, int64_t row) {
  if (parameters.labels == nullptr) return -1;
  const int64_t label = parameters.labels[row * parameters.label_stride];
  const bool inside = label >= 0 && label < parameters.classes;
  const bool counted =
      label != parameters.ignore_index && inside && class_kept(parameters, row, label);
  return counted ? label : -1;
}

template <class Scalar>
KD_INLINE void set_label(RowConstants<Scalar>& c, int64_t label) {
  c.label = label;
  if (label < 0) c.ce_weight = c.ce_gradient = 0;
}

template <class Scalar>
KD_INLINE void scale_for_float16(const RowParameters& parameters, int64_t student, int64_t row,
                                 RowConstants<Scalar>& c) {
  if (parameters.gradient_scale == nullptr) return;
  const float scale = float16_scale(float(c.student_gradient + c.ce_gradient));
  parameters.gradient_scale[student * parameters.rows + row] = 1 / scale;
  c.student_gradient *= Scalar(scale);
  c.ce_gradient *= Scalar(scale);
}

// The caller determines `dead`, because each caller reads the mask in its own way.
template <class Scalar>
KD_INLINE RowConstants<Scalar> row_constants(const RowParameters& parameters, int64_t student,
                                             int64_t row, bool dead) {
  auto c = constants_without_label<Scalar>(parameters, student, row);
  set_label(c, dead ? -1 : counted_label(parameters, row));
  c.dead = dead;
  if (dead) c.student_gradient = 0;
  scale_for_float16(parameters, student, row, c);
  return c;
}

// Whether temperatures and weights are the same for all rows.
KD_INLINE bool values_are_shared(const RowParameters& parameters) {
  return parameters.student_temperature.data == nullptr &&
         parameters.teacher_temperature.data == nullptr && parameters.kl_weight.data == nullptr &&
         parameters.ce_weight.data == nullptr;
}

// Whether the rows' constants differ only by their labels.
KD_INLINE bool constants_are_shared(const RowParameters& parameters) {
  return values_are_shared(parameters) && parameters.class_mask == nullptr &&
         parameters.gradient_scale == nullptr;
}

// A weight of 0 removes an infinite value. NaN stays visible.
template <class Scalar>
KD_INLINE Scalar weighted(Scalar weight, Scalar value) {
  const bool infinite = value - value != 0 && value == value;
  return weight == 0 && infinite ? Scalar(0) : weight * value;
}

// Writes the row's loss, divergence and cross entropy.
template <class Scalar>
KD_INLINE void write_row(const RowParameters& parameters, const RowConstants<Scalar>& constants,
                         int64_t student, int64_t row, Scalar kl, Scalar ce) {
  const int64_t i = student * parameters.rows + row;
  if (constants.dead) kl = ce = 0;
  if (constants.label < 0) ce = 0;
  static_cast<Scalar*>(parameters.kl)[i] = kl;
  static_cast<Scalar*>(parameters.ce)[i] = ce;
  static_cast<Scalar*>(parameters.loss)[i] =
      weighted(constants.kl_weight, kl) + weighted(constants.ce_weight, ce);
}

KD_INLINE bool wants_temperature_gradient(const RowParameters& parameters) {
  return parameters.student_temperature_gradient != nullptr ||
         parameters.teacher_temperature_gradient != nullptr;
}

// Writes the derivatives by the temperatures. The product rule applies, because a has the factor
// Ts * Tt.
template <class Scalar>
KD_INLINE void write_temperature_gradients(const RowParameters& parameters,
                                           const RowConstants<Scalar>& constants, int64_t student,
                                           int64_t row, Scalar kl, Scalar student_slope,
                                           Scalar teacher_slope) {
  const int64_t i = student * parameters.rows + row;
  const Scalar weight = row_value<Scalar>(parameters.kl_weight, student, row);
  const Scalar ts = constants.student_temperature, tt = constants.teacher_temperature;
  const auto derivative = [&](Scalar slope, Scalar own, Scalar other) {
    if (constants.dead) return Scalar(0);
    const Scalar by_kl = slope / (own * own);
    return weighted(weight, parameters.scale_by_t2 ? other * (own * by_kl + kl) : by_kl);
  };
  if (parameters.student_temperature_gradient != nullptr)
    static_cast<Scalar*>(parameters.student_temperature_gradient)[i] =
        derivative(student_slope, ts, tt);
  if (parameters.teacher_temperature_gradient != nullptr)
    static_cast<Scalar*>(parameters.teacher_temperature_gradient)[i] =
        derivative(teacher_slope, tt, ts);
}

}  // namespace KD_BODY
}  // namespace kd
