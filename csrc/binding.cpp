// The one file that knows torch: operators for the dispatcher, the autograd node, and a short way
// in from Python for the plain case, whose cost is what a batch of ten classes is made of.
//
//   kdplatform::kd_loss           what Python calls; differentiable
//   kdplatform::kd_loss_forward   losses and gradients, no autograd
//   kdplatform::kd_loss_backward  gradient times the gradient of the loss
//
// The last two are what torch.compile puts into its graphs.
#include <ATen/core/Tensor.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mul.h>
#include <ATen/record_function.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/library.h>

#ifdef KD_WITH_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include "driver.h"
#include "gradient_memory.h"

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

enum Reduction : int64_t { none = 0, mean = 1, sum = 2 };

// A row value as the operators take it: a tensor [B] or [K, B], or a number.
struct RowValue {
  OptionalTensor tensor;
  double number;
  bool has_gradient() const { return tensor.has_value() && tensor->requires_grad(); }
};

// The arguments of one call, as kdplatform/kernels/loss.py hands them over: checked but for
// the values inside tensors.
struct Call {
  Tensor student_logits, teacher_logits;
  OptionalTensor labels, class_mask;
  RowValue student_temperature, teacher_temperature, kl_weight, ce_weight;
  bool scale_by_t2;
  int64_t ignore_index;
  int64_t reduction;
  bool wants_gradient, wants_temperature_gradient;

  bool many() const { return student_logits.dim() == 3; }
  // What is asked of a tensor whose sizes may be symbols is asked by these.
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

// Undefined tensors stand for what was not asked for.
struct Result {
  Tensor loss, kl, ce, gradient, gradient_scale, by_student_temperature, by_teacher_temperature;
};

// A gradient like the logits; large ones on the CPU come from memory that is kept.
Tensor empty_gradient(const Tensor& logits) {
  const int64_t bytes = logits.numel() * int64_t(logits.element_size());
  if (!logits.is_cpu() || bytes < kd::GradientMemory::smallest)
    return at::empty(logits.sizes(), logits.options());
  auto& memory = kd::GradientMemory::instance();
  return at::from_blob(
      memory.take(bytes), logits.sizes(), [&memory](void* data) { memory.give_back(data); },
      logits.options());
}

// `real` is false on the meta device, whose sizes may be symbols.
template <bool real>
Result allocate(const Call& call) {
  const auto options = call.student_logits.options().dtype(call.compute_type());
  const auto shape = call.loss_shape();
  Result result;
  result.loss = at::empty_symint(shape, options);
  result.kl = at::empty_symint(shape, options);
  result.ce = at::empty_symint(shape, options);
  if (call.wants_gradient) {
    result.gradient =
        real ? empty_gradient(call.student_logits)
             : at::empty_symint(call.student_logits.sym_sizes(), call.student_logits.options());
    if (call.student_logits.scalar_type() == at::kHalf)
      result.gradient_scale = at::empty_symint(call.row_shape(), options.dtype(at::kFloat));
  }
  if (call.wants_temperature_gradient) {
    result.by_student_temperature = at::empty_symint(call.row_shape(), options);
    result.by_teacher_temperature = at::empty_symint(call.row_shape(), options);
  }
  return result;
}

// ------------------------------------------------------------------ values inside CPU tensors

void check_row_value(const char* name, const RowValue& value, bool positive, int64_t rows) {
  if (!value.tensor.has_value()) return;
  const Tensor tensor = value.tensor->to(at::kDouble).contiguous();
  const double* data = tensor.const_data_ptr<double>();
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    const bool good = (positive ? data[i] > 0 : data[i] >= 0) && data[i] < INFINITY;
    TORCH_CHECK_VALUE(good, name, ": ", data[i], " in row ", i % rows, "; allowed: finite, ",
                      positive ? "greater than 0" : "0 or greater");
  }
}

void check_values(const Call& call) {
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

// ------------------------------------------------------------------------- torch to plain structs

kd::Type plain_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return kd::Type::float32;
    case at::kBFloat16: return kd::Type::bfloat16;
    case at::kHalf: return kd::Type::float16;
    case at::kDouble: return kd::Type::float64;
    default: TORCH_CHECK_TYPE(false, "logits: ", type);
  }
}

kd::Logits plain_logits(const Tensor& logits) {
  const bool many = logits.dim() == 3;
  return {logits.const_data_ptr(), plain_type(logits.scalar_type()), many ? logits.stride(0) : 0,
          logits.stride(-2), logits.stride(-1)};
}

kd::RowValue plain_value(const RowValue& value) {
  if (!value.tensor.has_value()) return {nullptr, value.number, 0, 0};
  const Tensor& tensor = *value.tensor;
  const bool many = tensor.dim() == 2;
  return {tensor.const_data_ptr(), 0, many ? tensor.stride(0) : 0, tensor.stride(-1)};
}

double reduction_factor(const Call& call) {
  const int64_t rows = call.student_logits.size(-2);
  return call.reduction == mean && rows > 0 ? 1.0 / double(rows) : 1.0;
}

void* data_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr() : nullptr;
}

kd::RowParameters plain_parameters(const Call& call, const Result& result) {
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

kd::ReduceParameters reduce_parameters(const kd::RowParameters& p, double factor,
                                       const void* values, const Tensor& out) {
  return {p.students, p.rows, p.compute_type, factor, values, out.mutable_data_ptr()};
}

// Runs the rows into `row_memory`, or into the result itself where nothing is reduced.
template <class Rows, class Reduce>
void run_and_reduce(const Call& call, const Result& result, void* row_memory, Rows rows,
                    Reduce reduce) {
  kd::RowParameters p = plain_parameters(call, result);
  const Tensor* outputs[] = {&result.loss, &result.kl, &result.ce};
  void** const row_outputs[] = {&p.loss, &p.kl, &p.ce};
  const int64_t bytes = p.students * p.rows * (p.compute_type == kd::Type::float64 ? 8 : 4);
  for (int i = 0; i < 3; ++i)
    *row_outputs[i] = call.reduction == none ? outputs[i]->mutable_data_ptr()
                                             : static_cast<char*>(row_memory) + i * bytes;
  rows(p);
  if (call.reduction == none) return;
  const double factor = reduction_factor(call);
  for (int i = 0; i < 3; ++i) reduce(reduce_parameters(p, factor, *row_outputs[i], *outputs[i]));
}

Result run_cpu(const Call& call) {
  check_values(call);
  Result result = allocate<true>(call);
  const int64_t count = 3 * call.student_logits.numel() / call.student_logits.size(-1);
  constexpr int64_t on_stack = 1024;
  double stack_memory[on_stack];
  std::unique_ptr<double[]> heap_memory;
  if (count > on_stack && call.reduction != none) heap_memory.reset(new double[count]);
  run_and_reduce(call, result, heap_memory ? heap_memory.get() : stack_memory, kd::cpu_rows,
                 kd::cpu_reduce);
  return result;
}

#ifdef KD_WITH_CUDA
Result run_cuda(const Call& call) {
  const c10::cuda::CUDAGuard guard(call.student_logits.device());
  void* const stream = c10::cuda::getCurrentCUDAStream().stream();
  Result result = allocate<true>(call);
  const auto bytes = call.student_logits.options().dtype(at::kByte);
  const int64_t count = 3 * call.student_logits.numel() / call.student_logits.size(-1);
  const Tensor row_memory = at::empty({call.reduction == none ? 0 : 8 * count}, bytes);
  run_and_reduce(
      call, result, row_memory.mutable_data_ptr(),
      [&](const kd::RowParameters& p) {
        const Tensor workspace = at::empty({kd::cuda_workspace_bytes(p)}, bytes);
        kd::cuda_rows(p, workspace.mutable_data_ptr(), stream);
      },
      [&](const kd::ReduceParameters& p) { kd::cuda_reduce(p, stream); });
  return result;
}
#endif

Tensor scale_gradient(const Tensor& gradient, const Tensor& gradient_scale,
                      const Tensor& grad_loss) {
  const Tensor out = empty_gradient(gradient);
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
    return out;
  }
#endif
  kd::cpu_scale(p);
  return out;
}

// ---------------------------------------------------------------------------------- operators

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

// An operator returns tensors, so what was not asked for becomes an empty one.
ForwardTuple as_tuple(const Result& result) {
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

Tensor backward_op(const Tensor& gradient, const Tensor& gradient_scale, const Tensor& grad_loss) {
  return scale_gradient(gradient, gradient_scale, grad_loss);
}
Tensor backward_meta(const Tensor& gradient, const Tensor&, const Tensor&) {
  return at::empty_like(gradient);
}

Result run_through_dispatcher(const Call& call) {
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

Tensor scale_through_dispatcher(const Tensor& gradient, const Tensor& scale,
                                const Tensor& grad_loss) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("kdplatform::kd_loss_backward", "")
                             .typed<decltype(backward_op)>();
  return op.call(gradient, scale, grad_loss);
}

Result run_directly(const Call& call) {
#ifdef KD_WITH_CUDA
  if (call.student_logits.is_cuda()) return run_cuda(call);
#endif
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return run_cpu(call);
}

// ------------------------------------------------------------------------------------- autograd

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

bool needs_autograd(const Call& call) {
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

LossTuple kd_loss_op(KD_ARGUMENTS) {
  Call call = KD_CALL;
  return differentiable<false>(call);
}

#define KD_SCHEMA                                                                            \
  "(Tensor student_logits, Tensor teacher_logits, Tensor? labels, Tensor? class_mask, "      \
  "Tensor? student_temperatures, Tensor? teacher_temperatures, Tensor? kl_weights, "         \
  "Tensor? ce_weights, float student_temperature, float teacher_temperature, float kl_weight, " \
  "float ce_weight, bool scale_by_t2, int ignore_index, int reduction"

TORCH_LIBRARY(kdplatform, library) {
  library.def("kd_loss" KD_SCHEMA ") -> (Tensor, Tensor, Tensor)");
  library.def("kd_loss_forward" KD_SCHEMA
              ", bool wants_gradient, bool wants_temperature_gradient) -> "
              "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "kd_loss_backward(Tensor gradient, Tensor gradient_scale, Tensor grad_loss) -> Tensor");
  library.impl("kd_loss", c10::DispatchKey::CompositeImplicitAutograd, kd_loss_op);
  library.impl("kd_loss_forward", c10::DispatchKey::CPU, forward_op<run_cpu>);
  library.impl("kd_loss_backward", c10::DispatchKey::CPU, backward_op);
  library.impl("kd_loss_forward", c10::DispatchKey::Meta, forward_op<allocate<false>>);
  library.impl("kd_loss_backward", c10::DispatchKey::Meta, backward_meta);
#ifdef KD_WITH_CUDA
  library.impl("kd_loss_forward", c10::DispatchKey::CUDA, forward_op<run_cuda>);
  library.impl("kd_loss_backward", c10::DispatchKey::CUDA, backward_op);
#endif
}

// -------------------------------------------------------------------------- the short way in

PyTypeObject* output_type = nullptr;  // KDLossOutput, a tuple of three

// A plain tensor on a device that this build serves: no subclass, no tracer's or transform's
// wrapper, a dense layout.
const Tensor* plain_tensor(PyObject* object) {
  if (!THPVariable_CheckExact(object)) return nullptr;
  const Tensor& tensor = THPVariable_Unpack(object);
  constexpr c10::DispatchKeySet plain = c10::DispatchKeySet(
      {c10::DispatchKey::CPU, c10::DispatchKey::CUDA, c10::DispatchKey::AutogradCPU,
       c10::DispatchKey::AutogradCUDA, c10::DispatchKey::ADInplaceOrView,
       c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA});
  if ((tensor.key_set().raw_repr() & ~plain.raw_repr()) != 0) return nullptr;
#ifndef KD_WITH_CUDA
  if (!tensor.is_cpu()) return nullptr;
#endif
  return &tensor;
}

bool plain_number(PyObject* object, double* number) {
  if (PyFloat_CheckExact(object)) {
    *number = PyFloat_AS_DOUBLE(object);
    return true;
  }
  if (!PyLong_CheckExact(object)) return false;
  *number = PyLong_AsDouble(object);
  if (*number == -1.0 && PyErr_Occurred()) PyErr_Clear();
  return true;
}

bool is_logit_type(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf || type == at::kDouble;
}

// (student_logits, teacher_logits, labels, temperature, alpha, scale_by_t2, ignore_index,
// reduction) -> KDLossOutput, or None for a call that is not plain or not right, which Python then
// takes the long way and which says there what is wrong.
PyObject* short_way(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  if (count != 8 || output_type == nullptr || c10::impl::dispatch_mode_enabled() ||
      at::impl::torch_function_mode_enabled())
    Py_RETURN_NONE;
  const Tensor* const student = plain_tensor(args[0]);
  const Tensor* const teacher = plain_tensor(args[1]);
  const bool labelled = args[2] != Py_None;
  const Tensor* const labels = labelled ? plain_tensor(args[2]) : nullptr;
  double temperature, alpha;
  if (student == nullptr || teacher == nullptr || (labelled && labels == nullptr) ||
      !plain_number(args[3], &temperature) || !plain_number(args[4], &alpha))
    Py_RETURN_NONE;
  int overflow = 0;
  const int64_t ignore_index =
      PyLong_CheckExact(args[6]) ? PyLong_AsLongLongAndOverflow(args[6], &overflow) : (overflow = 1);
  const char* const reduction = PyUnicode_CheckExact(args[7]) ? PyUnicode_AsUTF8(args[7]) : "";
  const int64_t reduction_code = std::strcmp(reduction, "mean") == 0   ? mean
                                 : std::strcmp(reduction, "sum") == 0  ? sum
                                 : std::strcmp(reduction, "none") == 0 ? none
                                                                       : -1;
  const bool right =
      student->dim() == 2 && student->sizes() == teacher->sizes() && student->size(1) >= 2 &&
      is_logit_type(student->scalar_type()) && is_logit_type(teacher->scalar_type()) &&
      student->device() == teacher->device() && temperature > 0 && temperature < INFINITY &&
      alpha >= 0 && alpha <= 1 && overflow == 0 && reduction_code >= 0 && PyBool_Check(args[5]) &&
      (!labelled ||
       (labels->scalar_type() == at::kLong && labels->dim() == 1 &&
        labels->size(0) == student->size(0) && labels->device() == student->device()));
  if (!right) Py_RETURN_NONE;

  Call call{*student,
            *teacher,
            labelled ? OptionalTensor(*labels) : std::nullopt,
            std::nullopt,
            {std::nullopt, temperature},
            {std::nullopt, temperature},
            {std::nullopt, alpha},
            {std::nullopt, 1 - alpha},
            args[5] == Py_True,
            ignore_index,
            reduction_code,
            false,
            false};
  LossTuple losses;
  {
    const pybind11::gil_scoped_release no_gil;
    RECORD_FUNCTION("kdplatform::kd_loss", c10::ArrayRef<const c10::IValue>{});
    losses = differentiable<true>(call);
  }
  PyObject* const output = output_type->tp_alloc(output_type, 3);
  if (output == nullptr) return nullptr;
  PyTuple_SET_ITEM(output, 0, THPVariable_Wrap(std::get<0>(losses)));
  PyTuple_SET_ITEM(output, 1, THPVariable_Wrap(std::get<1>(losses)));
  PyTuple_SET_ITEM(output, 2, THPVariable_Wrap(std::get<2>(losses)));
  return output;
  END_HANDLE_TH_ERRORS
}

PyMethodDef short_way_method = {"short_way", reinterpret_cast<PyCFunction>(short_way),
                                METH_FASTCALL, "kd_loss for plain arguments, or None"};

}  // namespace

PYBIND11_MODULE(KD_MODULE_NAME, module) {
  module.doc() = "The fused distillation loss: build information and the short way in";
  PyModule_AddObject(module.ptr(), "short_way", PyCFunction_New(&short_way_method, nullptr));
  module.def("set_output_type", [](pybind11::handle type) {
    output_type = reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr());
  });
  module.def("cpu_body", [] { return std::string(kd::cpu_body()); });
  module.def("set_cpu_body", [](const std::string& name) { return kd::set_cpu_body(name.c_str()); });
#ifdef KD_WITH_CUDA
  module.attr("cuda_architectures") = KD_CUDA_ARCHITECTURES;
#else
  module.attr("cuda_architectures") = "";
#endif
}
