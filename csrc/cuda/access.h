// The two ways to read a row's logits.
//
// `ChunkAccess` reads 16 bytes at a time and holds 32 classes in a thread's registers. It needs
// both logits of one type, contiguous classes, no mask, and the same alignment of all rows. Ragged
// rows do not begin or end at a multiple of 16 bytes.
// `NumberAccess` reads one number at a time, of any type, stride and mask, and holds 8 classes per
// thread.
#pragma once

#include "arithmetic.h"

namespace kd {
namespace KD_BODY {

template <class T, bool ragged>
struct ChunkAccess {
  using Number = T;
  using Scalar = float;
  using Held = Chunk<T>;
  static constexpr int width = Chunk<T>::size;
  static constexpr int chunks = 32 / width;
  static constexpr bool masks = false;
  static constexpr bool tiles = ragged;
  static constexpr bool packed = sizeof(T) == 2;  // two logits share a register
  // Whether a team copies its next row ahead. In float32 the bandwidth suffices without it.
  static constexpr bool stages = packed;

  const T* student;
  const T* teacher;
  T* gradient;  // unused if no gradient is wanted
  const T* student_begin;  // of the whole tensor
  const T* teacher_begin;
  int64_t classes;
  int shift;

  KD_INLINE ChunkAccess(const RowParameters& p, int64_t k, int64_t row)
      : student(optimisation_barrier(static_cast<const T*>(p.student.data) +
                                     k * p.student.student_stride + row * p.student.row_stride)),
        teacher(optimisation_barrier(static_cast<const T*>(p.teacher.data) +
                                     row * p.teacher.row_stride)),
        gradient(optimisation_barrier(static_cast<T*>(p.gradient) +
                                      (k * p.rows + row) * p.classes)),
        student_begin(static_cast<const T*>(p.student.data)),
        teacher_begin(static_cast<const T*>(p.teacher.data)),
        classes(p.classes),
        shift(ragged ? alignment_shift(student) : 0) {}

  // A chunk's number is an int, or an int64_t if rows may be long.
  template <class Index>
  KD_INLINE Index first_class(Index chunk) const {
    return ragged ? chunk * width - shift : chunk * width;
  }
  // `tile`: the row is in shared memory.
  template <bool tile = false, class Index>
  KD_INLINE Held read_student(Index chunk) const {
    return read_chunk<ragged, tile>(student, first_class(chunk), Index(classes));
  }
  template <bool tile = false, class Index>
  KD_INLINE Held read_teacher(Index chunk) const {
    return read_chunk<ragged, tile>(teacher, first_class(chunk), Index(classes));
  }
  // Begins to copy a chunk of this row into a place in shared memory.
  template <class Team>
  KD_INLINE void stage_student(const Team& team, int chunk, Held* to) const {
    stage_chunk<ragged>(team, student, student_begin, first_class(chunk), int(classes), to);
  }
  template <class Team>
  KD_INLINE void stage_teacher(const Team& team, int chunk, Held* to) const {
    stage_chunk<ragged>(team, teacher, teacher_begin, first_class(chunk), int(classes), to);
  }
  // The chunk that was copied there.
  KD_INLINE Held staged_student(int chunk, const Held* from) const {
    return staged_chunk<ragged>(student, student_begin, first_class(chunk), int(classes), from);
  }
  KD_INLINE Held staged_teacher(int chunk, const Held* from) const {
    return staged_chunk<ragged>(teacher, teacher_begin, first_class(chunk), int(classes), from);
  }
  KD_INLINE Scalar student_number(int64_t k) const { return widen(read(student + k)); }
  template <bool tile = false, class Index>
  KD_INLINE void write_gradient(Index chunk, const Scalar (&values)[width]) const {
    Held rounded;
    rounded.fill(values);
    write_chunk<ragged, tile>(gradient, first_class(chunk), Index(classes), rounded);
  }
};

template <class Number_>
struct NumberAccess {
  using Number = Number_;
  using Scalar = Number;
  struct Held {
    Scalar number;
    KD_INLINE Scalar get(int) const { return number; }
    KD_INLINE void set(int, Scalar x) { number = x; }
  };
  static constexpr int width = 1;
  static constexpr int chunks = 8;
  static constexpr bool masks = true;
  static constexpr bool tiles = false;
  static constexpr bool stages = false;
  static constexpr bool packed = false;

  const RowParameters& parameters;
  int64_t student, teacher, gradient;  // index of the row's first number
  int64_t row;

  KD_INLINE NumberAccess(const RowParameters& p, int64_t k, int64_t row)
      : parameters(p),
        student(k * p.student.student_stride + row * p.student.row_stride),
        teacher(row * p.teacher.row_stride),
        gradient((k * p.rows + row) * p.classes),
        row(row) {}

  KD_INLINE int64_t first_class(int64_t chunk) const { return chunk; }
  KD_INLINE bool kept(int64_t k) const {
    return k < parameters.classes && class_kept(parameters, row, k);
  }
  KD_INLINE Scalar number(const Logits& logits, int64_t first, int64_t k) const {
    if (!kept(k)) return -INFINITY;
    return read_any<Scalar>(logits.data, logits.type, first + k * logits.class_stride);
  }
  template <bool tile = false>
  KD_INLINE Held read_student(int64_t k) const { return {number(parameters.student, student, k)}; }
  template <bool tile = false>
  KD_INLINE Held read_teacher(int64_t k) const { return {number(parameters.teacher, teacher, k)}; }
  KD_INLINE Scalar student_number(int64_t k) const {
    return number(parameters.student, student, k);
  }
  template <bool tile = false>
  KD_INLINE void write_gradient(int64_t k, const Scalar (&values)[1]) const {
    if (k < parameters.classes)
      write_any(parameters.gradient, parameters.student.type, gradient + k, values[0]);
  }
};

}  // namespace KD_BODY
}  // namespace kd
