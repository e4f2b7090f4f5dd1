// The arithmetic of row_math.h over one number, and the device's check of a row's constants: an
// invalid value becomes NaN, because raising an error would mean waiting for the device.
#pragma once

#include "storage.h"

namespace kd {
namespace KD_BODY {

// 2^y, and exactly 1 for 0. Two units in the last place on a device. Below 2^-126 it is 0.
KD_INLINE float power_of_two(float y) {
#ifdef __CUDA_ARCH__
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(y));
  return result;
#else
  return ::exp2f(y);
#endif
}
KD_INLINE double power_of_two(double y) { return ::exp2(y); }

// An optimisation barrier: recompute the address instead of keeping it live. Registers are scarce,
// and recomputing takes one or two instructions.
KD_INLINE int optimisation_barrier(int x) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(x));
#endif
  return x;
}
KD_INLINE int64_t optimisation_barrier(int64_t x) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+l"(x));
#endif
  return x;
}
template <class T>
KD_INLINE T* optimisation_barrier(T* x) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+l"(x));
#endif
  return x;
}

// 1 / x for a sum of exponentials, which is between 1 and the number of classes, or NaN. It is the
// hardware's estimate and one Newton step, without the special cases of a division.
KD_INLINE float reciprocal_of_sum(float x) {
#ifdef __CUDA_ARCH__
  float estimate;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(estimate) : "f"(x));
#else
  const float estimate = 1 / x;
#endif
  return fmaf(estimate, fmaf(-x, estimate, 1.f), estimate);
}
KD_INLINE double reciprocal_of_sum(double x) { return 1 / x; }

// a / b from the reciprocal of b. Exactly 1 if a equals b, so that equal logits diverge by 0.
KD_INLINE float quotient(float a, float b, float reciprocal) {
  const float estimate = a * reciprocal;
  return fmaf(fmaf(-estimate, b, a), reciprocal, estimate);
}
KD_INLINE double quotient(double a, double b, double) { return a / b; }

KD_INLINE float logarithm(float x) { return ::logf(x); }
KD_INLINE double logarithm(double x) { return ::log(x); }

template <class T>
struct Ops {
  using Scalar = T;
  using V = T;
  using M = bool;
  static constexpr int lanes = 1;

  static KD_INLINE V set(T x) { return x; }
  static KD_INLINE V fma(V a, V b, V c) { return ::fma(a, b, c); }
  static KD_INLINE V abs(V x) { return ::fabs(x); }
  static KD_INLINE M less(V a, V b) { return a < b; }
  static KD_INLINE M equal(V a, V b) { return a == b; }
  static KD_INLINE V select(M m, V yes, V no) { return m ? yes : no; }
};

template <>
KD_INLINE float Ops<float>::fma(float a, float b, float c) {
  return ::fmaf(a, b, c);
}
template <>
KD_INLINE float Ops<float>::abs(float x) {
  return ::fabsf(x);
}
template <>
KD_INLINE double kl_term<Ops<double>>(double p, double q, double d) {
  return kl_term_double(p, q, d);
}

KD_INLINE bool finite_and_not_negative(double x) { return x >= 0 && x < INFINITY; }

// `weight_is_bad` is kept beside the constants, because the derivatives by the temperatures read
// the weight again.
template <class Scalar>
struct CheckedConstants : RowConstants<Scalar> {
  bool weight_is_bad, ce_weight_is_bad;
};

template <class Scalar>
KD_INLINE CheckedConstants<Scalar> checked_constants_without_label(const RowParameters& parameters,
                                                                   int64_t student, int64_t row) {
  CheckedConstants<Scalar> c{constants_without_label<Scalar>(parameters, student, row), false,
                             false};
  const Scalar nan = NAN;
  if (!is_temperature(c.student_temperature)) c.student_temperature = c.inverse_student = nan;
  if (!is_temperature(c.teacher_temperature)) c.teacher_temperature = c.inverse_teacher = nan;
  c.weight_is_bad =
      !finite_and_not_negative(row_value<Scalar>(parameters.kl_weight, student, row));
  if (c.weight_is_bad) c.kl_weight = c.student_gradient = nan;
  c.ce_weight_is_bad = !finite_and_not_negative(c.ce_weight);
  return c;
}

template <class Scalar>
KD_INLINE void add_label(const RowParameters& parameters, int64_t student, int64_t row,
                         CheckedConstants<Scalar>& c) {
  set_label(c, counted_label(parameters, row));
  scale_for_float16(parameters, student, row, c);
  if (parameters.labels == nullptr) return;
  const int64_t label = parameters.labels[row * parameters.label_stride];
  const bool inside = label >= 0 && label < parameters.classes;
  const bool label_is_bad = !inside && label != parameters.ignore_index;
  if (label_is_bad || c.ce_weight_is_bad) c.ce_weight = c.ce_gradient = Scalar(NAN);
}

template <class Scalar>
KD_INLINE CheckedConstants<Scalar> checked_constants(const RowParameters& parameters,
                                                     int64_t student, int64_t row) {
  auto c = checked_constants_without_label<Scalar>(parameters, student, row);
  add_label(parameters, student, row, c);
  return c;
}

// The constants that all rows share, computed once by the host. Divisions would take a tenth of a
// short row's time.
template <class Scalar>
struct SharedConstants {
  bool known;
  CheckedConstants<Scalar> constants;
};

template <class Scalar>
inline SharedConstants<Scalar> shared_constants(const RowParameters& parameters) {
  if (!values_are_shared(parameters)) return {};
  return {true, checked_constants_without_label<Scalar>(parameters, 0, 0)};
}

// Fewer than two classes are left: 0 and no gradient, even if other values are invalid.
template <class Scalar>
KD_INLINE void set_dead(CheckedConstants<Scalar>& constants) {
  constants.dead = true;
  constants.label = -1;
  constants.student_gradient = constants.ce_gradient = 0;
  constants.kl_weight = constants.ce_weight = 0;
  constants.weight_is_bad = false;
}

// The values shared by the classes of a row, known after its maxima and sums.
template <class Scalar>
struct RowNumbers {
  Scalar student_max, teacher_max;
  Scalar inverse_student, inverse_teacher;  // 1 / T
  Scalar student_rate, teacher_rate;        // log2e / T
  Scalar student_sum, teacher_sum, sum_at_one;

  KD_INLINE void set_rates(Scalar student_temperature, Scalar teacher_temperature) {
    const Scalar nan = NAN;
    inverse_student = is_temperature(student_temperature) ? 1 / student_temperature : nan;
    inverse_teacher = is_temperature(teacher_temperature) ? 1 / teacher_temperature : nan;
    student_rate = Scalar(log2e) * inverse_student;
    teacher_rate = Scalar(log2e) * inverse_teacher;
  }
  KD_INLINE void set_rates(const RowConstants<Scalar>& constants) {
    inverse_student = constants.inverse_student;
    inverse_teacher = constants.inverse_teacher;
    student_rate = Scalar(log2e) * inverse_student;
    teacher_rate = Scalar(log2e) * inverse_teacher;
  }
  KD_INLINE Scalar student_exponential(Scalar s) const {
    return power_of_two((s - student_max) * student_rate);
  }
  KD_INLINE Scalar teacher_exponential(Scalar t) const {
    return power_of_two((t - teacher_max) * teacher_rate);
  }
  KD_INLINE Scalar exponential_at_one(Scalar s) const {
    return power_of_two((s - student_max) * Scalar(log2e));
  }
};

// What a sum of exponentials is multiplied by when its maximum changes to one that is not smaller.
template <class Scalar>
KD_INLINE Scalar rescaling(Scalar from, Scalar to, Scalar rate) {
  return from == to ? Scalar(1) : power_of_two((from - to) * rate);
}

// Subtracts from the label's number, if it is among those of classes first to first + n - 1.
template <class Scalar, class Index, int n>
KD_INLINE void subtract_at_label(int64_t label, Index first, Scalar value, Scalar (&numbers)[n]) {
  const Index offset = Index(label) - first;
  if (offset < 0 || offset >= n || label < 0) return;
  KD_UNROLL
  for (int i = 0; i < n; ++i) numbers[i] -= i == int(offset) ? value : Scalar(0);
}

// Sums over a row's classes: the divergence, and three for the derivatives by the temperatures.
enum Term { divergence, slope, spread, spread_ratio };
constexpr int terms = 4;

// `sloped` includes the sums for the derivatives by the temperatures.
template <class Scalar, bool sloped>
struct ClassArithmetic {
  RowNumbers<Scalar> row;
  Scalar max_difference, student_norm, teacher_norm, inverse_difference, log_sums;
  Scalar student_gradient, ce_gradient, ce_norm;
  bool labelled;

  KD_INLINE ClassArithmetic(const RowParameters& parameters,
                            const RowConstants<Scalar>& constants, const RowNumbers<Scalar>& row)
      : row(row) {
    max_difference = row.teacher_max - row.student_max;
    student_norm = reciprocal_of_sum(row.student_sum);
    teacher_norm = reciprocal_of_sum(row.teacher_sum);
    inverse_difference = row.inverse_teacher - row.inverse_student;
    log_sums = logarithm(quotient(row.teacher_sum, row.student_sum, student_norm));
    student_gradient = constants.student_gradient;
    ce_gradient = constants.ce_gradient;
    ce_norm = constants.ce_gradient * reciprocal_of_sum(row.sum_at_one);
    labelled = parameters.labels != nullptr;
  }

  // Adds a class to the sums and returns its gradient without the label's part. `e_student` and
  // `e_teacher` are its exponentials.
  KD_INLINE Scalar add(Scalar s, Scalar t, Scalar e_student, Scalar e_teacher,
                       Scalar (&sums)[terms]) const {
    const Scalar q = e_student * student_norm, p = e_teacher * teacher_norm;
    const Scalar difference = q - p, shifted_teacher = t - row.teacher_max;
    // d = ((t - s) - (max t - max s))/Ts + t' (1/Tt - 1/Ts) - log(Zt/Zs)
    const Scalar ratio =
        Ops<Scalar>::fma((t - s) - max_difference, row.inverse_student,
                         Ops<Scalar>::fma(shifted_teacher, inverse_difference, -log_sums));
    sums[divergence] += kl_term<Ops<Scalar>>(p, q, ratio);
    if constexpr (sloped) {
      const Scalar pt = p == 0 ? Scalar(0) : p * shifted_teacher;
      sums[slope] -= difference == 0 ? Scalar(0) : difference * (s - row.student_max);
      sums[spread] += pt;
      sums[spread_ratio] += pt == 0 ? Scalar(0) : pt * ratio;
    }
    const Scalar gradient = difference * student_gradient;
    if (!labelled) return gradient;
    return Ops<Scalar>::fma(row.exponential_at_one(s), ce_norm, gradient);
  }

  // The label's part of the gradient, -onehot, for classes from `first`.
  template <class Index, int n>
  KD_INLINE void add_label(int64_t label, Index first, Scalar (&gradient)[n]) const {
    subtract_at_label(label, first, ce_gradient, gradient);
  }
};

// a * b, rounded before it is subtracted: equal products then differ by exactly 0.
KD_INLINE float rounded_product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
KD_INLINE double rounded_product(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

// The gradient of a class from its logit and the teacher's exponential, after the row's sums.
template <class Scalar>
struct GradientArithmetic {
  Scalar student_max, student_rate;
  Scalar by_student, by_teacher, by_one;  // the gradient is linear in three exponentials

  // `teacher_factor` multiplies the teacher's exponentials.
  KD_INLINE GradientArithmetic(const RowConstants<Scalar>& constants,
                               const RowNumbers<Scalar>& row, Scalar teacher_factor)
      : student_max(row.student_max), student_rate(row.student_rate) {
    by_student = constants.student_gradient * reciprocal_of_sum(row.student_sum);
    by_teacher = constants.student_gradient * reciprocal_of_sum(row.teacher_sum) * teacher_factor;
    by_one = constants.ce_gradient * reciprocal_of_sum(row.sum_at_one);
  }

  KD_INLINE Scalar gradient(Scalar s, Scalar teacher_exponential) const {
    const Scalar shifted = s - student_max;
    const Scalar difference =
        rounded_product(power_of_two(shifted * student_rate), by_student) -
        rounded_product(teacher_exponential, by_teacher);
    return Ops<Scalar>::fma(power_of_two(shifted * Scalar(log2e)), by_one, difference);
  }
};

// The results of a row that are single numbers.
template <class Scalar>
KD_INLINE void write_results(const RowParameters& parameters,
                             const CheckedConstants<Scalar>& constants,
                             const RowNumbers<Scalar>& row, int64_t student, int64_t row_index,
                             Scalar label_logit, const Scalar (&sums)[terms]) {
  const Scalar kl = sums[divergence];
  write_row(parameters, constants, student, row_index, kl,
            logarithm(row.sum_at_one) - (label_logit - row.student_max));
  if (!wants_temperature_gradient(parameters)) return;
  const Scalar nan = NAN;
  const bool bad = constants.weight_is_bad;
  write_temperature_gradients<Scalar>(parameters, constants, student, row_index, bad ? nan : kl,
                                      bad ? nan : sums[slope],
                                      bad ? nan : sums[spread] * kl - sums[spread_ratio]);
}

}  // namespace KD_BODY
}  // namespace kd
