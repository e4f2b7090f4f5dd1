// One call of the loss in torch's types, its results, and the checks of tensors and of the values
// inside them.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <optional>
#include <vector>

#include "../row_parameters.h"

namespace kd::binding {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// A tensor whose memory holds its final numbers: no subclass, no wrapper of a tracer or transform,
// a dense layout, and no pending operation such as a lazy negation.
inline bool is_plain(const Tensor& tensor) {
  constexpr c10::DispatchKeySet plain = c10::DispatchKeySet(
      {c10::DispatchKey::CPU, c10::DispatchKey::CUDA, c10::DispatchKey::AutogradCPU,
       c10::DispatchKey::AutogradCUDA, c10::DispatchKey::ADInplaceOrView,
       c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA});
  return (tensor.key_set().raw_repr() & ~plain.raw_repr()) == 0;
}

enum Reduction : int64_t { none = 0, mean = 1, sum = 2 };

// A row value as the operators take it: a tensor [B] or [K, B], or a number.
struct RowValue {
  OptionalTensor tensor;
  double number;
  bool has_gradient() const { return tensor.has_value() && tensor->requires_grad(); }
};

// The arguments of one call from kdplatform/kernels/loss.py. All is checked except the values
// inside tensors.
struct Call {
  Tensor student_logits, teacher_logits;
  OptionalTensor labels, class_mask;
  RowValue student_temperature, teacher_temperature, kl_weight, ce_weight;
  bool scale_by_t2;
  int64_t ignore_index;
  int64_t reduction;
  bool wants_gradient, wants_temperature_gradient;

  bool many() const { return student_logits.dim() == 3; }
  // Sizes may be symbolic here, so they are read through these.
  c10::SymInt rows() const { return student_logits.sym_size(-2); }
  at::ScalarType compute_type() const {
    return student_logits.scalar_type() == at::kDouble || teacher_logits.scalar_type() == at::kDouble
               ? at::kDouble
               : at::kFloat;
  }
  std::vector<c10::SymInt> row_shape() const {
    if (many()) return {student_logits.sym_size(0), student_logits.sym_size(1)};
    return {student_logits.sym_size(0)};
  }
  std::vector<c10::SymInt> loss_shape() const {
    if (reduction == none) return row_shape();
    if (many()) return {student_logits.sym_size(0)};
    return {};
  }
};

// An undefined tensor stands for an output that was not requested.
struct Result {
  Tensor loss, kl, ce, gradient, gradient_scale, by_student_temperature, by_teacher_temperature;
};

// On the CPU this bypasses the dispatcher, which costs as much as the kernel of a small batch.
// `real` is false on the meta device, whose sizes may be symbolic.
template <bool real>
Tensor empty(c10::SymIntArrayRef shape, const at::TensorOptions& options) {
  if (real && options.device().is_cpu())
    return at::detail::empty_cpu(C10_AS_INTARRAYREF_SLOW(shape), options);
  return at::empty_symint(shape, options);
}

template <bool real>
Result allocate(const Call& call) {
  const auto options = call.student_logits.options().dtype(call.compute_type());
  const auto shape = call.loss_shape();
  Result result;
  result.loss = empty<real>(shape, options);
  result.kl = empty<real>(shape, options);
  result.ce = empty<real>(shape, options);
  if (call.wants_gradient) {
    result.gradient = empty<real>(call.student_logits.sym_sizes(), call.student_logits.options());
    if (call.student_logits.scalar_type() == at::kHalf)
      result.gradient_scale = empty<real>(call.row_shape(), options.dtype(at::kFloat));
  }
  if (call.wants_temperature_gradient) {
    result.by_student_temperature = empty<real>(call.row_shape(), options);
    result.by_teacher_temperature = empty<real>(call.row_shape(), options);
  }
  return result;
}

// Shapes, types and devices. Python has checked them, but the operator can be called directly.
inline void check_tensor(const char* name, const OptionalTensor& tensor, at::ScalarType type,
                         at::IntArrayRef shape, at::Device device) {
  if (!tensor.has_value()) return;
  TORCH_CHECK_TYPE(tensor->scalar_type() == type, name, ": ", tensor->scalar_type(),
                   "; allowed: ", type);
  TORCH_CHECK_VALUE(tensor->sizes() == shape, name, ": shape ", tensor->sizes(), "; allowed: ",
                    shape);
  TORCH_CHECK_VALUE(tensor->device() == device, name, ": on ", tensor->device(), "; allowed: ",
                    device, ", where student_logits is");
}

inline void check_tensors(const Call& call) {
  const Tensor& student = call.student_logits;
  const int64_t dims = student.dim();
  TORCH_CHECK_VALUE((dims == 2 || dims == 3) && student.size(-1) >= 2, "student_logits: shape ",
                    student.sizes(), "; allowed: [B, C] or [K, B, C], C of 2 or more");
  const auto shape = student.sizes(), rows = shape.slice(0, dims - 1);
  const auto device = student.device();
  check_tensor("teacher_logits", call.teacher_logits, call.teacher_logits.scalar_type(),
               shape.slice(dims - 2), device);
  check_tensor("labels", call.labels, at::kLong, shape.slice(dims - 2, 1), device);
  if (call.class_mask.has_value())
    check_tensor("class_mask", call.class_mask, at::kBool,
                 shape.slice(call.class_mask->dim() == 1 ? dims - 1 : dims - 2), device);
  const auto type = call.compute_type();
  check_tensor("student_temperature", call.student_temperature.tensor, type, rows, device);
  check_tensor("teacher_temperature", call.teacher_temperature.tensor, type, rows, device);
  check_tensor("kl_weight", call.kl_weight.tensor, type, rows, device);
  check_tensor("ce_weight", call.ce_weight.tensor, type, rows, device);
}

// Makes row values plain memory of the compute type, as the kernels read them.
template <class T>
void check_row_value(const char* name, const Tensor& tensor, bool of_temperature, int64_t rows) {
  const T* const data = tensor.const_data_ptr<T>();
  const bool many = tensor.dim() == 2;
  const int64_t students = many ? tensor.size(0) : 1;
  for (int64_t k = 0; k < students; ++k) {
    for (int64_t i = 0; i < rows; ++i) {
      const T value = data[(many ? k * tensor.stride(0) : 0) + i * tensor.stride(-1)];
      const bool good = of_temperature ? kd::is_temperature(value) : value >= 0 && value < INFINITY;
      TORCH_CHECK_VALUE(good, name, ": ", double(value), " in row ", i, "; allowed: ",
                        of_temperature ? kd::allowed_temperatures : "finite, 0 or greater");
    }
  }
}

inline void check_row_value(const char* name, const RowValue& value, bool of_temperature,
                            int64_t rows) {
  if (!value.tensor.has_value()) return;
  if (value.tensor->scalar_type() == at::kDouble)
    check_row_value<double>(name, *value.tensor, of_temperature, rows);
  else
    check_row_value<float>(name, *value.tensor, of_temperature, rows);
}

inline void check_values(const Call& call) {
  const int64_t rows = call.student_logits.size(-2), classes = call.student_logits.size(-1);
  const auto& student = call.student_temperature.tensor;
  const auto& teacher = call.teacher_temperature.tensor;
  if (student.has_value() && teacher.has_value() && student->is_same(*teacher)) {
    check_row_value("temperature", call.student_temperature, true, rows);
  } else {
    check_row_value("student_temperature", call.student_temperature, true, rows);
    check_row_value("teacher_temperature", call.teacher_temperature, true, rows);
  }
  check_row_value("kl_weight", call.kl_weight, false, rows);
  check_row_value("ce_weight", call.ce_weight, false, rows);
  if (!call.labels.has_value()) return;
  const int64_t* labels = call.labels->const_data_ptr<int64_t>();
  const int64_t stride = call.labels->stride(0);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t label = labels[i * stride];
    TORCH_CHECK_VALUE(uint64_t(label) < uint64_t(classes) || label == call.ignore_index,
                      "labels: ", label, " in row ", i, "; allowed: 0 to ", classes - 1,
                      ", or ignore_index (", call.ignore_index, ")");
  }
}

}  // namespace kd::binding
