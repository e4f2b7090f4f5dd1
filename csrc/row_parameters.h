// The arguments of one call of the loss: plain pointers, sizes and strides, free of torch. CPU and
// CUDA take the same struct by value.
//
// K students of B rows and C classes. Strides count elements, not bytes. "Compute type" is double
// if either of the logits is, else float.
#pragma once

#include <cstdint>

namespace kd {

enum class Type : int32_t { float32, bfloat16, float16, float64 };

struct Logits {
  const void* data;
  Type type;
  int64_t student_stride;  // 0 for the teacher, which all students share
  int64_t row_stride;
  int64_t class_stride;
};

// The allowed temperatures, both ends included, as in kdplatform/settings/schema.py.
constexpr double lowest_temperature = 1e-6, highest_temperature = 1e6;
constexpr const char* allowed_temperatures = "1e-6 to 1e6";

// The comparison uses the number's own type: as a float the lowest temperature is slightly lower.
template <class Scalar>
constexpr bool is_temperature(Scalar x) {
  return x >= Scalar(lowest_temperature) && x <= Scalar(highest_temperature);
}

// One number for all rows, or one per row.
struct RowValue {
  const void* data;  // [K, B] of the compute type, or nullptr: `value` for all
  double value;
  int64_t student_stride;
  int64_t row_stride;
};

struct RowParameters {
  int64_t students;  // K
  int64_t rows;      // B
  int64_t classes;   // C, 2 or more
  Type compute_type;

  Logits student;  // [K, B, C]
  Logits teacher;  // [B, C]

  const int64_t* labels;  // [B], or nullptr: no cross entropy
  int64_t label_stride;
  int64_t ignore_index;

  const bool* class_mask;  // [B, C], true for a class that is kept, or nullptr: all are
  int64_t mask_row_stride;
  int64_t mask_class_stride;

  RowValue student_temperature;
  RowValue teacher_temperature;
  RowValue kl_weight;
  RowValue ce_weight;
  bool scale_by_t2;  // multiply the KL term by Ts * Tt

  // Outputs, contiguous. loss, kl and ce are of the compute type, per row and not reduced.
  void* loss;  // [K, B]
  void* kl;    // [K, B], without its weight
  void* ce;    // [K, B], without its weight

  double gradient_factor;  // 1/B for a mean, else 1; folded into the gradient
  void* gradient;          // [K, B, C] of the student's type, or nullptr: not wanted
  // float16 has a small exponent range. A row's gradient is stored times a power of two that fills
  // it, and the inverse is stored here. nullptr for every other type.
  float* gradient_scale;  // [K, B]

  // Derivatives of the row's loss, of the compute type and without gradient_factor, or nullptr.
  void* student_temperature_gradient;  // [K, B]
  void* teacher_temperature_gradient;  // [K, B]
};

}  // namespace kd
