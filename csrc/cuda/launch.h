// Launches a kernel on a stream: the only place where kernels meet the CUDA runtime. Each file that
// includes this instantiates it for some kernels, so that the files compile in parallel.
#pragma once

#include "plan.h"
#include "small_kernels.h"

namespace kd {
namespace KD_BODY {

template <class Kernel>
__global__ void __launch_bounds__(Kernel::max_threads, 1)
    run_kernel(const __grid_constant__ Kernel kernel) {
  kernel(DeviceTeam{});
}

template <class Kernel>
void launch(const Kernel& kernel, const Shape& shape, void* stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(shape.blocks));
  config.blockDim = dim3(unsigned(shape.threads));
  config.dynamicSmemBytes = size_t(shape.shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {unsigned(shape.cluster_blocks), 1, 1};
  config.attrs = &cluster;
  config.numAttrs = shape.cluster_blocks > 1 ? 1 : 0;
  check_launch(cudaLaunchKernelEx(&config, run_kernel<Kernel>, kernel));
}

#define KD_INSTANTIATE(...) \
  template void launch<__VA_ARGS__>(const __VA_ARGS__&, const Shape&, void*);

#define KD_INSTANTIATE_ROWS(...)                       \
  KD_INSTANTIATE(RowKernel<__VA_ARGS__, false, false>) \
  KD_INSTANTIATE(RowKernel<__VA_ARGS__, true, false>)  \
  KD_INSTANTIATE(SplitSumsKernel<__VA_ARGS__>)         \
  KD_INSTANTIATE(SplitGradientKernel<__VA_ARGS__>)     \
  KD_INSTANTIATE(SplitFinishKernel<__VA_ARGS__>)

#define KD_INSTANTIATE_TILES(...)                     \
  KD_INSTANTIATE(RowKernel<__VA_ARGS__, false, true>) \
  KD_INSTANTIATE(RowKernel<__VA_ARGS__, true, true>)

}  // namespace KD_BODY
}  // namespace kd
