// The kernels' view of their threads. `DeviceTeam` is the hardware's. The tests have another with
// the same members, which runs the same kernels on a CPU.
//
//   thread(), threads()       in the block
//   block()                   of the grid
//   rank(), cluster_blocks()  of a block in its cluster, a cluster's size
//   shuffle_xor(x, mask)      the value that another lane of the warp has; all 32 lanes call it
//   any(x)                    whether x is true in any lane of the warp; all 32 lanes call it
//   barrier()                 waits for the block, cluster_barrier() for the cluster
//   shared()                  the block's shared memory; remote(p, rank) is p in another block's
//   copy(to, from, bytes)     begins to copy up to 16 bytes into 16 of shared memory, 0 behind them
//   wait_for_copies()         until this thread's copies are there, for this thread
//
// A kernel is a struct of its arguments with a templated operator()(team). A launch also needs a
// `Shape`.
#pragma once

#include <cstdint>

#include "storage.h"

namespace kd {
namespace KD_BODY {

constexpr int warp_lanes = 32;

struct Shape {
  int64_t blocks;
  int threads;
  int cluster_blocks;  // 1: no cluster
  int shared_bytes;
};

#ifdef __CUDACC__

struct DeviceTeam {
  __device__ __forceinline__ int thread() const { return int(threadIdx.x); }
  __device__ __forceinline__ int threads() const { return int(blockDim.x); }
  __device__ __forceinline__ int64_t block() const { return int64_t(blockIdx.x); }

  template <class T>
  __device__ __forceinline__ T shuffle_xor(T x, int mask) const {
    return __shfl_xor_sync(0xffffffff, x, mask);
  }
  __device__ __forceinline__ bool any(bool x) const { return __any_sync(0xffffffff, x); }
  __device__ __forceinline__ void barrier() const { __syncthreads(); }

  __device__ __forceinline__ char* shared() const {
    extern __shared__ __align__(16) char memory[];
    return memory;
  }

  __device__ __forceinline__ void copy(void* to, const void* from, int bytes) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const unsigned place = unsigned(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(bytes)
                 : "memory");
#else
    for (int i = 0; i < 16; i += 2)
      *(reinterpret_cast<short*>(to) + i / 2) =
          i < bytes ? *(static_cast<const short*>(from) + i / 2) : short(0);
#endif
  }
  __device__ __forceinline__ void wait_for_copies() const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
  }

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  __device__ __forceinline__ int rank() const { return int(__clusterRelativeBlockRank()); }
  __device__ __forceinline__ int cluster_blocks() const { return int(__clusterSizeInBlocks()); }
  __device__ __forceinline__ void cluster_barrier() const {
    __cluster_barrier_arrive();
    __cluster_barrier_wait();
  }
  template <class T>
  __device__ __forceinline__ T* remote(T* address, int rank) const {
    return static_cast<T*>(__cluster_map_shared_rank(address, unsigned(rank)));
  }
#else
  // Without clusters every block is its own cluster, and the plan requests none.
  __device__ __forceinline__ int rank() const { return 0; }
  __device__ __forceinline__ int cluster_blocks() const { return 1; }
  __device__ __forceinline__ void cluster_barrier() const { __syncthreads(); }
  template <class T>
  __device__ __forceinline__ T* remote(T* address, int) const {
    return address;
  }
#endif
};

#endif

}  // namespace KD_BODY
}  // namespace kd
