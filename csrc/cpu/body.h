// A body: the rows compiled for one instruction set. What the driver and the bodies agree on.
#pragma once

#include "../row_math.h"

namespace kd {

// Computes rows [begin, end) of every student. `scratch` has scratch_bytes(...) bytes, aligned to 64.
using Body = void (*)(const RowParameters& parameters, int64_t begin, int64_t end, void* scratch);

void run_plain(const RowParameters&, int64_t begin, int64_t end, void* scratch);
void run_plain_double(const RowParameters&, int64_t begin, int64_t end, void* scratch);
void run_avx2(const RowParameters&, int64_t begin, int64_t end, void* scratch);
void run_avx512(const RowParameters&, int64_t begin, int64_t end, void* scratch);

namespace KD_BODY {

// Room for whole vectors and an aligned neighbour.
KD_INLINE int64_t padded(int64_t count) { return (count + 31) / 16 * 16; }

// Up to here lanes are rows, if there are rows enough to fill them (`lanes_are_rows`).
constexpr int few_classes = 128;
constexpr int fewest_classes = 16;

KD_INLINE bool lanes_are_rows(const RowParameters& parameters) {
  return parameters.classes <= fewest_classes ||
         (parameters.classes <= few_classes && parameters.rows >= 16);
}

// How many rows of many classes a body takes at once.
constexpr int most_rows_at_once = 4;
KD_INLINE int rows_at_once(int64_t classes) { return classes <= 1024 ? most_rows_at_once : 1; }

struct ScratchLayout {
  bool keeps;      // whether exponentials are kept between two passes
  int64_t kept;    // numbers, of the compute type
  int64_t staged;  // numbers; 0: rows are read where they lie
};

// Above this the kept exponentials would leave the second level of cache (1 MiB), and computing
// them again is cheaper.
constexpr int64_t most_kept_classes = 40960;

KD_INLINE ScratchLayout scratch_layout(const RowParameters& parameters, int lanes) {
  const int64_t classes = parameters.classes;
  const bool few = lanes_are_rows(parameters);
  ScratchLayout layout;
  layout.keeps = !few && classes <= most_kept_classes;
  layout.kept = layout.keeps ? rows_at_once(classes) * 2 * padded(classes) : 0;
  const bool direct = parameters.class_mask == nullptr &&
                      parameters.student.type == parameters.teacher.type &&
                      parameters.student.class_stride == 1 && parameters.teacher.class_stride == 1;
  layout.staged = direct ? 0 : 3 * padded((few ? lanes : rows_at_once(classes)) * classes);
  return layout;
}

KD_INLINE bool row_is_dead(const RowParameters& parameters, int64_t row) {
  if (parameters.class_mask == nullptr) return false;
  int64_t kept = 0;
  for (int64_t k = 0; kept < 2 && k < parameters.classes; ++k) kept += class_kept(parameters, row, k);
  return kept < 2;
}

KD_INLINE bool wants_temperature_gradient(const RowParameters& parameters) {
  return parameters.student_temperature_gradient != nullptr ||
         parameters.teacher_temperature_gradient != nullptr;
}

}  // namespace KD_BODY
}  // namespace kd
