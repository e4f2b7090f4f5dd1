// The operators' implementations below autograd, and the ways to call them: through the dispatcher,
// which torch.compile follows, and directly.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <tuple>

#include "run.h"

namespace kd::binding {

#define KD_ARGUMENTS                                                                        \
  const Tensor &student_logits, const Tensor &teacher_logits, const OptionalTensor &labels, \
      const OptionalTensor &class_mask, const OptionalTensor &student_temperatures,         \
      const OptionalTensor &teacher_temperatures, const OptionalTensor &kl_weights,         \
      const OptionalTensor &ce_weights, double student_temperature,                         \
      double teacher_temperature, double kl_weight, double ce_weight, bool scale_by_t2,     \
      int64_t ignore_index, int64_t reduction

#define KD_CALL                                                                        \
  Call {                                                                               \
    student_logits, teacher_logits, labels, class_mask,                                \
        {student_temperatures, student_temperature},                                   \
        {teacher_temperatures, teacher_temperature}, {kl_weights, kl_weight},          \
        {ce_weights, ce_weight}, scale_by_t2, ignore_index, reduction, false, false    \
  }

using ForwardTuple = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// An operator must return tensors, so an output that was not requested becomes an empty one.
inline ForwardTuple as_tuple(const Result& result) {
  const auto present = [&](const Tensor& tensor) {
    return tensor.defined() ? tensor : at::empty({0}, result.loss.options());
  };
  return {result.loss,
          result.kl,
          result.ce,
          present(result.gradient),
          present(result.gradient_scale),
          present(result.by_student_temperature),
          present(result.by_teacher_temperature)};
}

template <Result (*run)(const Call&)>
ForwardTuple forward_op(KD_ARGUMENTS, bool wants_gradient, bool wants_temperature_gradient) {
  Call call = KD_CALL;
  call.wants_gradient = wants_gradient;
  call.wants_temperature_gradient = wants_temperature_gradient;
  return as_tuple(run(call));
}

inline Tensor backward_op(const Tensor& gradient, const Tensor& gradient_scale,
                          const Tensor& grad_loss) {
  const auto shape = gradient.sizes();
  const int64_t least = gradient.dim() == 3 ? 1 : 0, dims = grad_loss.dim();
  TORCH_CHECK_VALUE(gradient.dim() >= 2 && (dims == least || dims == least + 1) &&
                        grad_loss.sizes() == shape.slice(0, dims),
                    "grad_loss: shape ", grad_loss.sizes(), " for a gradient of ", shape);
  TORCH_CHECK_TYPE(grad_loss.scalar_type() == at::kDouble ||
                       (grad_loss.scalar_type() == at::kFloat &&
                        gradient.scalar_type() != at::kDouble),
                   "grad_loss: ", grad_loss.scalar_type(), " for a gradient of ",
                   gradient.scalar_type());
  TORCH_CHECK_VALUE(gradient_scale.numel() == 0 ||
                        (gradient_scale.scalar_type() == at::kFloat &&
                         gradient_scale.sizes() == shape.slice(0, gradient.dim() - 1)),
                    "gradient_scale: ", gradient_scale.scalar_type(), " ", gradient_scale.sizes(),
                    " for a gradient of ", shape);
  return scale_gradient(gradient.contiguous(), gradient_scale.contiguous(), grad_loss);
}
inline Tensor backward_meta(const Tensor& gradient, const Tensor&, const Tensor&) {
  return at::empty_like(gradient);
}

inline Result run_through_dispatcher(const Call& call) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("kdplatform::kd_loss_forward", "")
                             .typed<decltype(forward_op<run_cpu>)>();
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const auto [loss, kl, ce, gradient, scale, by_student, by_teacher] = op.call(
      call.student_logits, call.teacher_logits, call.labels, call.class_mask,
      call.student_temperature.tensor, call.teacher_temperature.tensor, call.kl_weight.tensor,
      call.ce_weight.tensor, call.student_temperature.number, call.teacher_temperature.number,
      call.kl_weight.number, call.ce_weight.number, call.scale_by_t2, call.ignore_index,
      call.reduction, call.wants_gradient, call.wants_temperature_gradient);
  return {loss, kl, ce, gradient, scale, by_student, by_teacher};
}

inline Tensor scale_through_dispatcher(const Tensor& gradient, const Tensor& scale,
                                       const Tensor& grad_loss) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("kdplatform::kd_loss_backward", "")
                             .typed<decltype(backward_op)>();
  return op.call(gradient, scale, grad_loss);
}

inline Result run_directly(const Call& call) {
#ifdef KD_WITH_CUDA
  if (call.student_logits.is_cuda()) return run_cuda(call);
#endif
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return run_cpu(call);
}

}  // namespace kd::binding
