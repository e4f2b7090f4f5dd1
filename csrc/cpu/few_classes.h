// Few classes: lanes are rows. Logits are transposed in registers, so that no lane is idle and no
// sum crosses lanes.
#pragma once

#include "lanes.h"

namespace kd {
namespace KD_BODY {

// columns[k] = class k of `count` rows, `stride` numbers apart. Idle lanes hold 0.
template <class Ops, class T>
KD_INLINE void load_columns(typename Ops::V* columns, const T* rows, int64_t stride, int classes,
                            int count) {
  constexpr int n = Ops::lanes;
  for (int k = 0; k < classes; k += n) {
    const int width = classes - k < n ? classes - k : n;
    typename Ops::V block[n];
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i)
      block[i] = i < count ? Ops::load(rows + i * stride + k, width, Ops::set(0.f)) : Ops::set(0.f);
    Ops::transpose(block);
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) columns[k + i] = block[i];
  }
}

template <class Ops, class T>
KD_INLINE void store_columns(const typename Ops::V* columns, T* rows, int64_t stride, int classes,
                             int count) {
  constexpr int n = Ops::lanes;
  for (int k = 0; k < classes; k += n) {
    const int width = classes - k < n ? classes - k : n;
    typename Ops::V block[n];
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) block[i] = columns[k + i];
    Ops::transpose(block);
    for (int i = 0; i < count; ++i) Ops::store(rows + i * stride + k, block[i], width);
  }
}

// This many terms are summed before they join the total: two short sums round less than a long one.
constexpr int few_sum_block = 8;

// The logits of a group of rows, one class per vector, and their exponentials.
template <class Ops>
struct Columns {
  using V = typename Ops::V;
  static constexpr int room = few_classes + Ops::lanes;
  V s[room], t[room], q[room], p[room];
};

template <class Ops, class Prefetch>
KD_INLINE LaneSums<Ops> sum_columns(Columns<Ops>& columns, const LaneConstants<Ops>& constants,
                                    int classes, Power power, Prefetch prefetch) {
  using V = typename Ops::V;
  auto& [s, t, q, p] = columns;
  const Exponential<Ops> exp_student(constants.student_rate), exp_teacher(constants.teacher_rate);
  LaneSums<Ops> sums;
  sums.student_max = s[0];
  sums.teacher_max = t[0];
  for (int k = 1; k < classes; ++k) {
    sums.student_max = Ops::max(sums.student_max, s[k]);
    sums.teacher_max = Ops::max(sums.teacher_max, t[k]);
  }
  sums.student = sums.teacher = sums.at_one = sums.difference = Ops::set(0.f);
  for (int begin = 0; begin < classes; begin += few_sum_block) {
    const int end = begin + few_sum_block < classes ? begin + few_sum_block : classes;
    V student = Ops::set(0.f), teacher = student, at_one = student, difference = student;
    for (int k = begin; k < end; ++k) {
      prefetch(k);
      const V s_k = s[k] - sums.student_max, t_k = t[k] - sums.teacher_max;
      q[k] = exp_student(s_k);
      p[k] = exp_teacher(t_k);
      student = student + q[k];
      teacher = teacher + p[k];
      at_one = at_one + exponential_at_one<Ops>(power, s_k, q[k]);
      difference = Ops::fma(p[k], t_k - s_k, difference);
    }
    sums.student = sums.student + student;
    sums.teacher = sums.teacher + teacher;
    sums.at_one = sums.at_one + at_one;
    sums.difference = sums.difference + difference;
  }
  return sums;
}

// The sum of kl_term in place of the plain form, and the derivatives by the temperatures.
template <class Ops>
KD_INLINE typename Ops::V diverge_columns(const RowParameters& parameters,
                                          const Columns<Ops>& columns, const LaneSums<Ops>& sums,
                                          const LaneResults<Ops>& results,
                                          const LaneConstants<Ops>& constants, int64_t student,
                                          int64_t first, int count) {
  using V = typename Ops::V;
  using Scalar = typename Ops::Scalar;
  const auto& [s, t, q, p] = columns;
  const V zero = Ops::set(0.f);
  const V max_difference = sums.teacher_max - sums.student_max;
  const bool slopes = wants_temperature_gradient(parameters);
  V kl = zero, slope = zero, spread = zero, spread_ratio = zero;
  for (int k = 0; k < int(parameters.classes); ++k) {
    const V q_k = q[k] * results.student_norm, p_k = p[k] * results.teacher_norm;
    const V s_k = s[k] - sums.student_max, t_k = t[k] - sums.teacher_max;
    // d = t'/Tt - s'/Ts - log(Zt/Zs)
    //   = ((t - s) - (max t - max s))/Ts + t' (1/Tt - 1/Ts) - log(Zt/Zs)
    const V ratio =
        Ops::fma((t[k] - s[k]) - max_difference, constants.inverse_student,
                 Ops::fma(t_k, constants.inverse_difference, zero - results.log_ratio));
    kl = kl + kl_term<Ops>(p_k, q_k, ratio);
    if (slopes) {
      const V difference = q_k - p_k;
      slope = slope - Ops::select(Ops::equal(difference, zero), zero, difference * s_k);
      const V pt = Ops::select(Ops::equal(p_k, zero), zero, p_k * t_k);
      spread = spread + pt;
      spread_ratio = spread_ratio + Ops::select(Ops::equal(pt, zero), zero, pt * ratio);
    }
  }
  if (slopes) {
    Scalar values[4][Ops::lanes];
    const V vectors[] = {kl, slope, spread, spread_ratio};
    for (int i = 0; i < 4; ++i) Ops::store(values[i], vectors[i]);
    for (int i = 0; i < count; ++i)
      write_lane_slopes(parameters, student, first + i, values[0][i], values[1][i], values[2][i],
                        values[3][i]);
  }
  return kl;
}

// The gradient, which overwrites the exponentials q.
template <class Ops, class Prefetch>
KD_INLINE void gradient_columns(Columns<Ops>& columns, const LaneSums<Ops>& sums,
                                const LaneResults<Ops>& results,
                                const LaneConstants<Ops>& constants, int classes, Power power,
                                Prefetch prefetch) {
  using V = typename Ops::V;
  auto& [s, t, q, p] = columns;
  const V by_student = results.student_norm * constants.student_gradient;
  const V by_teacher = results.teacher_norm * constants.student_gradient;
  for (int k = 0; k < classes; ++k) {
    prefetch(k);
    V gradient = q[k] * by_student - p[k] * by_teacher;
    if (power != Power::none) {
      const V at_one = exponential_at_one<Ops>(power, s[k] - sums.student_max, q[k]);
      gradient = Ops::fma(at_one, results.ce_norm, gradient);
      gradient = Ops::select(Ops::equal(constants.label, Ops::set(float(k))),
                             gradient - constants.ce_gradient, gradient);
    }
    q[k] = gradient;
  }
}

template <class Ops, class T, class G>
void rows_of_few_classes(const RowParameters& parameters, const T* student_rows,
                         int64_t student_stride, const T* teacher_rows, int64_t teacher_stride,
                         G* gradient_rows, int64_t student, int64_t first, int count, Power power,
                         const RowConstants<typename Ops::Scalar>* shared, bool more) {
  const int classes = int(parameters.classes);
  const LaneConstants<Ops> constants(parameters, shared, student, first, count);
  Columns<Ops> columns;
  load_columns<Ops>(columns.s, student_rows, student_stride, classes, count);
  load_columns<Ops>(columns.t, teacher_rows, teacher_stride, classes, count);
  // Rows side by side are more streams than the hardware prefetcher follows, so each step
  // prefetches a piece of the next rows.
  const auto prefetch_next = [more](const auto* rows, int64_t stride, int k) {
    if (more) __builtin_prefetch(rows + Ops::lanes * (stride + k), 0, 3);
  };
  const auto sums =
      sum_columns<Ops>(columns, constants, classes, power, [&](int k) {
        prefetch_next(student_rows, student_stride, k);
        prefetch_next(teacher_rows, teacher_stride, k);
      });
  const LaneResults<Ops> results(sums, constants);
  auto kl = results.kl;
  typename Ops::Scalar kls[Ops::lanes];
  Ops::store(kls, kl);
  bool plain = !wants_temperature_gradient(parameters);
  for (int i = 0; i < count; ++i) plain &= plain_form_serves(kls[i]);
  if (!plain)
    kl = diverge_columns<Ops>(parameters, columns, sums, results, constants, student, first, count);
  write_lanes<Ops>(parameters, constants, sums, kl, student_rows, student_stride, student, first,
                   count);
  if (gradient_rows == nullptr) return;
  gradient_columns<Ops>(columns, sums, results, constants, classes, power, [&](int k) {
    prefetch_next(gradient_rows, classes, k);
  });
  store_columns<Ops>(columns.q, gradient_rows, parameters.classes, classes, count);
}

}  // namespace KD_BODY
}  // namespace kd
