// The interface between the driver and a body, the rows compiled for one instruction set.
#pragma once

#include "../row_math.h"

namespace kd {

// Computes rows [begin, end) of every student. `scratch` has scratch_bytes(...) bytes, aligned to
// 64.
using Body = void (*)(const RowParameters& parameters, int64_t begin, int64_t end, void* scratch);

void run_plain(const RowParameters&, int64_t begin, int64_t end, void* scratch);
void run_plain_double(const RowParameters&, int64_t begin, int64_t end, void* scratch);
void run_avx2(const RowParameters&, int64_t begin, int64_t end, void* scratch);
void run_avx512(const RowParameters&, int64_t begin, int64_t end, void* scratch);

namespace KD_BODY {

// Room for whole vectors and an aligned neighbour.
KD_INLINE int64_t padded(int64_t count) { return (count + 31) / 16 * 16; }

// Lanes are rows up to few_classes, if there are enough rows to fill the lanes. Above some_classes
// this pays only while the rows fit the L2 cache. Beyond that, reading sixteen rows side by side is
// slower than leaving lanes idle at the end of a row.
constexpr int few_classes = 128;
constexpr int some_classes = 32;
constexpr int fewest_classes = 16;
constexpr int64_t cached_logits = 32768;

KD_INLINE bool lanes_are_rows(const RowParameters& parameters) {
  const int64_t classes = parameters.classes;
  if (classes <= fewest_classes) return true;
  const bool cached = parameters.students * parameters.rows * classes <= cached_logits;
  return parameters.rows >= 16 && classes <= (cached ? few_classes : some_classes);
}

// Rows of up to this many classes are processed a few at once, longer ones in chunks.
constexpr int64_t most_classes_of_short_rows = 2048;
constexpr int64_t chunk_classes = 2048;

KD_INLINE int rows_at_once(int64_t classes, int lanes) {
  const int64_t most = classes <= 256 ? lanes : classes <= 1024 ? 8 : 1;
  return int(most < lanes ? most : lanes);
}

// Kept per row of many classes: two exponentials per class, two maxima per chunk.
KD_INLINE int64_t kept_numbers(int64_t classes) {
  return 2 * padded(classes) + padded(2 * (classes / chunk_classes + 1));
}

// Whether rows are read in place: both logits of one type, classes contiguous, no mask.
KD_INLINE bool rows_are_direct(const RowParameters& parameters) {
  return parameters.class_mask == nullptr && parameters.student.type == parameters.teacher.type &&
         parameters.student.class_stride == 1 && parameters.teacher.class_stride == 1;
}

struct ScratchLayout {
  int64_t kept;    // numbers, of the compute type
  int64_t staged;  // numbers; 0: rows are read in place
};

KD_INLINE ScratchLayout scratch_layout(const RowParameters& parameters, int lanes) {
  const int64_t classes = parameters.classes;
  const bool few = lanes_are_rows(parameters);
  const int rows = few ? lanes : rows_at_once(classes, lanes);
  return {few ? 0 : rows * kept_numbers(classes),
          rows_are_direct(parameters) ? 0 : 3 * padded(rows * classes)};
}

KD_INLINE bool row_is_dead(const RowParameters& parameters, int64_t row) {
  if (parameters.class_mask == nullptr) return false;
  int64_t kept = 0;
  for (int64_t k = 0; kept < 2 && k < parameters.classes; ++k) kept += class_kept(parameters, row, k);
  return kept < 2;
}

}  // namespace KD_BODY
}  // namespace kd
