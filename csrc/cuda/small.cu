// Reductions over rows and the scaling of gradients.
#include "launch.h"

namespace kd::device {

KD_INSTANTIATE(ReduceKernel<float, float>)
KD_INSTANTIATE(ReduceKernel<float, double>)
KD_INSTANTIATE(ReduceKernel<double, float>)
KD_INSTANTIATE(ReduceKernel<double, double>)

#define KD_INSTANTIATE_SCALING(...)           \
  KD_INSTANTIATE(ScaleAllKernel<__VA_ARGS__>) \
  KD_INSTANTIATE(ScaleRowsKernel<__VA_ARGS__>)

KD_INSTANTIATE_SCALING(float, float)
KD_INSTANTIATE_SCALING(BFloat16, float)
KD_INSTANTIATE_SCALING(Float16, float)
KD_INSTANTIATE_SCALING(float, double)
KD_INSTANTIATE_SCALING(BFloat16, double)
KD_INSTANTIATE_SCALING(Float16, double)
KD_INSTANTIATE_SCALING(double, double)

}  // namespace kd::device
