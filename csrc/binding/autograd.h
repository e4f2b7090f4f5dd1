// The autograd node: the gradient is computed in the forward pass and scaled in the backward pass.
#pragma once

#include <ATen/ops/div.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>

#include "operators.h"

namespace kd::binding {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// `direct` is the short way: plain tensors, no tracer, so that kernels are called without the
// dispatcher and the gradient of the loss may be looked at.
template <bool direct>
struct Loss : torch::autograd::Function<Loss<direct>> {
  static Tensor forward(AutogradContext* ctx, const Tensor& student_logits,
                        const OptionalTensor& student_temperature,
                        const OptionalTensor& teacher_temperature, Call& call, Result* result) {
    call.wants_gradient = true;
    call.wants_temperature_gradient =
        call.student_temperature.has_gradient() || call.teacher_temperature.has_gradient();
    *result = direct ? run_directly(call) : run_through_dispatcher(call);
    if (call.wants_temperature_gradient)
      ctx->save_for_backward({result->gradient, result->gradient_scale,
                              result->by_student_temperature, result->by_teacher_temperature});
    else
      ctx->save_for_backward({result->gradient, result->gradient_scale});
    ctx->set_materialize_grads(false);
    if (call.wants_temperature_gradient) {
      ctx->saved_data["student"] = call.student_temperature.has_gradient();
      ctx->saved_data["teacher"] = call.teacher_temperature.has_gradient();
      if (call.reduction == mean) ctx->saved_data["rows"] = call.rows();
    }
    return result->loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grad_outputs) {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "kd_loss: backward with create_graph=True; allowed: differentiating once, because "
                "the gradient comes from the forward pass");
    variable_list result(5);
    const Tensor& grad_loss = grad_outputs[0];
    if (!grad_loss.defined()) return result;
    const variable_list saved = ctx->get_saved_variables();
    if (ctx->needs_input_grad(0)) result[0] = student_gradient(saved[0], saved[1], grad_loss);
    if (saved.size() == 2) return result;
    const bool per_row = grad_loss.dim() == saved[2].dim();
    Tensor per_row_grad = per_row ? grad_loss : grad_loss.unsqueeze(-1);
    if (const auto rows = ctx->saved_data.find("rows"); rows != ctx->saved_data.end())
      per_row_grad = at::div(per_row_grad, c10::Scalar(rows->second.toSymInt()));
    if (ctx->saved_data["student"].toBool()) result[1] = at::mul(saved[2], per_row_grad);
    if (ctx->saved_data["teacher"].toBool()) result[2] = at::mul(saved[3], per_row_grad);
    return result;
  }

 private:
  static Tensor student_gradient(const Tensor& gradient, const Tensor& scale,
                                 const Tensor& grad_loss) {
    if (!direct) return scale_through_dispatcher(gradient, scale, grad_loss);
    // On the CPU a look costs nothing: a gradient of 1 leaves the gradient as it is. Where the
    // graph is kept it is copied instead, for the caller may change what he gets.
    if (grad_loss.is_cpu() && grad_loss.dim() == 0 && !scale.defined() &&
        !torch::autograd::get_current_graph_task_keep_graph()) {
      const bool one = grad_loss.scalar_type() == at::kDouble
                           ? *grad_loss.const_data_ptr<double>() == 1
                           : *grad_loss.const_data_ptr<float>() == 1;
      if (one) return gradient;
    }
    return scale_gradient(gradient, scale, grad_loss);
  }
};

using LossTuple = std::tuple<Tensor, Tensor, Tensor>;

inline bool needs_autograd(const Call& call) {
  return at::GradMode::is_enabled() &&
         (call.student_logits.requires_grad() || call.student_temperature.has_gradient() ||
          call.teacher_temperature.has_gradient());
}

template <bool direct>
LossTuple differentiable(Call& call) {
  Result result;
  if (!needs_autograd(call)) {
    result = direct ? run_directly(call) : run_through_dispatcher(call);
    return {result.loss, result.kl, result.ce};
  }
  const Tensor loss =
      Loss<direct>::apply(call.student_logits, call.student_temperature.tensor,
                          call.teacher_temperature.tensor, call, &result);
  return {loss, result.kl, result.ce};
}

}  // namespace kd::binding
