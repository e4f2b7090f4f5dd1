// Many classes, second of two passes: the gradient from the stored exponentials, and the divergence
// where the sums are not accurate enough. Lanes are classes.
#pragma once

#include "many_classes_sums.h"

namespace kd {
namespace KD_BODY {

// The numbers of one row that the second pass needs.
template <class Scalar>
struct RowFactors {
  Scalar student_max, teacher_max, student_rate, teacher_rate;
  Scalar student_norm, teacher_norm, ce_norm;
  Scalar student_gradient, ce_gradient;
  Scalar log_ratio, inverse_student, inverse_difference;
  int64_t label;

  // Folds into the norms the factor that rescales a chunk's exponentials to the row's maxima.
  KD_INLINE RowFactors of_chunk(const Scalar* maxima, Power power) const {
    RowFactors chunk = *this;
    if (maxima[0] != student_max) {
      chunk.student_norm *= Scalar(::exp2((maxima[0] - student_max) * student_rate));
      if (power != Power::general) chunk.ce_norm *= Scalar(::exp(maxima[0] - student_max));
    }
    if (maxima[1] != teacher_max)
      chunk.teacher_norm *= Scalar(::exp2((maxima[1] - teacher_max) * teacher_rate));
    return chunk;
  }
};

template <class Ops, class T>
KD_INLINE typename Ops::Scalar diverge(const RowFactors<typename Ops::Scalar>& row, const T* s,
                                       const T* t, int64_t classes,
                                       const typename Ops::Scalar* kept_student,
                                       const typename Ops::Scalar* kept_teacher) {
  using V = typename Ops::V;
  const V max_difference = Ops::set(row.teacher_max - row.student_max);
  const V teacher_max = Ops::set(row.teacher_max), log_ratio = Ops::set(-row.log_ratio);
  const V student_norm = Ops::set(row.student_norm), teacher_norm = Ops::set(row.teacher_norm);
  V kl = Ops::set(0.f);
  over_classes<Ops>(classes, [&](int64_t j, int count) {
    const V s_j = load_lanes<Ops>(s + j, count), t_j = load_lanes<Ops>(t + j, count);
    const V q = Ops::load(kept_student + j) * student_norm;
    const V p = Ops::load(kept_teacher + j) * teacher_norm;
    // d = t'/Tt - s'/Ts - log(Zt/Zs)
    //   = ((t - s) - (max t - max s))/Ts + t' (1/Tt - 1/Ts) - log(Zt/Zs)
    const V ratio = Ops::fma((t_j - s_j) - max_difference, Ops::set(row.inverse_student),
                             Ops::fma(t_j - teacher_max, Ops::set(row.inverse_difference),
                                      log_ratio));
    kl = kl + kl_term<Ops>(p, q, ratio);
  });
  return Ops::sum(kl);
}

template <class Ops, class T, class G>
KD_INLINE void write_gradient(const RowFactors<typename Ops::Scalar>& row, const T* s, G* gradient,
                              int64_t classes, int64_t label, Power power,
                              const typename Ops::Scalar* kept_student,
                              const typename Ops::Scalar* kept_teacher, bool past_cache) {
  using V = typename Ops::V;
  const V by_student = Ops::set(row.student_norm * row.student_gradient);
  const V by_teacher = Ops::set(row.teacher_norm * row.student_gradient);
  const V ce_norm = Ops::set(row.ce_norm), student_max = Ops::set(row.student_max);
  const auto gradient_of = [&](int64_t j, int count) {
    const V e_student = Ops::load(kept_student + j);
    const V value = e_student * by_student - Ops::load(kept_teacher + j) * by_teacher;
    if (power == Power::none) return value;
    V shifted = e_student;  // read only where it is needed
    if (power == Power::general)
      shifted = load_lanes<Ops>(s + j, count) - student_max;
    return Ops::fma(exponential_at_one<Ops>(power, shifted, e_student), ce_norm, value);
  };
  over_classes<Ops>(classes, [&](int64_t j, int count) {
    if (count != Ops::lanes)
      Ops::store(gradient + j, gradient_of(j, count), count);
    else if (past_cache)
      Ops::stream(gradient + j, gradient_of(j, count));
    else
      Ops::store(gradient + j, gradient_of(j, count));
  });
  if (uint64_t(label) < uint64_t(classes))
    Ops::store(gradient + label, gradient_of(label, 1) - Ops::set(row.ce_gradient), 1);
}

// slope_s and slope_t of row_math.h, in one more pass, for the rare call that needs them.
template <class Ops, class T>
void temperature_slopes(const RowParameters& parameters,
                        const RowFactors<typename Ops::Scalar>& row, const T* s, const T* t,
                        typename Ops::Scalar kl, int64_t student, int64_t index) {
  using V = typename Ops::V;
  const V zero = Ops::set(0.f);
  const Exponential<Ops> exp_student(Ops::set(row.student_rate));
  const Exponential<Ops> exp_teacher(Ops::set(row.teacher_rate));
  V slope = zero, spread = zero, spread_ratio = zero;
  over_classes<Ops>(parameters.classes, [&](int64_t j, int count) {
    const V shifted_s = load_lanes<Ops>(s + j, count) - Ops::set(row.student_max);
    const V shifted_t = load_lanes<Ops>(t + j, count) - Ops::set(row.teacher_max);
    const V q = exp_student(shifted_s) * Ops::set(row.student_norm);
    const V p = exp_teacher(shifted_t) * Ops::set(row.teacher_norm);
    const V difference = q - p;
    const V ratio = Ops::fma(
        shifted_t - shifted_s, Ops::set(row.inverse_student),
        Ops::fma(shifted_t, Ops::set(row.inverse_difference), Ops::set(-row.log_ratio)));
    slope = slope - Ops::select(Ops::equal(difference, zero), zero, difference * shifted_s);
    const V pt = Ops::select(Ops::equal(p, zero), zero, p * shifted_t);
    spread = spread + pt;
    spread_ratio = spread_ratio + Ops::select(Ops::equal(pt, zero), zero, pt * ratio);
  });
  write_lane_slopes(parameters, student, index, kl, Ops::sum(slope), Ops::sum(spread),
                    Ops::sum(spread_ratio));
}

// The same numbers of several rows, one row per lane, stored so that single rows can be read.
template <class Ops>
struct FactorsOfRows {
  using Scalar = typename Ops::Scalar;
  alignas(64) Scalar values[12][Ops::lanes];

  KD_INLINE FactorsOfRows(const LaneConstants<Ops>& constants, const LaneSums<Ops>& sums,
                          const LaneResults<Ops>& results) {
    const typename Ops::V members[] = {sums.student_max,        sums.teacher_max,
                                       constants.student_rate,  constants.teacher_rate,
                                       results.student_norm,    results.teacher_norm,
                                       results.ce_norm,         constants.student_gradient,
                                       constants.ce_gradient,   results.log_ratio,
                                       constants.inverse_student, constants.inverse_difference};
    for (int i = 0; i < 12; ++i) Ops::store(values[i], members[i]);
  }
  KD_INLINE RowFactors<Scalar> row(int i, int64_t label) const {
    const auto& v = values;
    return {v[0][i], v[1][i], v[2][i], v[3][i],  v[4][i],  v[5][i], v[6][i],
            v[7][i], v[8][i], v[9][i], v[10][i], v[11][i], label};
  }
};

template <class Ops>
KD_INLINE typename Ops::Scalar first_lane(typename Ops::V x) {
  typename Ops::Scalar first;
  Ops::store(&first, x, 1);
  return first;
}

// A gradient larger than the caches bypasses them: a line that is written completely need not be
// read first. Short rows would break too many lines at their ends and labels.
template <class Ops, class G>
KD_INLINE bool gradient_leaves_cache(const RowParameters& parameters, const G* row) {
  constexpr int64_t smallest = int64_t(8) << 20, vector = Ops::lanes * sizeof(G);
  const int64_t numbers = parameters.students * parameters.rows * parameters.classes;
  return rows_are_direct(parameters) && numbers * int64_t(sizeof(G)) >= smallest &&
         reinterpret_cast<uintptr_t>(row) % vector == 0;
}

// A few short rows at once. The sum across lanes of one row overlaps with the next row, and the
// work done once per row is one vector operation for all of them.
template <class Ops, class T, class G>
void rows_of_many_classes(const RowParameters& parameters, const T* student_rows,
                          int64_t student_stride, const T* teacher_rows, int64_t teacher_stride,
                          G* gradient_rows, int64_t student, int64_t first, int count, Power power,
                          const RowConstants<typename Ops::Scalar>* shared,
                          typename Ops::Scalar* memory, bool more) {
  using Scalar = typename Ops::Scalar;
  const int64_t classes = parameters.classes;
  const auto s = [&](int i) { return student_rows + i * student_stride; };
  const auto t = [&](int i) { return teacher_rows + i * teacher_stride; };
  const LaneConstants<Ops> constants(parameters, shared, student, first, count);
  const bool is_long = classes > most_classes_of_short_rows;
  // The next rows in memory are prefetched while these are computed.
  more &= student_stride == classes && teacher_stride == classes;
  LaneSums<Ops> sums;
  if (is_long) {
    const auto row = read_long_row<Ops>(first_lane<Ops>(constants.student_rate),
                                        first_lane<Ops>(constants.teacher_rate), s(0), t(0),
                                        classes, power, Kept<Scalar>(memory, classes, 0), more);
    const auto set = [](double x) { return Ops::set(Scalar(x)); };
    sums = {set(row.origin.student_max), set(row.origin.teacher_max), set(row.student),
            set(row.teacher),            set(row.at_one),             set(row.difference)};
  } else {
    sums = read_short_rows<Ops>(constants, s, t, classes, count, power, memory, more);
  }
  const bool past_cache = is_long && gradient_leaves_cache<Ops>(parameters, gradient_rows);
  const LaneResults<Ops> results(sums, constants);
  const FactorsOfRows<Ops> factors(constants, sums, results);
  Scalar kls[Ops::lanes];
  Ops::store(kls, results.kl);
  for (int i = 0; i < count; ++i) {
    const auto row = factors.row(i, constants.labels[i]);
    const bool plain = plain_form_serves(kls[i]);
    if (!plain) kls[i] = 0;
    const Kept<Scalar> kept(memory, classes, i);
    const int64_t chunk = is_long ? chunk_classes : classes;
    for (int64_t begin = 0, c = 0; begin < classes; begin += chunk, ++c) {
      const int64_t width = classes - begin < chunk ? classes - begin : chunk;
      const auto part = is_long ? row.of_chunk(kept.maxima + 2 * c, power) : row;
      if (!plain)
        kls[i] += diverge<Ops>(part, s(i) + begin, t(i) + begin, width, kept.student + begin,
                               kept.teacher + begin);
      if (gradient_rows != nullptr)
        write_gradient<Ops>(part, s(i) + begin, gradient_rows + i * classes + begin, width,
                            row.label < 0 ? -1 : row.label - begin, power, kept.student + begin,
                            kept.teacher + begin, past_cache);
    }
    if (wants_temperature_gradient(parameters))
      temperature_slopes<Ops>(parameters, row, s(i), t(i), kls[i], student, first + i);
  }
  write_lanes<Ops>(parameters, constants, sums, Ops::load(kls), student_rows, student_stride,
                   student, first, count);
}

}  // namespace KD_BODY
}  // namespace kd
