// Tensors to plain structs, and the kernels called with them.
#pragma once

#include <ATen/ops/empty.h>

#ifdef KD_WITH_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include "../driver.h"
#include "call.h"

namespace kd::binding {

inline kd::Type plain_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return kd::Type::float32;
    case at::kBFloat16: return kd::Type::bfloat16;
    case at::kHalf: return kd::Type::float16;
    case at::kDouble: return kd::Type::float64;
    default: TORCH_CHECK_TYPE(false, "logits: ", type);
  }
}

inline kd::Logits plain_logits(const Tensor& logits) {
  const bool many = logits.dim() == 3;
  return {logits.const_data_ptr(), plain_type(logits.scalar_type()), many ? logits.stride(0) : 0,
          logits.stride(-2), logits.stride(-1)};
}

inline kd::RowValue plain_value(const RowValue& value) {
  if (!value.tensor.has_value()) return {nullptr, value.number, 0, 0};
  const Tensor& tensor = *value.tensor;
  const bool many = tensor.dim() == 2;
  return {tensor.const_data_ptr(), 0, many ? tensor.stride(0) : 0, tensor.stride(-1)};
}

inline double reduction_factor(const Call& call) {
  const int64_t rows = call.student_logits.size(-2);
  return call.reduction == mean && rows > 0 ? 1.0 / double(rows) : 1.0;
}

inline void* data_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr() : nullptr;
}

inline kd::RowParameters plain_parameters(const Call& call, const Result& result) {
  kd::RowParameters p{};
  p.students = call.many() ? call.student_logits.size(0) : 1;
  p.rows = call.student_logits.size(-2);
  p.classes = call.student_logits.size(-1);
  p.compute_type = plain_type(call.compute_type());
  p.student = plain_logits(call.student_logits);
  p.teacher = plain_logits(call.teacher_logits);
  if (call.labels.has_value()) {
    p.labels = call.labels->const_data_ptr<int64_t>();
    p.label_stride = call.labels->stride(0);
  }
  p.ignore_index = call.ignore_index;
  if (call.class_mask.has_value()) {
    p.class_mask = call.class_mask->const_data_ptr<bool>();
    p.mask_row_stride = call.class_mask->dim() == 2 ? call.class_mask->stride(0) : 0;
    p.mask_class_stride = call.class_mask->stride(-1);
  }
  p.student_temperature = plain_value(call.student_temperature);
  p.teacher_temperature = plain_value(call.teacher_temperature);
  p.kl_weight = plain_value(call.kl_weight);
  p.ce_weight = plain_value(call.ce_weight);
  p.scale_by_t2 = call.scale_by_t2;
  p.gradient_factor = reduction_factor(call);
  p.gradient = data_or_null(result.gradient);
  p.gradient_scale = static_cast<float*>(data_or_null(result.gradient_scale));
  p.student_temperature_gradient = data_or_null(result.by_student_temperature);
  p.teacher_temperature_gradient = data_or_null(result.by_teacher_temperature);
  return p;
}

// Runs the rows into `row_memory`, or into the result itself where nothing is reduced.
template <class Rows, class Reduce>
void run_and_reduce(const Call& call, const Result& result, void* row_memory, Rows rows,
                    Reduce reduce) {
  kd::RowParameters p = plain_parameters(call, result);
  void* const outputs[kd::row_values] = {result.loss.mutable_data_ptr(),
                                         result.kl.mutable_data_ptr(),
                                         result.ce.mutable_data_ptr()};
  void** const row_outputs[kd::row_values] = {&p.loss, &p.kl, &p.ce};
  kd::ReduceParameters sums{p.students, p.rows, p.compute_type, reduction_factor(call), {}, {}};
  const int64_t bytes = p.students * p.rows * (p.compute_type == kd::Type::float64 ? 8 : 4);
  for (int i = 0; i < kd::row_values; ++i) {
    *row_outputs[i] =
        call.reduction == none ? outputs[i] : static_cast<char*>(row_memory) + i * bytes;
    sums.values[i] = *row_outputs[i];
    sums.out[i] = outputs[i];
  }
  rows(p);
  if (call.reduction != none) reduce(sums);
}

inline Result run_cpu(const Call& call) {
  check_tensors(call);
  check_values(call);
  Result result = allocate<true>(call);
  const int64_t count = 3 * call.student_logits.numel() / call.student_logits.size(-1);
  constexpr int64_t on_stack = 1024;
  double stack_memory[on_stack];
  Tensor row_memory;
  if (count > on_stack && call.reduction != none)
    row_memory = at::empty({count}, call.student_logits.options().dtype(call.compute_type()));
  run_and_reduce(call, result, row_memory.defined() ? row_memory.mutable_data_ptr() : stack_memory,
                 kd::cpu_rows, kd::cpu_reduce);
  return result;
}

#ifdef KD_WITH_CUDA
inline Result run_cuda(const Call& call) {
  check_tensors(call);
  const c10::cuda::CUDAGuard guard(call.student_logits.device());
  void* const stream = c10::cuda::getCurrentCUDAStream().stream();
  Result result = allocate<true>(call);
  const auto bytes = call.student_logits.options().dtype(at::kByte);
  // The workspace of the sums, then the values of the rows.
  Tensor memory;
  void* row_memory = nullptr;
  if (call.reduction != none) {
    const int64_t rows = call.student_logits.size(-2);
    const int64_t students = call.many() ? call.student_logits.size(0) : 1;
    const int64_t sums = kd::cuda_reduce_workspace_bytes(students, rows);
    const int64_t number = int64_t(c10::elementSize(call.compute_type()));
    memory = at::empty({sums + kd::row_values * students * rows * number}, bytes);
    row_memory = static_cast<char*>(memory.mutable_data_ptr()) + sums;
  }
  run_and_reduce(
      call, result, row_memory,
      [&](const kd::RowParameters& p) {
        const Tensor workspace = at::empty({kd::cuda_workspace_bytes(p)}, bytes);
        kd::cuda_rows(p, workspace.mutable_data_ptr(), stream);
      },
      [&](const kd::ReduceParameters& p) {
        kd::cuda_reduce(p, memory.mutable_data_ptr(), stream);
      });
  return result;
}
#endif

// The id of the capture into a CUDA graph that is under way where the tensor's kernels run, or 0.
inline uint64_t capture_of([[maybe_unused]] const Tensor& tensor) {
#ifdef KD_WITH_CUDA
  if (tensor.is_cuda()) {
    const c10::cuda::CUDAGuard guard(tensor.device());
    return kd::cuda_capture(c10::cuda::getCurrentCUDAStream().stream());
  }
#endif
  return 0;
}

// Into `out`, which may be the gradient itself.
inline void scale_gradient_into(const Tensor& out, const Tensor& gradient,
                                const Tensor& gradient_scale, const Tensor& grad_loss) {
  const bool many = gradient.dim() == 3;
  kd::ScaleParameters p{};
  p.students = many ? gradient.size(0) : 1;
  p.rows = gradient.size(-2);
  p.classes = gradient.size(-1);
  p.type = plain_type(gradient.scalar_type());
  p.compute_type = plain_type(grad_loss.scalar_type());
  p.gradient = gradient.const_data_ptr();
  if (gradient_scale.defined() && gradient_scale.numel() > 0)
    p.gradient_scale = gradient_scale.const_data_ptr<float>();
  p.grad_loss = grad_loss.const_data_ptr();
  const int64_t leading = many ? 1 : 0;
  p.grad_student_stride = many ? grad_loss.stride(0) : 0;
  p.grad_row_stride = grad_loss.dim() > leading ? grad_loss.stride(leading) : 0;
  p.out = out.mutable_data_ptr();
#ifdef KD_WITH_CUDA
  if (gradient.is_cuda()) {
    const c10::cuda::CUDAGuard guard(gradient.device());
    kd::cuda_scale(p, c10::cuda::getCurrentCUDAStream().stream());
    return;
  }
#endif
  kd::cpu_scale(p);
}

inline Tensor scale_gradient(const Tensor& gradient, const Tensor& gradient_scale,
                             const Tensor& grad_loss) {
  const Tensor out = empty<true>(gradient.sym_sizes(), gradient.options());
  scale_gradient_into(out, gradient, gradient_scale, grad_loss);
  return out;
}

}  // namespace kd::binding
