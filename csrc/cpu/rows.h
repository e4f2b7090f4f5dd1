// The loss of a range of rows on one thread, written once over `Ops`, one vector of some width.
//
// Few classes: lanes are rows; logits are transposed in registers, so that no lane is idle and no
// sum crosses lanes. Many classes: lanes are classes, three passes over a row that stays in cache:
// maxima; sums of exponentials; divergence and gradient.
#pragma once

#include "body.h"
#include "half.h"

namespace kd {
namespace KD_BODY {

// How exp(s - max), for r, is had: from e = exp((s - max)/Ts) by e^Ts where that is e itself, its
// square or its fourth power, else by an exponential of its own.
enum class Power { none, same, square, fourth, general };

KD_INLINE Power power_of(const RowParameters& parameters) {
  if (parameters.labels == nullptr) return Power::none;
  if (parameters.student_temperature.data != nullptr) return Power::general;
  const double temperature = parameters.student_temperature.value;
  if (temperature == 1) return Power::same;
  if (temperature == 2) return Power::square;
  return temperature == 4 ? Power::fourth : Power::general;
}

template <class Ops>
KD_INLINE typename Ops::V exponential_at_one(Power power, typename Ops::V shifted,
                                             typename Ops::V exponential) {
  using Scalar = typename Ops::Scalar;
  if (power == Power::general) return Ops::exp2(shifted * Ops::set(Scalar(log2e)));
  if (power == Power::square) return exponential * exponential;
  if (power == Power::fourth) {
    const auto square = exponential * exponential;
    return square * square;
  }
  return exponential;
}

// ---------------------------------------------------------------- few classes: lanes are rows

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

// --------------------------------------------------------------- many classes: lanes are classes

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

// ------------------------------------------------------------------------- ranges of rows

template <class Ops, class T, class G>
void run_rows(const RowParameters& parameters, const T* student, int64_t student_stride,
              const T* teacher, int64_t teacher_stride, G* gradient, int64_t k, int64_t first,
              int64_t count, typename Ops::Scalar* kept) {
  using Scalar = typename Ops::Scalar;
  const Power power = power_of(parameters);
  RowConstants<Scalar> constants;
  const RowConstants<Scalar>* shared = nullptr;
  if (constants_are_shared(parameters)) {
    constants = constants_without_label<Scalar>(parameters, 0, 0);
    shared = &constants;
  }
  const bool few = lanes_are_rows(parameters);
  const int64_t step = few ? Ops::lanes : rows_at_once(parameters.classes);
  for (int64_t i = 0; i < count; i += step) {
    const T* s = student + i * student_stride;
    const T* t = teacher + i * teacher_stride;
    G* g = gradient == nullptr ? nullptr : gradient + i * parameters.classes;
    const int rows = int(count - i < step ? count - i : step);
    const bool more = i + 2 * step <= count;
    if (few)
      rows_of_few_classes<Ops>(parameters, s, student_stride, t, teacher_stride, g, k, first + i,
                               rows, power, shared, more);
    else
      rows_of_many_classes<Ops>(parameters, s, student_stride, t, teacher_stride, g, k, first + i,
                                rows, power, shared, kept, more);
  }
}

// Both logits of type T, classes next to each other, no mask: read where they lie.
template <class Ops, class T>
void run_direct(const RowParameters& parameters, int64_t begin, int64_t end,
                typename Ops::Scalar* kept) {
  const auto* student = static_cast<const T*>(parameters.student.data);
  const auto* teacher = static_cast<const T*>(parameters.teacher.data);
  auto* gradient = static_cast<T*>(parameters.gradient);
  // The teacher's row stays in cache for all students.
  const int64_t block = parameters.students == 1 ? end - begin : Ops::lanes;
  for (int64_t first = begin; first < end; first += block) {
    const int64_t count = end - first < block ? end - first : block;
    for (int64_t k = 0; k < parameters.students; ++k)
      run_rows<Ops>(parameters,
                    student + k * parameters.student.student_stride +
                        first * parameters.student.row_stride,
                    parameters.student.row_stride, teacher + first * parameters.teacher.row_stride,
                    parameters.teacher.row_stride,
                    gradient == nullptr
                        ? nullptr
                        : gradient + (k * parameters.rows + first) * parameters.classes,
                    k, first, count, kept);
  }
}

template <class Scalar, class T>
void stage_row(const RowParameters& parameters, const T* from, int64_t class_stride, int64_t row,
               Scalar* to) {
  for (int64_t c = 0; c < parameters.classes; ++c) to[c] = Scalar(to_float(from[c * class_stride]));
  if (parameters.class_mask == nullptr) return;
  // A row without two classes is computed as if all its logits were 0, and then counts nothing.
  const bool dead = row_is_dead(parameters, row);
  for (int64_t c = 0; c < parameters.classes; ++c)
    if (!class_kept(parameters, row, c)) to[c] = -Scalar(INFINITY);
  for (int64_t c = 0; dead && c < parameters.classes; ++c) to[c] = 0;
}

template <class Scalar>
void stage(const RowParameters& parameters, const Logits& logits, int64_t k, int64_t row,
           Scalar* to) {
  const int64_t offset = k * logits.student_stride + row * logits.row_stride;
  const auto from = [&](auto* data) {
    stage_row(parameters, data + offset, logits.class_stride, row, to);
  };
  switch (logits.type) {
    case Type::float32: return from(static_cast<const float*>(logits.data));
    case Type::bfloat16: return from(static_cast<const BFloat16*>(logits.data));
    case Type::float16: return from(static_cast<const Float16*>(logits.data));
    case Type::float64: return from(static_cast<const double*>(logits.data));
  }
}

template <class Scalar, class T>
void unstage_to(const Scalar* from, T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (sizeof(T) == 8)
      to[i] = double(from[i]);
    else
      from_float(to[i], float(from[i]));
  }
}

template <class Scalar>
void unstage(const RowParameters& parameters, const Scalar* from, int64_t offset, int64_t count) {
  void* to = parameters.gradient;
  switch (parameters.student.type) {
    case Type::float32: return unstage_to(from, static_cast<float*>(to) + offset, count);
    case Type::bfloat16: return unstage_to(from, static_cast<BFloat16*>(to) + offset, count);
    case Type::float16: return unstage_to(from, static_cast<Float16*>(to) + offset, count);
    case Type::float64: return unstage_to(from, static_cast<double*>(to) + offset, count);
  }
}

// Mixed types, strided classes, a class mask: rows are copied to scratch in the compute type first.
template <class Ops>
void run_staged(const RowParameters& parameters, int64_t begin, int64_t end,
                typename Ops::Scalar* kept, typename Ops::Scalar* staging) {
  const int64_t classes = parameters.classes;
  const int64_t block = lanes_are_rows(parameters) ? Ops::lanes : rows_at_once(classes);
  auto* const student = staging;
  auto* const teacher = student + padded(block * classes);
  auto* const gradient =
      parameters.gradient == nullptr ? nullptr : teacher + padded(block * classes);
  for (int64_t first = begin; first < end; first += block) {
    const int64_t count = end - first < block ? end - first : block;
    for (int64_t i = 0; i < count; ++i)
      stage(parameters, parameters.teacher, 0, first + i, teacher + i * classes);
    for (int64_t k = 0; k < parameters.students; ++k) {
      for (int64_t i = 0; i < count; ++i)
        stage(parameters, parameters.student, k, first + i, student + i * classes);
      run_rows<Ops>(parameters, student, classes, teacher, classes, gradient, k, first, count,
                    kept);
      if (gradient != nullptr)
        unstage(parameters, gradient, (k * parameters.rows + first) * classes, count * classes);
    }
  }
}

template <class Ops>
void run(const RowParameters& parameters, int64_t begin, int64_t end, void* scratch) {
  using Scalar = typename Ops::Scalar;
  const ScratchLayout layout = scratch_layout(parameters, Ops::lanes);
  auto* const kept = layout.keeps ? static_cast<Scalar*>(scratch) : nullptr;
  auto* const staging = static_cast<Scalar*>(scratch) + layout.kept;
  if (layout.staged != 0) return run_staged<Ops>(parameters, begin, end, kept, staging);
  if constexpr (sizeof(Scalar) == 8) {
    run_direct<Ops, double>(parameters, begin, end, kept);
  } else {
    switch (parameters.student.type) {
      case Type::float32: return run_direct<Ops, float>(parameters, begin, end, kept);
      case Type::bfloat16: return run_direct<Ops, BFloat16>(parameters, begin, end, kept);
      case Type::float16: return run_direct<Ops, Float16>(parameters, begin, end, kept);
      case Type::float64: return;
    }
  }
}

}  // namespace KD_BODY
}  // namespace kd
