// Many classes: lanes are classes, three passes over a row that stays in cache: maxima; sums of
// exponentials; divergence and gradient.
#pragma once

#include "half.h"
#include "power.h"

namespace kd {
namespace KD_BODY {

// Sums of up to 512 vectors are gathered before they join the total: two short sums round less
// than a long one.
constexpr int64_t sum_block = 512;

// Calls body(j, load) for each vector of classes, load(pointer) giving 16 or the last few.
template <class Ops, class Body, class Flush>
KD_INLINE void over_classes(int64_t classes, Body body, Flush flush) {
  constexpr int n = Ops::lanes;
  const int64_t whole = classes / n * n;
  for (int64_t begin = 0; begin < whole; begin += sum_block * n) {
    const int64_t end = begin + sum_block * n < whole ? begin + sum_block * n : whole;
    for (int64_t j = begin; j < end; j += n) body(j, n);
    flush();
  }
  if (whole < classes) {
    body(whole, int(classes - whole));
    flush();
  }
}

// All n lanes, or the first `count` and `fill` in the others, whose exponential is 0.
template <class Ops, class T>
KD_INLINE typename Ops::V load_lanes(const T* p, int count, typename Ops::V fill) {
  return count == Ops::lanes ? Ops::load(p) : Ops::load(p, count, fill);
}

template <class Scalar>
KD_INLINE RowConstants<Scalar> constants_of_row(const RowParameters& parameters,
                                                const RowConstants<Scalar>* shared,
                                                int64_t student, int64_t row) {
  if (shared == nullptr)
    return row_constants<Scalar>(parameters, student, row, row_is_dead(parameters, row));
  RowConstants<Scalar> constants = *shared;
  set_label(constants, counted_label(parameters, row));
  return constants;
}

// Above this the next row would push the present one out of the second level of cache.
constexpr int64_t most_prefetched_classes = 16384;

// What the passes over one row hand on.
template <class Scalar>
struct RowState {
  RowConstants<Scalar> constants;
  Scalar student_max, teacher_max;
  Scalar student_sum, teacher_sum, sum_at_one;
  Scalar log_sums;        // log(Zt / Zs)
  Scalar log_sum_at_one;  // log Z1
};

template <class Ops, class T>
KD_INLINE void find_maxima(RowState<typename Ops::Scalar>& row, int64_t classes, const T* s,
                           const T* t) {
  using V = typename Ops::V;
  const V lowest = Ops::set(-INFINITY);
  V student_max = lowest, teacher_max = lowest;
  over_classes<Ops>(
      classes,
      [&](int64_t j, int count) {
        student_max = Ops::max(student_max, load_lanes<Ops>(s + j, count, lowest));
        teacher_max = Ops::max(teacher_max, load_lanes<Ops>(t + j, count, lowest));
      },
      [] {});
  row.student_max = Ops::largest(student_max);
  row.teacher_max = Ops::largest(teacher_max);
}

// Sums of exponentials; they are kept for the next pass where `kept` has room for 2 C.
template <class Ops, class T>
KD_INLINE void sum_exponentials(RowState<typename Ops::Scalar>& row, int64_t classes, const T* s,
                                const T* t, Power power, typename Ops::Scalar* kept,
                                int64_t ahead) {
  using V = typename Ops::V;
  const V zero = Ops::set(0.f), lowest = Ops::set(-INFINITY);
  const V student_max = Ops::set(row.student_max), teacher_max = Ops::set(row.teacher_max);
  const V student_rate = Ops::set(row.constants.student_rate);
  const V teacher_rate = Ops::set(row.constants.teacher_rate);
  V sums[3] = {zero, zero, zero}, part[3] = {zero, zero, zero};
  over_classes<Ops>(
      classes,
      [&](int64_t j, int count) {
        if (ahead != 0) __builtin_prefetch(s + j + ahead, 0, 3);
        const V shifted = load_lanes<Ops>(s + j, count, lowest) - student_max;
        const V e_student = Ops::exp2(shifted * student_rate);
        const V e_teacher =
            Ops::exp2((load_lanes<Ops>(t + j, count, lowest) - teacher_max) * teacher_rate);
        part[0] = part[0] + e_student;
        part[1] = part[1] + e_teacher;
        if (power > Power::same)
          part[2] = part[2] + exponential_at_one<Ops>(power, shifted, e_student);
        if (kept != nullptr) {
          Ops::store(kept + j, e_student);
          Ops::store(kept + padded(classes) + j, e_teacher);
        }
      },
      [&] {
        for (int i = 0; i < 3; ++i) {
          sums[i] = sums[i] + part[i];
          part[i] = zero;
        }
      });
  row.student_sum = Ops::sum(sums[0]);
  row.teacher_sum = Ops::sum(sums[1]);
  row.sum_at_one = power > Power::same ? Ops::sum(sums[2]) : row.student_sum;
}

// The logarithms of a few rows in one vector, which costs as much as one.
template <class Ops>
KD_INLINE void take_logarithms(RowState<typename Ops::Scalar>* rows, int count) {
  alignas(64) typename Ops::Scalar values[2 * most_rows_at_once + 16];
  for (int i = 0; i < count; ++i) {
    values[2 * i] = rows[i].teacher_sum / rows[i].student_sum;
    values[2 * i + 1] = rows[i].sum_at_one;
  }
  for (int i = 2 * count; i < 2 * count + Ops::lanes; ++i) values[i] = 1;
  for (int i = 0; i < 2 * count; i += Ops::lanes)
    Ops::store(values + i, Ops::log(Ops::load(values + i)));
  for (int i = 0; i < count; ++i) {
    rows[i].log_sums = values[2 * i];
    rows[i].log_sum_at_one = values[2 * i + 1];
  }
}

// Returns the divergence; writes the gradient if there is room for one.
template <class Ops, class T, class G>
KD_INLINE typename Ops::Scalar diverge(const RowState<typename Ops::Scalar>& row, int64_t classes,
                                       const T* s, const T* t, G* gradient, Power power,
                                       const typename Ops::Scalar* kept, int64_t ahead) {
  using V = typename Ops::V;
  const auto& constants = row.constants;
  const V zero = Ops::set(0.f), lowest = Ops::set(-INFINITY);
  const V student_max = Ops::set(row.student_max), teacher_max = Ops::set(row.teacher_max);
  const V student_rate = Ops::set(constants.student_rate);
  const V teacher_rate = Ops::set(constants.teacher_rate);
  const V student_norm = Ops::set(1 / row.student_sum);
  const V teacher_norm = Ops::set(1 / row.teacher_sum);
  const V inverse_student = Ops::set(constants.inverse_student);
  const V inverse_difference = Ops::set(constants.inverse_difference);
  const bool equal_temperatures = constants.inverse_difference == 0;
  const V max_difference = Ops::set(row.teacher_max - row.student_max);
  const V minus_log_sums = Ops::set(-row.log_sums);
  const V student_gradient = Ops::set(constants.student_gradient);
  const V ce_norm = Ops::set(constants.ce_gradient / row.sum_at_one);
  V kl = zero, part = zero;
  over_classes<Ops>(
      classes,
      [&](int64_t j, int count) {
        if (ahead != 0) {
          __builtin_prefetch(t + j + ahead, 0, 3);
          __builtin_prefetch(gradient + j + ahead, 1, 3);
        }
        const V s_j = load_lanes<Ops>(s + j, count, lowest);
        const V t_j = load_lanes<Ops>(t + j, count, lowest);
        V e_student, e_teacher;
        if (kept != nullptr) {
          e_student = Ops::load(kept + j);
          e_teacher = Ops::load(kept + padded(classes) + j);
        } else {
          e_student = Ops::exp2((s_j - student_max) * student_rate);
          e_teacher = Ops::exp2((t_j - teacher_max) * teacher_rate);
        }
        const V q = e_student * student_norm, p = e_teacher * teacher_norm;
        const V difference = q - p;
        // d = t'/Tt - s'/Ts - log(Zt/Zs)
        //   = ((t - s) - (max t - max s))/Ts + t' (1/Tt - 1/Ts) - log(Zt/Zs)
        V ratio = Ops::fma((t_j - s_j) - max_difference, inverse_student, minus_log_sums);
        if (!equal_temperatures) ratio = Ops::fma(t_j - teacher_max, inverse_difference, ratio);
        part = part + kl_term<Ops>(p, q, ratio);
        if (gradient == nullptr) return;
        V g = difference * student_gradient;
        if (power != Power::none) {
          g = Ops::fma(exponential_at_one<Ops>(power, s_j - student_max, e_student), ce_norm, g);
          const int64_t lane = constants.label - j;
          if (uint64_t(lane) < uint64_t(Ops::lanes))
            g = Ops::select(Ops::lane_is(int(lane)), g - Ops::set(constants.ce_gradient), g);
        }
        if (count == Ops::lanes)
          Ops::store(gradient + j, g);
        else
          Ops::store(gradient + j, g, count);
      },
      [&] {
        kl = kl + part;
        part = zero;
      });
  return Ops::sum(kl);
}

// slope_s and slope_t of row_math.h, for the rare call that wants them: one more pass.
template <class Ops, class T>
void temperature_slopes(const RowParameters& parameters,
                        const RowState<typename Ops::Scalar>& row, const T* s, const T* t,
                        typename Ops::Scalar kl, int64_t student, int64_t index) {
  using V = typename Ops::V;
  const auto& constants = row.constants;
  const V zero = Ops::set(0.f), lowest = Ops::set(-INFINITY);
  V slope = zero, spread = zero, spread_ratio = zero;
  over_classes<Ops>(
      parameters.classes,
      [&](int64_t j, int count) {
        const V shifted_s = load_lanes<Ops>(s + j, count, lowest) - Ops::set(row.student_max);
        const V shifted_t = load_lanes<Ops>(t + j, count, lowest) - Ops::set(row.teacher_max);
        const V q = Ops::exp2(shifted_s * Ops::set(constants.student_rate)) *
                    Ops::set(1 / row.student_sum);
        const V p = Ops::exp2(shifted_t * Ops::set(constants.teacher_rate)) *
                    Ops::set(1 / row.teacher_sum);
        const V difference = q - p;
        const V ratio = Ops::fma(shifted_t - shifted_s, Ops::set(constants.inverse_student),
                                 Ops::fma(shifted_t, Ops::set(constants.inverse_difference),
                                          Ops::set(-row.log_sums)));
        slope = slope - Ops::select(Ops::equal(difference, zero), zero, difference * shifted_s);
        const V pt = Ops::select(Ops::equal(p, zero), zero, p * shifted_t);
        spread = spread + pt;
        spread_ratio = spread_ratio + Ops::select(Ops::equal(pt, zero), zero, pt * ratio);
      },
      [] {});
  write_temperature_gradients(parameters, constants, student, index, kl, Ops::sum(slope),
                              Ops::sum(spread) * kl - Ops::sum(spread_ratio));
}

// A pass goes over a few short rows before the next begins: while one row's sum crosses the
// lanes the processor is at the next row.
template <class Ops, class T, class G>
void rows_of_many_classes(const RowParameters& parameters, const T* student_rows,
                          int64_t student_stride, const T* teacher_rows, int64_t teacher_stride,
                          G* gradient_rows, int64_t student, int64_t first, int count, Power power,
                          const RowConstants<typename Ops::Scalar>* shared,
                          typename Ops::Scalar* kept, bool more) {
  using Scalar = typename Ops::Scalar;
  const int64_t classes = parameters.classes;
  RowState<Scalar> rows[most_rows_at_once];
  const auto s = [&](int i) { return student_rows + i * student_stride; };
  const auto t = [&](int i) { return teacher_rows + i * teacher_stride; };
  const auto kept_of = [&](int i) {
    return kept == nullptr ? nullptr : kept + i * 2 * padded(classes);
  };
  for (int i = 0; i < count; ++i) {
    rows[i].constants = constants_of_row(parameters, shared, student, first + i);
    find_maxima<Ops>(rows[i], classes, s(i), t(i));
  }
  // The rows after these, asked for while these are computed; they lie as the gradient does.
  const int64_t ahead = more && student_stride == classes && teacher_stride == classes &&
                                gradient_rows != nullptr && classes <= most_prefetched_classes
                            ? count * classes
                            : 0;
  for (int i = 0; i < count; ++i)
    sum_exponentials<Ops>(rows[i], classes, s(i), t(i), power, kept_of(i), ahead);
  take_logarithms<Ops>(rows, count);
  for (int i = 0; i < count; ++i) {
    const auto& row = rows[i];
    G* const gradient = gradient_rows == nullptr ? nullptr : gradient_rows + i * classes;
    const Scalar kl = diverge<Ops>(row, classes, s(i), t(i), gradient, power, kept_of(i), ahead);
    const int64_t label = row.constants.label;
    // log Z1 - (s_y - max s): both small, where logsumexp - s_y would lose a common offset.
    const Scalar ce = label < 0 ? Scalar(0)
                                : row.log_sum_at_one -
                                      (Scalar(to_float(s(i)[label])) - row.student_max);
    write_row(parameters, row.constants, student, first + i, kl, ce);
    if (wants_temperature_gradient(parameters))
      temperature_slopes<Ops>(parameters, row, s(i), t(i), kl, student, first + i);
  }
}

}  // namespace KD_BODY
}  // namespace kd
