// Reductions over rows and the scaling of gradients.
#include "launch.h"

namespace kd::device {

KD_INSTANTIATE(ReduceKernel<float, float>)
KD_INSTANTIATE(ReduceKernel<float, double>)
KD_INSTANTIATE(ReduceKernel<double, float>)
KD_INSTANTIATE(ReduceKernel<double, double>)
KD_INSTANTIATE(ScaleKernel<float, float>)
KD_INSTANTIATE(ScaleKernel<BFloat16, float>)
KD_INSTANTIATE(ScaleKernel<Float16, float>)
KD_INSTANTIATE(ScaleKernel<float, double>)
KD_INSTANTIATE(ScaleKernel<BFloat16, double>)
KD_INSTANTIATE(ScaleKernel<Float16, double>)
KD_INSTANTIATE(ScaleKernel<double, double>)

}  // namespace kd::device
