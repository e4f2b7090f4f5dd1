// Many classes, first of two passes: exponentials, stored for the second, and their sums, relative
// to the largest logit so far. Lanes are classes. A row is read once, in chunks that fit the L1
// cache, so that memory stays busy during the exponentials.
#pragma once

#include "lanes.h"

namespace kd {
namespace KD_BODY {

// This many vectors are summed before they join the total: two short sums round less than one long.
constexpr int64_t sum_block = 16;

// Calls body(j, n) for each whole vector of classes, then once for the remainder, and flush() after
// each block of vectors.
template <class Ops, class Body, class Flush>
KD_INLINE void over_classes(int64_t classes, Body body, Flush flush) {
  constexpr int n = Ops::lanes;
  const int64_t whole = classes / n * n;
  for (int64_t begin = 0; begin < whole; begin += sum_block * n) {
    const int64_t end = begin + sum_block * n < whole ? begin + sum_block * n : whole;
    for (int64_t j = begin; j < end; j += n) body(j, n);
    flush();
  }
  if (whole == classes) return;
  body(whole, int(classes - whole));
  flush();
}

template <class Ops, class Body>
KD_INLINE void over_classes(int64_t classes, Body body) {
  constexpr int n = Ops::lanes;
  const int64_t whole = classes / n * n;
  for (int64_t j = 0; j < whole; j += n) body(j, n);
  if (whole < classes) body(whole, int(classes - whole));
}

// All lanes, or the first `count` with the others absent.
template <class Ops, class T>
KD_INLINE typename Ops::V load_lanes(const T* p, int count) {
  return count == Ops::lanes ? Ops::load(p) : Ops::load(p, count, absent<Ops>());
}

// Kept of one row from the first pass to the second.
template <class Scalar>
struct Kept {
  Scalar* student;  // [C] exponentials, relative to the maxima of their chunk
  Scalar* teacher;  // [C]
  Scalar* maxima;   // [chunks, 2]

  KD_INLINE Kept(Scalar* memory, int64_t classes, int row) {
    student = memory + row * kept_numbers(classes);
    teacher = student + padded(classes);
    maxima = teacher + padded(classes);
  }
};

// The largest logits of some classes, by lane.
template <class Ops>
struct Maxima {
  typename Ops::V student = absent<Ops>(), teacher = absent<Ops>();

  template <class T>
  KD_INLINE Maxima(const T* s, const T* t, int64_t classes) {
    over_classes<Ops>(classes, [&](int64_t j, int count) {
      student = Ops::max(student, load_lanes<Ops>(s + j, count));
      teacher = Ops::max(teacher, load_lanes<Ops>(t + j, count));
    });
  }
};

// The maxima that a row's exponentials are relative to.
template <class Scalar>
struct Origin {
  Scalar student_max, teacher_max, student_rate, teacher_rate;
};

// Sums over some classes by lane, as in LaneSums. The exponentials are stored.
template <class Ops>
struct Exponentials {
  using V = typename Ops::V;
  using Scalar = typename Ops::Scalar;
  V student = Ops::set(0.f), teacher = student, at_one = student, difference = student;

  // Prefetches memory `ahead` classes further; 0: no prefetch.
  template <class T>
  KD_INLINE Exponentials(const Origin<Scalar>& origin, const T* s, const T* t, int64_t classes,
                         Power power, Scalar* kept_student, Scalar* kept_teacher, int64_t ahead) {
    const V student_max = Ops::set(origin.student_max), teacher_max = Ops::set(origin.teacher_max);
    const Exponential<Ops> exp_student(Ops::set(origin.student_rate));
    const Exponential<Ops> exp_teacher(Ops::set(origin.teacher_rate));
    V part[] = {student, student, student, student};
    const auto add = [&](int64_t j, int count) {
      if (ahead != 0) {
        __builtin_prefetch(s + j + ahead, 0, 3);
        __builtin_prefetch(t + j + ahead, 0, 3);
      }
      const V s_j = load_lanes<Ops>(s + j, count) - student_max;
      const V t_j = load_lanes<Ops>(t + j, count) - teacher_max;
      const V e_student = exp_student(s_j), e_teacher = exp_teacher(t_j);
      part[0] = part[0] + e_student;
      part[1] = part[1] + e_teacher;
      if (power > Power::same)
        part[2] = part[2] + exponential_at_one<Ops>(power, s_j, e_student);
      part[3] = Ops::fma(e_teacher, t_j - s_j, part[3]);
      Ops::store(kept_student + j, e_student);
      Ops::store(kept_teacher + j, e_teacher);
    };
    over_classes<Ops>(classes, add, [&] {
      V* const totals[] = {&student, &teacher, &at_one, &difference};
      for (int i = 0; i < 4; ++i) {
        *totals[i] = *totals[i] + part[i];
        part[i] = Ops::set(0.f);
      }
    });
    if (power <= Power::same) at_one = student;
  }
};

// Maxima and sums of a long row so far. In double: chunks are many, and terms of `difference`
// cancel.
template <class Scalar>
struct LongRow {
  Origin<Scalar> origin;
  double student = 0, teacher = 0, at_one = 0, difference = 0;  // as in LaneSums

  // Rescales the sums to larger maxima.
  void raise(Scalar student_max, Scalar teacher_max) {
    if (student_max > origin.student_max) {
      const double by = double(origin.student_max) - student_max;
      difference -= teacher * by;
      student *= ::exp2(by * origin.student_rate);
      at_one *= ::exp(by);
      origin.student_max = student_max;
    }
    if (teacher_max > origin.teacher_max) {
      const double by = double(origin.teacher_max) - teacher_max;
      const double factor = ::exp2(by * origin.teacher_rate);
      difference = factor * (difference + teacher * by);
      teacher *= factor;
      origin.teacher_max = teacher_max;
    }
  }
};

template <class Ops, class T>
LongRow<typename Ops::Scalar> read_long_row(typename Ops::Scalar student_rate,
                                            typename Ops::Scalar teacher_rate, const T* s,
                                            const T* t, int64_t classes, Power power,
                                            Kept<typename Ops::Scalar> kept, bool more) {
  using Scalar = typename Ops::Scalar;
  constexpr Scalar lowest = std::numeric_limits<Scalar>::lowest();
  LongRow<Scalar> row{{lowest, lowest, student_rate, teacher_rate}};
  for (int64_t begin = 0; begin < classes; begin += chunk_classes) {
    const int64_t rest = classes - begin, count = rest < chunk_classes ? rest : chunk_classes;
    const Maxima<Ops> maxima(s + begin, t + begin, count);
    row.raise(Ops::largest(maxima.student), Ops::largest(maxima.teacher));
    *kept.maxima++ = row.origin.student_max;
    *kept.maxima++ = row.origin.teacher_max;
    const Exponentials<Ops> sums(row.origin, s + begin, t + begin, count, power,
                                 kept.student + begin, kept.teacher + begin,
                                 more || rest >= 2 * chunk_classes ? chunk_classes : 0);
    row.student += Ops::sum(sums.student);
    row.teacher += Ops::sum(sums.teacher);
    row.at_one += Ops::sum(sums.at_one);
    row.difference += Ops::sum(sums.difference);
  }
  return row;
}

// Sums of a few short rows. All maxima are computed before the exponentials, so that the processor
// does not stall on each maximum.
template <class Ops, class Student, class Teacher>
KD_INLINE LaneSums<Ops> read_short_rows(const LaneConstants<Ops>& constants, Student s, Teacher t,
                                        int64_t classes, int count, Power power,
                                        typename Ops::Scalar* memory, bool more) {
  using Scalar = typename Ops::Scalar;
  alignas(64) Scalar student_rate[Ops::lanes], teacher_rate[Ops::lanes];
  Ops::store(student_rate, constants.student_rate);
  Ops::store(teacher_rate, constants.teacher_rate);
  alignas(64) Scalar sums[6][Ops::lanes] = {};
  for (int i = 0; i < count; ++i) {
    const Maxima<Ops> maxima(s(i), t(i), classes);
    sums[0][i] = Ops::largest(maxima.student);
    sums[1][i] = Ops::largest(maxima.teacher);
  }
  for (int i = 0; i < count; ++i) {
    const Kept<Scalar> kept(memory, classes, i);
    const Exponentials<Ops> row({sums[0][i], sums[1][i], student_rate[i], teacher_rate[i]}, s(i),
                                t(i), classes, power, kept.student, kept.teacher,
                                more ? count * classes : 0);
    sums[2][i] = Ops::sum(row.student);
    sums[3][i] = Ops::sum(row.teacher);
    sums[4][i] = Ops::sum(row.at_one);
    sums[5][i] = Ops::sum(row.difference);
  }
  return {Ops::load(sums[0]), Ops::load(sums[1]), Ops::load(sums[2]),
          Ops::load(sums[3]), Ops::load(sums[4]), Ops::load(sums[5])};
}

}  // namespace KD_BODY
}  // namespace kd
