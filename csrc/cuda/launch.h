// Launches a kernel on a stream: the only place where kernels meet the CUDA runtime. Each file that
// includes this instantiates it for some kernels, so that the files compile in parallel.
#pragma once

#include <atomic>

#include "plan.h"
#include "small_kernels.h"

namespace kd {
namespace KD_BODY {

template <class Kernel>
__global__ void __launch_bounds__(Kernel::max_threads, 1)
    run_kernel(const __grid_constant__ Kernel kernel) {
  kernel(DeviceTeam{});
}

// A shape as the CUDA runtime takes it.
struct Launch {
  cudaLaunchConfig_t config{};
  cudaLaunchAttribute cluster{};

  Launch(const Shape& shape, void* stream) {
    config.gridDim = dim3(unsigned(shape.blocks));
    config.blockDim = dim3(unsigned(shape.threads));
    config.dynamicSmemBytes = size_t(shape.shared_bytes);
    config.stream = static_cast<cudaStream_t>(stream);
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {unsigned(shape.cluster_blocks), 1, 1};
    config.attrs = &cluster;
    config.numAttrs = shape.cluster_blocks > 1 ? 1 : 0;
  }
  Launch(const Launch&) = delete;
};

inline int current_device_index() {
  int index = 0;
  check_launch(cudaGetDevice(&index));
  return index;
}

// More shared memory than 48 KiB must be requested, once for each kernel and device.
template <class Kernel>
void allow_shared_memory(int bytes) {
  if (bytes <= 48 * 1024) return;
  static std::atomic<int> allowed[most_devices];
  const int index = current_device_index();
  if (allowed[index].load(std::memory_order_relaxed) >= bytes) return;
  check_launch(cudaFuncSetAttribute(run_kernel<Kernel>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  allowed[index].store(bytes, std::memory_order_relaxed);
}

template <class Kernel>
void launch(const Kernel& kernel, const Shape& shape, void* stream) {
  allow_shared_memory<Kernel>(shape.shared_bytes);
  const Launch launch(shape, stream);
  check_launch(cudaLaunchKernelEx(&launch.config, run_kernel<Kernel>, kernel));
}

// Answers of the runtime are kept, because it takes its time. An entry holds its question and its
// answer in one word, so that threads need no lock.
template <class Kernel>
int64_t clusters_at_once(const Shape& shape) {
  constexpr int entries = 64, answer_bits = 20;
  static std::atomic<uint64_t> kept[entries];
  const int index = current_device_index();
  const uint64_t question = ((uint64_t(index) * 16 + shape.cluster_blocks) * 64 +
                             shape.threads / warp_lanes) * (1 << 18) + shape.shared_bytes;
  std::atomic<uint64_t>& entry = kept[(question * 0x9e3779b97f4a7c15u) >> 58];
  const uint64_t found = entry.load(std::memory_order_relaxed);
  if (found >> answer_bits == question) return int64_t(found & ((1 << answer_bits) - 1));
  allow_shared_memory<Kernel>(shape.shared_bytes);
  int answer = 0;
  if (shape.cluster_blocks > 1) {
    Shape one = shape;
    one.blocks = shape.cluster_blocks;
    const Launch launch(one, nullptr);
    check_launch(cudaOccupancyMaxActiveClusters(&answer, run_kernel<Kernel>, &launch.config));
  } else {
    int multiprocessors = 0;
    check_launch(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, index));
    check_launch(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &answer, run_kernel<Kernel>, shape.threads, size_t(shape.shared_bytes)));
    answer *= multiprocessors;
  }
  entry.store(question << answer_bits | uint64_t(answer), std::memory_order_relaxed);
  return answer;
}

#define KD_INSTANTIATE(...) \
  template void launch<__VA_ARGS__>(const __VA_ARGS__&, const Shape&, void*);

#define KD_INSTANTIATE_ROW(...) \
  KD_INSTANTIATE(__VA_ARGS__)   \
  template int64_t clusters_at_once<__VA_ARGS__>(const Shape&);

#define KD_INSTANTIATE_ROWS(...)                           \
  KD_INSTANTIATE_ROW(RowKernel<__VA_ARGS__, false, false>) \
  KD_INSTANTIATE_ROW(RowKernel<__VA_ARGS__, true, false>)  \
  KD_INSTANTIATE(SplitSumsKernel<__VA_ARGS__>)         \
  KD_INSTANTIATE(SplitGradientKernel<__VA_ARGS__>)     \
  KD_INSTANTIATE(SplitFinishKernel<__VA_ARGS__>)

#define KD_INSTANTIATE_TILES(...)                         \
  KD_INSTANTIATE_ROW(RowKernel<__VA_ARGS__, false, true>) \
  KD_INSTANTIATE_ROW(RowKernel<__VA_ARGS__, true, true>)

}  // namespace KD_BODY
}  // namespace kd
