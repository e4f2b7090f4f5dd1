// Few classes: lanes are rows. Logits are transposed in registers, so that no lane is idle and no
// sum crosses lanes.
#pragma once

#include "half.h"
#include "power.h"

namespace kd {
namespace KD_BODY {

// columns[k] = class k of `count` rows that lie `stride` apart; idle lanes hold 0.
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

// The constants of one row in each lane.
template <class Ops>
struct LaneConstants {
  using V = typename Ops::V;
  using Scalar = typename Ops::Scalar;
  V student_rate, teacher_rate, inverse_student, inverse_difference;
  V kl_weight, ce_weight, student_gradient, ce_gradient;
  V label;  // -1: no cross entropy
  V alive;  // 0: fewer than two classes are left

  KD_INLINE LaneConstants(const RowParameters& parameters, const RowConstants<Scalar>* shared,
                          int64_t student, int64_t first, int count) {
    if (shared == nullptr)
      gather(parameters, student, first, count);
    else
      spread(parameters, *shared, first, count);
  }

 private:
  KD_INLINE void spread(const RowParameters& parameters, const RowConstants<Scalar>& shared,
                        int64_t first, int count) {
    Scalar labels[Ops::lanes] = {};
    for (int i = 0; i < count; ++i) labels[i] = Scalar(counted_label(parameters, first + i));
    label = Ops::load(labels);
    student_rate = Ops::set(shared.student_rate);
    teacher_rate = Ops::set(shared.teacher_rate);
    inverse_student = Ops::set(shared.inverse_student);
    inverse_difference = Ops::set(shared.inverse_difference);
    kl_weight = Ops::set(shared.kl_weight);
    student_gradient = Ops::set(shared.student_gradient);
    const V zero = Ops::set(0.f);
    const auto unlabelled = Ops::less(label, zero);
    ce_weight = Ops::select(unlabelled, zero, Ops::set(shared.ce_weight));
    ce_gradient = Ops::select(unlabelled, zero, Ops::set(shared.ce_gradient));
    alive = Ops::set(1.f);
  }

  void gather(const RowParameters& parameters, int64_t student, int64_t first, int count) {
    Scalar values[10][Ops::lanes];
    for (int i = 0; i < Ops::lanes; ++i) {
      const int64_t row = first + (i < count ? i : 0);
      const auto c =
          row_constants<Scalar>(parameters, student, row, row_is_dead(parameters, row));
      const Scalar members[] = {c.student_rate,       c.teacher_rate,      c.inverse_student,
                                c.inverse_difference, c.kl_weight,         c.ce_weight,
                                c.student_gradient,   c.ce_gradient,       Scalar(c.label),
                                Scalar(!c.dead)};
      for (int member = 0; member < 10; ++member) values[member][i] = members[member];
    }
    V* const vectors[] = {&student_rate,       &teacher_rate, &inverse_student,
                          &inverse_difference, &kl_weight,    &ce_weight,
                          &student_gradient,   &ce_gradient,  &label,
                          &alive};
    for (int member = 0; member < 10; ++member) *vectors[member] = Ops::load(values[member]);
  }
};

// weighted() of row_math.h, lane by lane; neither kl nor ce is ever -inf.
template <class Ops>
KD_INLINE typename Ops::V weighted_lanes(typename Ops::V weight, typename Ops::V value) {
  const auto zero = Ops::set(0.f);
  const auto finite = Ops::select(Ops::equal(value, Ops::set(INFINITY)), zero, value);
  return weight * Ops::select(Ops::equal(weight, zero), finite, value);
}

template <class Ops, class T, class G>
void rows_of_few_classes(const RowParameters& parameters, const T* student_rows,
                         int64_t student_stride, const T* teacher_rows, int64_t teacher_stride,
                         G* gradient_rows, int64_t student, int64_t first, int count, Power power,
                         const RowConstants<typename Ops::Scalar>* shared, bool more) {
  using V = typename Ops::V;
  using Scalar = typename Ops::Scalar;
  constexpr int room = few_classes + Ops::lanes;
  const int classes = int(parameters.classes);
  const LaneConstants<Ops> constants(parameters, shared, student, first, count);
  V s[room], t[room], q[room], p[room];
  load_columns<Ops>(s, student_rows, student_stride, classes, count);
  load_columns<Ops>(t, teacher_rows, teacher_stride, classes, count);

  V student_max = s[0], teacher_max = t[0];
  for (int k = 1; k < classes; ++k) {
    student_max = Ops::max(student_max, s[k]);
    teacher_max = Ops::max(teacher_max, t[k]);
  }
  // Rows side by side are more streams than the processor follows by itself, so each step asks for
  // a piece of the next rows' memory.
  const auto prefetch_next = [&](const auto* rows, int64_t stride, int k) {
    if (more) __builtin_prefetch(rows + Ops::lanes * (stride + k), 0, 3);
  };
  V student_sum = Ops::set(0.f), teacher_sum = Ops::set(0.f), sum_at_one = Ops::set(0.f);
  for (int k = 0; k < classes; ++k) {
    prefetch_next(student_rows, student_stride, k);
    prefetch_next(teacher_rows, teacher_stride, k);
    const V shifted = s[k] - student_max;
    q[k] = Ops::exp2(shifted * constants.student_rate);
    p[k] = Ops::exp2((t[k] - teacher_max) * constants.teacher_rate);
    student_sum = student_sum + q[k];
    teacher_sum = teacher_sum + p[k];
    sum_at_one = sum_at_one + exponential_at_one<Ops>(power, shifted, q[k]);
  }

  const V one = Ops::set(1.f), zero = Ops::set(0.f);
  const V student_norm = one / student_sum, teacher_norm = one / teacher_sum;
  const V ce_norm = constants.ce_gradient / sum_at_one;
  const V log_sums = Ops::log(teacher_sum / student_sum);
  const V max_difference = teacher_max - student_max;
  const bool slopes = wants_temperature_gradient(parameters);
  V kl = zero, label_logit = zero, slope = zero, spread = zero, spread_ratio = zero;
  for (int k = 0; k < classes; ++k) {
    if (gradient_rows != nullptr) prefetch_next(gradient_rows, classes, k);
    const V q_k = q[k] * student_norm, p_k = p[k] * teacher_norm;
    const V difference = q_k - p_k;
    // d = t'/Tt - s'/Ts - log(Zt/Zs)
    //   = ((t - s) - (max t - max s))/Ts + t' (1/Tt - 1/Ts) - log(Zt/Zs)
    const V s_k = s[k] - student_max, t_k = t[k] - teacher_max;
    const V ratio = Ops::fma((t[k] - s[k]) - max_difference, constants.inverse_student,
                             Ops::fma(t_k, constants.inverse_difference, zero - log_sums));
    kl = kl + kl_term<Ops>(p_k, q_k, ratio);
    const auto is_label = Ops::equal(constants.label, Ops::set(float(k)));
    label_logit = Ops::select(is_label, s_k, label_logit);
    V gradient = difference * constants.student_gradient;
    if (power != Power::none) {
      gradient = Ops::fma(exponential_at_one<Ops>(power, s_k, q[k]), ce_norm, gradient);
      gradient = Ops::select(is_label, gradient - constants.ce_gradient, gradient);
    }
    if (slopes) {
      slope = slope - Ops::select(Ops::equal(difference, zero), zero, difference * s_k);
      const V pt = Ops::select(Ops::equal(p_k, zero), zero, p_k * t_k);
      spread = spread + pt;
      spread_ratio = spread_ratio + Ops::select(Ops::equal(pt, zero), zero, pt * ratio);
    }
    q[k] = gradient;
  }
  kl = Ops::select(Ops::equal(constants.alive, zero), zero, kl);
  const V ce = Ops::select(Ops::less(constants.label, zero), zero,
                           Ops::log(sum_at_one) - label_logit);
  const int64_t at = student * parameters.rows + first;
  Ops::store(static_cast<Scalar*>(parameters.kl) + at, kl, count);
  Ops::store(static_cast<Scalar*>(parameters.ce) + at, ce, count);
  Ops::store(static_cast<Scalar*>(parameters.loss) + at,
             weighted_lanes<Ops>(constants.kl_weight, kl) +
                 weighted_lanes<Ops>(constants.ce_weight, ce),
             count);
  if (slopes) {
    Scalar kls[Ops::lanes], of_student[Ops::lanes], of_teacher[Ops::lanes];
    Ops::store(kls, kl);
    Ops::store(of_student, slope);
    Ops::store(of_teacher, spread * kl - spread_ratio);
    for (int i = 0; i < count; ++i)
      write_temperature_gradients(
          parameters,
          row_constants<Scalar>(parameters, student, first + i, row_is_dead(parameters, first + i)),
          student, first + i, kls[i], of_student[i], of_teacher[i]);
  }
  if (gradient_rows != nullptr)
    store_columns<Ops>(q, gradient_rows, parameters.classes, classes, count);
}

}  // namespace KD_BODY
}  // namespace kd
