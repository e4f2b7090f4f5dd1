// The autograd node: the gradient is computed in the forward pass and scaled in the backward pass.
#pragma once

#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/ops/div.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>

#include <type_traits>

#include "operators.h"

namespace kd::binding {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

inline void refuse_second_derivative() {
  TORCH_CHECK(!at::GradMode::is_enabled(),
              "kd_loss: backward with create_graph=True; allowed: differentiating once, because "
              "the gradient comes from the forward pass");
}

inline void refuse_forward_mode(const Call& call) {
  const auto refuse = [](const char* name, const OptionalTensor& tensor) {
    TORCH_CHECK(!torch::autograd::isFwGradDefined(tensor),
                "kd_loss: forward-mode differentiation by ", name,
                "; allowed: differentiating once, backward, because the gradient comes from the "
                "forward pass");
  };
  refuse("student_logits", call.student_logits);
  refuse("teacher_logits", call.teacher_logits);
  refuse("student_temperature", call.student_temperature.tensor);
  refuse("teacher_temperature", call.teacher_temperature.tensor);
  refuse("kl_weight", call.kl_weight.tensor);
  refuse("ce_weight", call.ce_weight.tensor);
}

// The gradient times grad_loss, a tensor of any kind. Tensor operations serve a batch of several
// gradients, because the operator has no batching rule.
inline Tensor scale_any(const Tensor& gradient, const Tensor& scale, const Tensor& grad_loss) {
  if (!at::functorch::isBatchedTensor(grad_loss))
    return scale_through_dispatcher(
        gradient, scale.defined() ? scale : at::empty({0}, gradient.options().dtype(at::kFloat)),
        grad_loss);
  Tensor factor = grad_loss.dim() == gradient.dim() - 1 ? grad_loss : grad_loss.unsqueeze(-1);
  if (scale.defined() && scale.sym_numel() > 0) factor = at::mul(factor, scale);
  return at::mul(gradient.to(grad_loss.scalar_type()), factor.unsqueeze(-1))
      .to(gradient.scalar_type());
}

// The general node. It goes through the dispatcher, which tracers follow.
struct Loss : torch::autograd::Function<Loss> {
  static Tensor forward(AutogradContext* ctx, const Tensor& student_logits,
                        const OptionalTensor& student_temperature,
                        const OptionalTensor& teacher_temperature, Call& call, Result* result) {
    call.wants_gradient = true;
    call.wants_temperature_gradient =
        call.student_temperature.has_gradient() || call.teacher_temperature.has_gradient();
    *result = run_through_dispatcher(call);
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
    refuse_second_derivative();
    variable_list result(5);
    const Tensor& grad_loss = grad_outputs[0];
    if (!grad_loss.defined()) return result;
    const variable_list saved = ctx->get_saved_variables();
    if (ctx->needs_input_grad(0))
      result[0] = scale_any(saved[0], saved[1], grad_loss);
    if (saved.size() == 2) return result;
    const bool per_row = grad_loss.dim() == saved[2].dim();
    Tensor per_row_grad = per_row ? grad_loss : grad_loss.unsqueeze(-1);
    if (const auto rows = ctx->saved_data.find("rows"); rows != ctx->saved_data.end())
      per_row_grad = at::div(per_row_grad, c10::Scalar(rows->second.toSymInt()));
    if (ctx->saved_data["student"].toBool()) result[1] = at::mul(saved[2], per_row_grad);
    if (ctx->saved_data["teacher"].toBool()) result[2] = at::mul(saved[3], per_row_grad);
    return result;
  }
};

// The node of the direct call: plain tensors, a gradient for the student only, no dispatcher. It
// costs less than half of Loss.
struct DirectLoss final : torch::autograd::Node {
  torch::autograd::SavedVariable gradient, gradient_scale;
  uint64_t capture = 0;  // capture_of at the forward pass

  std::string name() const override { return "KDLossBackward"; }

  variable_list apply(variable_list&& grad_outputs) override {
    return scaled(grad_outputs[0],
                  [this](const auto&... tensors) { return look_and_scale(tensors...); });
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    gradient.reset_data();
    gradient_scale.reset_data();
  }

  // Compiled autograd traces the operator instead.
  void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const override {
    args.collect(gradient, false);
    args.collect(gradient_scale, false);
  }
  variable_list apply_with_saved(const variable_list& grad_outputs,
                                 torch::dynamo::autograd::SwapSavedVariables& saved) override {
    saved.before(gradient);
    saved.before(gradient_scale);
    const auto result = scaled(grad_outputs[0], scale_any);
    saved.after(gradient);
    saved.after(gradient_scale);
    return result;
  }

 private:
  template <class Scale>
  variable_list scaled(const Tensor& grad_loss, Scale scale) {
    refuse_second_derivative();
    if (!grad_loss.defined()) return {Tensor()};
    const std::lock_guard<std::mutex> lock(mutex_);
    return {scale(gradient.unpack(), gradient_scale.unpack(), grad_loss)};
  }

  // Reading the factor is free on the CPU: a factor of 1 returns the gradient as it is. If the
  // graph is retained the gradient is copied, because the caller may modify the result.
  Tensor look_and_scale(const Tensor& stored, const Tensor& scale, const Tensor& grad_loss) {
    if (!is_plain(grad_loss)) return scale_any(stored, scale, grad_loss);
    if (grad_loss.is_cpu() && grad_loss.dim() == 0 && !scale.defined() &&
        !torch::autograd::get_current_graph_task_keep_graph()) {
      const bool one = grad_loss.scalar_type() == at::kDouble
                           ? *grad_loss.const_data_ptr<double>() == 1
                           : *grad_loss.const_data_ptr<float>() == 1;
      if (one) return stored;
    }
    if (!may_overwrite(stored)) return scale_gradient(stored, scale, grad_loss);
    scale_gradient_into(stored, stored, scale, grad_loss);
    // Now, not after this call: another thread may come here before the engine releases the node's
    // variables. Without this reference, the caller may also keep the result without a copy.
    gradient.reset_data();
    gradient_scale.reset_data();
    return stored;
  }

  // Whether the gradient may be scaled in place. On CUDA this saves memory, and for a factor of 1
  // all traffic. Nobody else may need it: a retained graph needs it again, and hooks of saved
  // tensors return tensors that the user holds. A CUDA graph of the backward pass alone would scale
  // one gradient at every replay, so both passes must belong to the same capture, or to none.
  bool may_overwrite(const Tensor& stored) const {
    constexpr size_t references = 2;  // this node's and the caller's
    return stored.is_cuda() && !torch::autograd::get_current_graph_task_keep_graph() &&
           !gradient.has_hooks() && stored.use_count() == references &&
           stored.storage().use_count() == 1 && capture_of(stored) == capture;
  }
};

// A node as this version of torch holds it: by shared pointer, or by intrusive reference count.
template <class Pointer = decltype(torch::autograd::Edge::function)>
auto make_direct_loss() {
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<torch::autograd::Node>>)
    return std::shared_ptr<DirectLoss>(new DirectLoss, [](auto* node) { deleteNode(node); });
  else
    return c10::make_intrusive<DirectLoss>();
}

using LossTuple = std::tuple<Tensor, Tensor, Tensor>;

inline bool needs_autograd(const Call& call) {
  return at::GradMode::is_enabled() &&
         (call.student_logits.requires_grad() || call.student_temperature.has_gradient() ||
          call.teacher_temperature.has_gradient());
}

inline LossTuple loss_through_dispatcher(Call& call) {
  if (!needs_autograd(call)) {
    const Result result = run_through_dispatcher(call);
    return {result.loss, result.kl, result.ce};
  }
  Result result;
  const Tensor loss = Loss::apply(call.student_logits, call.student_temperature.tensor,
                                  call.teacher_temperature.tensor, call, &result);
  return {loss, result.kl, result.ce};
}

inline LossTuple loss_directly(Call& call) {
  call.wants_gradient = needs_autograd(call);
  const Result result = run_directly(call);
  if (call.wants_gradient) {
    const auto node = make_direct_loss();
    node->set_next_edges(torch::autograd::collect_next_edges(call.student_logits));
    node->gradient = torch::autograd::SavedVariable(result.gradient, false);
    node->gradient_scale = torch::autograd::SavedVariable(result.gradient_scale, false);
    node->capture = capture_of(result.gradient);
    torch::autograd::set_history(result.loss, node);
  }
  return {result.loss, result.kl, result.ce};
}

}  // namespace kd::binding
