// The loss of a range of rows on one thread, written once over `Ops`, one vector of some width.
//
// Few classes (up to 16): lanes are rows; logits are transposed in registers, so that no lane is
// idle and no sum crosses lanes. More classes: lanes are classes, three passes over a row that
// stays in cache: maxima; sums of exponentials; divergence and gradient.
#pragma once

#include "body.h"
#include "half.h"

namespace kd {
namespace KD_BODY {

constexpr int few_classes = 16;

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
template <class Scalar>
KD_INLINE Scalar log2e_over(Scalar temperature) {
  return Scalar(log2e / double(temperature));
}

// ---------------------------------------------------------------- few classes: lanes are rows

// Rows of L lanes become columns: block[i] holds row i before and class i after.
template <class Ops>
KD_INLINE void transpose(typename Ops::V* block) {
  constexpr int n = Ops::lanes;
#define KD_STEP(h)                                                  \
  if constexpr (n > h) {                                            \
    _Pragma("GCC unroll 16") for (int i = 0; i < n; ++i) if (!(i & h)) \
        Ops::template swap_blocks<h>(block[i], block[i + h]);       \
  }
  KD_STEP(8)
  KD_STEP(4)
  KD_STEP(2)
  KD_STEP(1)
#undef KD_STEP
}

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
    transpose<Ops>(block);
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
    transpose<Ops>(block);
    for (int i = 0; i < count; ++i) Ops::store(rows + i * stride + k, block[i], width);
  }
}

// One row value per lane.
template <class Ops>
struct LaneConstants {
  using Scalar = typename Ops::Scalar;
  RowConstants<Scalar> row[Ops::lanes];

  KD_INLINE LaneConstants(const RowParameters& parameters, int64_t student, int64_t first,
                          int count) {
    for (int i = 0; i < count; ++i)
      row[i] = row_constants<Scalar>(parameters, student, first + i,
                                     row_is_dead(parameters, first + i));
    for (int i = count; i < Ops::lanes; ++i) row[i] = row[0];
  }
  template <class Member>
  KD_INLINE typename Ops::V vector(Member member) const {
    Scalar values[Ops::lanes];
    for (int i = 0; i < Ops::lanes; ++i) values[i] = Scalar(member(row[i]));
    return Ops::load(values);
  }
};

template <class Ops, class T, class G>
void rows_of_few_classes(const RowParameters& parameters, const T* student_rows,
                         int64_t student_stride, const T* teacher_rows, int64_t teacher_stride,
                         G* gradient_rows, int64_t student, int64_t first, int count, Power power) {
  using V = typename Ops::V;
  using Scalar = typename Ops::Scalar;
  using Constants = RowConstants<Scalar>;
  constexpr int room = few_classes + Ops::lanes;
  const int classes = int(parameters.classes);
  const LaneConstants<Ops> constants(parameters, student, first, count);
  V s[room], t[room], q[room], p[room], r[room];
  load_columns<Ops>(s, student_rows, student_stride, classes, count);
  load_columns<Ops>(t, teacher_rows, teacher_stride, classes, count);

  V student_max = s[0], teacher_max = t[0];
  for (int k = 1; k < classes; ++k) {
    student_max = Ops::max(student_max, s[k]);
    teacher_max = Ops::max(teacher_max, t[k]);
  }
  const V student_rate =
      constants.vector([](const Constants& c) { return log2e_over(c.student_temperature); });
  const V teacher_rate =
      constants.vector([](const Constants& c) { return log2e_over(c.teacher_temperature); });
  V student_sum = Ops::set(0.f), teacher_sum = Ops::set(0.f), sum_at_one = Ops::set(0.f);
  for (int k = 0; k < classes; ++k) {
    s[k] = s[k] - student_max;
    t[k] = t[k] - teacher_max;
    q[k] = Ops::exp2(s[k] * student_rate);
    p[k] = Ops::exp2(t[k] * teacher_rate);
    r[k] = exponential_at_one<Ops>(power, s[k], q[k]);
    student_sum = student_sum + q[k];
    teacher_sum = teacher_sum + p[k];
    sum_at_one = sum_at_one + r[k];
  }

  const V inverse_student =
      constants.vector([](const Constants& c) { return 1 / c.student_temperature; });
  const V inverse_difference = constants.vector(
      [](const Constants& c) { return 1 / c.teacher_temperature - 1 / c.student_temperature; });
  const V student_gradient =
      constants.vector([](const Constants& c) { return c.student_gradient; });
  const V ce_gradient = constants.vector([](const Constants& c) { return c.ce_gradient; });
  const V label = constants.vector([](const Constants& c) { return c.label; });
  const V one = Ops::set(1.f), zero = Ops::set(0.f);
  const V student_norm = one / student_sum, teacher_norm = one / teacher_sum;
  const V ce_norm = ce_gradient / sum_at_one;
  const V log_sums = Ops::log(teacher_sum / student_sum);
  const bool slopes = wants_temperature_gradient(parameters);
  V kl = zero, label_logit = zero, slope = zero, spread = zero, spread_ratio = zero;
  for (int k = 0; k < classes; ++k) {
    q[k] = q[k] * student_norm;
    p[k] = p[k] * teacher_norm;
    const V difference = q[k] - p[k];
    // d = t'/Tt - s'/Ts - log(Zt/Zs) = (t' - s')/Ts + t' (1/Tt - 1/Ts) - log(Zt/Zs)
    const V ratio = Ops::fma(t[k] - s[k], inverse_student,
                             Ops::fma(t[k], inverse_difference, zero - log_sums));
    kl = kl + kl_term<Ops>(p[k], q[k], ratio);
    const auto is_label = Ops::equal(label, Ops::set(float(k)));
    label_logit = Ops::select(is_label, s[k], label_logit);
    const V ce_part = Ops::fma(r[k], ce_norm, Ops::select(is_label, zero - ce_gradient, zero));
    r[k] = Ops::fma(difference, student_gradient, power == Power::none ? zero : ce_part);
    if (slopes) {
      slope = slope - Ops::select(Ops::equal(difference, zero), zero, difference * s[k]);
      const V pt = Ops::select(Ops::equal(p[k], zero), zero, p[k] * t[k]);
      spread = spread + pt;
      spread_ratio = spread_ratio + Ops::select(Ops::equal(pt, zero), zero, pt * ratio);
    }
  }
  const V ce = Ops::log(sum_at_one) - label_logit;

  Scalar kls[Ops::lanes], ces[Ops::lanes], student_slopes[Ops::lanes], teacher_slopes[Ops::lanes];
  Ops::store(kls, kl);
  Ops::store(ces, ce);
  Ops::store(student_slopes, slope);
  Ops::store(teacher_slopes, spread * kl - spread_ratio);
  for (int i = 0; i < count; ++i) {
    write_row(parameters, constants.row[i], student, first + i, kls[i], ces[i]);
    if (slopes)
      write_temperature_gradients(parameters, constants.row[i], student, first + i, kls[i],
                                  student_slopes[i], teacher_slopes[i]);
  }
  if (gradient_rows != nullptr)
    store_columns<Ops>(r, gradient_rows, parameters.classes, classes, count);
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

template <class Ops, class T, class G>
void row_of_many_classes(const RowParameters& parameters, const T* s, const T* t, G* gradient,
                         int64_t student, int64_t row, Power power,
                         typename Ops::Scalar* scratch) {
  using V = typename Ops::V;
  using Scalar = typename Ops::Scalar;
  const int64_t classes = parameters.classes;
  const auto constants =
      row_constants<Scalar>(parameters, student, row, row_is_dead(parameters, row));
  const V zero = Ops::set(0.f), lowest = Ops::set(Scalar(-INFINITY));

  // Pass 1: maxima.
  V s_max = lowest, t_max = lowest;
  over_classes<Ops>(
      classes,
      [&](int64_t j, int count) {
        s_max = Ops::max(s_max, load_lanes<Ops>(s + j, count, lowest));
        t_max = Ops::max(t_max, load_lanes<Ops>(t + j, count, lowest));
      },
      [] {});
  const Scalar student_max = Ops::largest(s_max), teacher_max = Ops::largest(t_max);
  s_max = Ops::set(student_max);
  t_max = Ops::set(teacher_max);

  // Pass 2: sums of exponentials, kept for pass 3 where they stay in cache.
  const V student_rate = Ops::set(log2e_over(constants.student_temperature));
  const V teacher_rate = Ops::set(log2e_over(constants.teacher_temperature));
  const bool keep = scratch != nullptr;
  Scalar* const kept_student = scratch;
  Scalar* const kept_teacher = scratch + (keep ? padded(classes) : 0);
  V sums[3] = {zero, zero, zero}, part[3] = {zero, zero, zero};
  over_classes<Ops>(
      classes,
      [&](int64_t j, int count) {
        const V shifted = load_lanes<Ops>(s + j, count, lowest) - s_max;
        const V e_student = Ops::exp2(shifted * student_rate);
        const V e_teacher =
            Ops::exp2((load_lanes<Ops>(t + j, count, lowest) - t_max) * teacher_rate);
        part[0] = part[0] + e_student;
        part[1] = part[1] + e_teacher;
        if (power > Power::same)
          part[2] = part[2] + exponential_at_one<Ops>(power, shifted, e_student);
        if (keep) {
          Ops::store(kept_student + j, e_student);
          Ops::store(kept_teacher + j, e_teacher);
        }
      },
      [&] {
        for (int i = 0; i < 3; ++i) {
          sums[i] = sums[i] + part[i];
          part[i] = zero;
        }
      });
  const Scalar student_sum = Ops::sum(sums[0]), teacher_sum = Ops::sum(sums[1]);
  const Scalar sum_at_one = power > Power::same ? Ops::sum(sums[2]) : student_sum;

  // Pass 3: divergence and gradient.
  const V student_norm = Ops::set(1 / student_sum), teacher_norm = Ops::set(1 / teacher_sum);
  const V inverse_student = Ops::set(1 / constants.student_temperature);
  const Scalar inverse_difference =
      1 / constants.teacher_temperature - 1 / constants.student_temperature;
  const bool equal_temperatures = inverse_difference == 0;
  // d = ((t - s) - (max t - max s))/Ts + t' (1/Tt - 1/Ts) - log(Zt/Zs)
  const V max_difference = Ops::set(teacher_max - student_max);
  const V minus_log_sums = zero - Ops::log(Ops::set(teacher_sum / student_sum));
  const V student_gradient = Ops::set(constants.student_gradient);
  const V ce_norm = Ops::set(constants.ce_gradient / sum_at_one);
  const int64_t label = constants.label;
  V kl = zero, kl_part = zero;
  over_classes<Ops>(
      classes,
      [&](int64_t j, int count) {
        const V s_j = load_lanes<Ops>(s + j, count, lowest);
        const V t_j = load_lanes<Ops>(t + j, count, lowest);
        V e_student, e_teacher;
        if (keep) {
          e_student = Ops::load(kept_student + j);
          e_teacher = Ops::load(kept_teacher + j);
        } else {
          e_student = Ops::exp2((s_j - s_max) * student_rate);
          e_teacher = Ops::exp2((t_j - t_max) * teacher_rate);
        }
        const V q = e_student * student_norm, p = e_teacher * teacher_norm;
        const V difference = q - p;
        V ratio = Ops::fma((t_j - s_j) - max_difference, inverse_student, minus_log_sums);
        if (!equal_temperatures)
          ratio = Ops::fma(t_j - t_max, Ops::set(inverse_difference), ratio);
        kl_part = kl_part + kl_term<Ops>(p, q, ratio);
        if (gradient == nullptr) return;
        V g = difference * student_gradient;
        if (power != Power::none) {
          g = Ops::fma(exponential_at_one<Ops>(power, s_j - s_max, e_student), ce_norm, g);
          if (uint64_t(label - j) < uint64_t(Ops::lanes))
            g = Ops::select(Ops::lane_is(int(label - j)), g - Ops::set(constants.ce_gradient), g);
        }
        if (count == Ops::lanes)
          Ops::store(gradient + j, g);
        else
          Ops::store(gradient + j, g, count);
      },
      [&] {
        kl = kl + kl_part;
        kl_part = zero;
      });
  const Scalar divergence = Ops::sum(kl);
  Scalar ce = 0;
  if (label >= 0) {
    const V log_sum = Ops::log(Ops::set(sum_at_one));
    ce = Ops::largest(log_sum) - (Scalar(to_float(s[label])) - student_max);
  }
  write_row(parameters, constants, student, row, divergence, ce);

  if (!wants_temperature_gradient(parameters)) return;
  V slope = zero, spread = zero, spread_ratio = zero;
  over_classes<Ops>(
      classes,
      [&](int64_t j, int count) {
        const V shifted_s = load_lanes<Ops>(s + j, count, lowest) - s_max;
        const V shifted_t = load_lanes<Ops>(t + j, count, lowest) - t_max;
        const V p = Ops::exp2(shifted_t * teacher_rate) * teacher_norm;
        const V difference = Ops::exp2(shifted_s * student_rate) * student_norm - p;
        const V ratio = Ops::fma(shifted_t - shifted_s, inverse_student,
                                 Ops::fma(shifted_t, Ops::set(inverse_difference),
                                          minus_log_sums));
        slope = slope - Ops::select(Ops::equal(difference, zero), zero, difference * shifted_s);
        const V pt = Ops::select(Ops::equal(p, zero), zero, p * shifted_t);
        spread = spread + pt;
        spread_ratio = spread_ratio + Ops::select(Ops::equal(pt, zero), zero, pt * ratio);
      },
      [] {});
  write_temperature_gradients(parameters, constants, student, row, divergence, Ops::sum(slope),
                              Ops::sum(spread) * divergence - Ops::sum(spread_ratio));
}

// ------------------------------------------------------------------------- ranges of rows

template <class Ops, class T, class G>
void run_rows(const RowParameters& parameters, const T* student, int64_t student_stride,
              const T* teacher, int64_t teacher_stride, G* gradient, int64_t k, int64_t first,
              int64_t count, typename Ops::Scalar* kept) {
  const Power power = power_of(parameters);
  const int64_t step = parameters.classes <= few_classes ? Ops::lanes : 1;
  for (int64_t i = 0; i < count; i += step) {
    const T* s = student + i * student_stride;
    const T* t = teacher + i * teacher_stride;
    G* g = gradient == nullptr ? nullptr : gradient + i * parameters.classes;
    if (step == 1 && parameters.classes > few_classes)
      row_of_many_classes<Ops>(parameters, s, t, g, k, first + i, power, kept);
    else
      rows_of_few_classes<Ops>(parameters, s, student_stride, t, teacher_stride, g, k, first + i,
                               int(count - i < step ? count - i : step), power);
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
  const int64_t block = classes <= few_classes ? Ops::lanes : 1;
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
