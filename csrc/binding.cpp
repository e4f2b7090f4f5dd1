// With binding/, the only code that knows torch: operators for the dispatcher, the autograd node,
// and a direct call from Python for plain arguments (numbers, or one per row). The direct call
// exists because the way into the kernel dominates the cost of a batch of ten classes.
//
//   kdplatform::kd_loss           what Python calls; differentiable
//   kdplatform::kd_loss_forward   losses and gradients, no autograd
//   kdplatform::kd_loss_backward  gradient times the gradient of the loss
//
// The last two are what torch.compile puts into its graphs.

// Stops torch's headers from declaring every operator, a quarter of this file's compile time.
#define AT_PER_OPERATOR_HEADERS

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/record_function.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/library.h>

#include <utility>

#include "binding/autograd.h"

namespace kd::binding {
namespace {

LossTuple kd_loss_op(KD_ARGUMENTS) {
  Call call = KD_CALL;
  refuse_forward_mode(call);
  return loss_through_dispatcher(call);
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

// -------------------------------------------------------------------------- the direct call

PyTypeObject* output_type = nullptr;  // KDLossOutput, a tuple of three

// A plain tensor on a device that this build serves, without a forward-mode tangent.
const Tensor* plain_tensor(PyObject* object) {
  if (!THPVariable_CheckExact(object)) return nullptr;
  const Tensor& tensor = THPVariable_Unpack(object);
  if (!is_plain(tensor) || torch::autograd::isFwGradDefined(tensor)) return nullptr;
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

// A number in range, or a tensor of one per row, whose values the kernel checks.
bool plain_row_value(PyObject* object, bool of_temperature, const Call& call, RowValue* value) {
  if (plain_number(object, &value->number))
    return of_temperature ? kd::is_temperature(value->number)
                          : value->number >= 0 && value->number < INFINITY;
  const Tensor* const tensor = plain_tensor(object);
  if (tensor == nullptr || tensor->requires_grad() || tensor->dim() != 1 ||
      tensor->size(0) != call.student_logits.size(0) ||
      tensor->scalar_type() != call.compute_type() ||
      tensor->device() != call.student_logits.device())
    return false;
  value->tensor = *tensor;
  return true;
}

// Alpha, or the two weights. An omitted weight is 0.
bool plain_weights(PyObject* alpha, PyObject* kl_weight, PyObject* ce_weight, Call* call) {
  const bool of_kl = kl_weight != Py_None, of_ce = ce_weight != Py_None;
  if (alpha != Py_None) {
    double& number = call->kl_weight.number;
    if (of_kl || of_ce || !plain_number(alpha, &number) || !(number >= 0 && number <= 1))
      return false;
    call->ce_weight.number = 1 - number;
    return true;
  }
  return (of_kl || of_ce) && (!of_ce || call->labels.has_value()) &&
         (!of_kl || plain_row_value(kl_weight, false, *call, &call->kl_weight)) &&
         (!of_ce || plain_row_value(ce_weight, false, *call, &call->ce_weight));
}

bool is_logit_type(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf || type == at::kDouble;
}

// Reduction, or -1 for anything else.
int64_t code_of_reduction(PyObject* object) {
  for (const auto& [name, code] : {std::pair("mean", mean), {"sum", sum}, {"none", none}})
    if (PyUnicode_CheckExact(object) && PyUnicode_CompareWithASCIIString(object, name) == 0)
      return code;
  return -1;
}

// (student_logits, teacher_logits, labels, class_mask, student_temperature, teacher_temperature,
// alpha, kl_weight, ce_weight, scale_by_t2, ignore_index, reduction) -> KDLossOutput, or None for a
// call that is not plain or not valid. Python then takes the general way, which reports errors.
PyObject* direct_call(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  if (count != 12 || output_type == nullptr || c10::impl::dispatch_mode_enabled() ||
      at::impl::torch_function_mode_enabled())
    Py_RETURN_NONE;
  const Tensor* const student = plain_tensor(args[0]);
  const Tensor* const teacher = plain_tensor(args[1]);
  const bool labelled = args[2] != Py_None, masked = args[3] != Py_None;
  const Tensor* const labels = labelled ? plain_tensor(args[2]) : nullptr;
  const Tensor* const mask = masked ? plain_tensor(args[3]) : nullptr;
  if (student == nullptr || teacher == nullptr || (labelled && labels == nullptr) ||
      (masked && mask == nullptr))
    Py_RETURN_NONE;
  int overflow = 0;
  const int64_t ignore_index =
      PyLong_CheckExact(args[10]) ? PyLong_AsLongLongAndOverflow(args[10], &overflow) : (overflow = 1);
  const int64_t reduction_code = code_of_reduction(args[11]);
  const bool right =
      student->dim() == 2 && student->sizes() == teacher->sizes() && student->size(1) >= 2 &&
      is_logit_type(student->scalar_type()) && is_logit_type(teacher->scalar_type()) &&
      student->device() == teacher->device() && overflow == 0 && reduction_code >= 0 &&
      PyBool_Check(args[9]) &&
      (!labelled ||
       (labels->scalar_type() == at::kLong && labels->dim() == 1 &&
        labels->size(0) == student->size(0) && labels->device() == student->device())) &&
      (!masked ||
       (mask->scalar_type() == at::kBool && mask->device() == student->device() &&
        (mask->sizes() == student->sizes() || mask->sizes() == student->sizes().slice(1))));
  if (!right) Py_RETURN_NONE;

  Call call{*student,
            *teacher,
            labelled ? OptionalTensor(*labels) : std::nullopt,
            masked ? OptionalTensor(*mask) : std::nullopt,
            {std::nullopt, 0},
            {std::nullopt, 0},
            {std::nullopt, 0},
            {std::nullopt, 0},
            args[9] == Py_True,
            ignore_index,
            reduction_code,
            false,
            false};
  if (!plain_row_value(args[4], true, call, &call.student_temperature) ||
      !plain_row_value(args[5], true, call, &call.teacher_temperature) ||
      !plain_weights(args[6], args[7], args[8], &call))
    Py_RETURN_NONE;
  LossTuple losses;
  {
    const pybind11::gil_scoped_release no_gil;
    RECORD_FUNCTION("kdplatform::kd_loss", c10::ArrayRef<const c10::IValue>{});
    losses = loss_directly(call);
  }
  PyObject* const output = output_type->tp_alloc(output_type, 3);
  if (output == nullptr) return nullptr;
  PyTuple_SET_ITEM(output, 0, THPVariable_Wrap(std::get<0>(losses)));
  PyTuple_SET_ITEM(output, 1, THPVariable_Wrap(std::get<1>(losses)));
  PyTuple_SET_ITEM(output, 2, THPVariable_Wrap(std::get<2>(losses)));
  return output;
  END_HANDLE_TH_ERRORS
}

PyMethodDef direct_call_method = {"direct_call", reinterpret_cast<PyCFunction>(direct_call),
                                METH_FASTCALL, "kd_loss for plain arguments, or None"};

}  // namespace

PYBIND11_MODULE(KD_MODULE_NAME, module) {
  module.doc() = "The fused distillation loss: build information and the direct call";
  PyModule_AddObject(module.ptr(), "direct_call", PyCFunction_New(&direct_call_method, nullptr));
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

}  // namespace kd::binding
