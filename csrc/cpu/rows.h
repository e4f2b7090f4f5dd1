// The loss of a range of rows on one thread, written once over `Ops`, a vector of any width. Rows
// are processed in groups, read in place or copied to scratch first.
#pragma once

#include "few_classes.h"
#include "many_classes.h"

namespace kd {
namespace KD_BODY {

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
  const int64_t step = few ? Ops::lanes : rows_at_once(parameters.classes, Ops::lanes);
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

// Both logits have type T and are read in place.
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
  Ops::end_streams();
}

template <class Scalar, class T>
void stage_row(const RowParameters& parameters, const T* from, int64_t class_stride, int64_t row,
               Scalar* to) {
  for (int64_t c = 0; c < parameters.classes; ++c) to[c] = Scalar(to_float(from[c * class_stride]));
  if (parameters.class_mask == nullptr) return;
  // A row with fewer than two classes is computed with all logits 0, and its result is discarded.
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

// Mixed types, strided classes or a class mask: rows are first copied to scratch in the compute
// type.
template <class Ops>
void run_staged(const RowParameters& parameters, int64_t begin, int64_t end,
                typename Ops::Scalar* kept, typename Ops::Scalar* staging) {
  const int64_t classes = parameters.classes;
  const int64_t block = lanes_are_rows(parameters) ? Ops::lanes : rows_at_once(classes, Ops::lanes);
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
  auto* const kept = static_cast<Scalar*>(scratch);
  auto* const staging = kept + layout.kept;
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
