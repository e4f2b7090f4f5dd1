// The CUDA side of driver.h: the device's attributes, queried once, and the plan's launches.
#include <array>
#include <atomic>
#include <stdexcept>
#include <string>

#include "plan.h"
#include "small_kernels.h"

namespace kd {
namespace device {
namespace {

struct Facts {
  std::atomic<bool> known{false};
  std::atomic<int> multiprocessors{0}, clusters{0}, cache_bytes{0}, shared_bytes{0};
};

int attribute(cudaDeviceAttr name, int index) {
  int value = 0;
  check_launch(cudaDeviceGetAttribute(&value, name, index));
  return value;
}

// Attributes of the current device. The query neither waits nor allocates.
Device current_device() {
  static std::array<Facts, most_devices> facts;
  int index = 0;
  check_launch(cudaGetDevice(&index));
  if (index >= most_devices) throw std::runtime_error("kd_loss: device index above 127");
  Facts& of = facts[index];
  if (!of.known.load(std::memory_order_acquire)) {
    of.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, index);
    of.clusters = attribute(cudaDevAttrClusterLaunch, index);
    of.cache_bytes = attribute(cudaDevAttrL2CacheSize, index);
    of.shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
    of.known.store(true, std::memory_order_release);
  }
  return {of.multiprocessors, of.clusters != 0, of.cache_bytes, of.shared_bytes};
}

struct Launcher {
  void* stream;

  template <class Kernel>
  void operator()(const Kernel& kernel, const Shape& shape) const {
    launch(kernel, shape, stream);
  }
  template <class Kernel>
  int64_t at_once(const Shape& shape) const {
    return clusters_at_once<Kernel>(shape);
  }
};

}  // namespace

void check_launch(int error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // clears the error: the next call would report it again
  throw std::runtime_error(std::string("kd_loss on CUDA: ") +
                           cudaGetErrorString(cudaError_t(error)));
}

}  // namespace device

int64_t cuda_workspace_bytes(const RowParameters& parameters) {
  const device::Device device = device::current_device();
  return device::with_access(parameters, [&](const device::Layout& layout, auto* access) {
    return device::workspace_bytes<std::remove_pointer_t<decltype(access)>>(parameters, device,
                                                                            layout);
  });
}

void cuda_rows(const RowParameters& parameters, void* workspace, void* stream) {
  const device::Device device = device::current_device();
  device::with_access(parameters, [&](const device::Layout& layout, auto* access) {
    device::launch_rows<std::remove_pointer_t<decltype(access)>>(
        parameters, device, layout, workspace, device::Launcher{stream});
  });
}

int64_t cuda_reduce_workspace_bytes(int64_t students, int64_t rows) {
  return device::reduce_workspace_bytes(students, rows);
}

void cuda_reduce(const ReduceParameters& parameters, void* workspace, void* stream) {
  device::launch_reduce(parameters, workspace, device::Launcher{stream});
}

void cuda_scale(const ScaleParameters& parameters, void* stream) {
  device::launch_scale(parameters, device::current_device().multiprocessors,
                       device::Launcher{stream});
}

uint64_t cuda_capture(void* stream) {
  auto status = cudaStreamCaptureStatusNone;
  unsigned long long id = 0;
  device::check_launch(cudaStreamGetCaptureInfo(static_cast<cudaStream_t>(stream), &status, &id));
  return status == cudaStreamCaptureStatusNone ? 0 : id;
}

}  // namespace kd
