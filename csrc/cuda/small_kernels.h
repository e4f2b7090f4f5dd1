// The mean or sum over rows, and the scaling of a gradient in the backward pass.
#pragma once

#include "../driver.h"
#include "reduce.h"

namespace kd {
namespace KD_BODY {

// One block or one cluster per student. Sums are in double, in a fixed order.
template <class Scalar>
struct ReduceKernel {
  static constexpr int max_threads = max_warps * warp_lanes;

  ReduceParameters parameters;
  int cluster_blocks;

  template <class Team>
  KD_INLINE void operator()(const Team& team) const {
    if (cluster_blocks > 1) team.cluster_barrier();
    const int64_t student = team.block() / cluster_blocks;
    const RowTeam row_team{team.threads() * cluster_blocks,
                           team.rank() * team.threads() + team.thread()};
    const auto* const values =
        static_cast<const Scalar*>(parameters.values) + student * parameters.rows;
    double sum[1] = {0};
    for (int64_t i = row_team.lane; i < parameters.rows; i += row_team.size)
      sum[0] += double(read(values + i));
    reduce<Sums>(team, row_team, sum, reinterpret_cast<Partials<double, 1>*>(team.shared()));
    if (row_team.lane == 0)
      write(static_cast<Scalar*>(parameters.out) + student, Scalar(sum[0] * parameters.factor));
  }
};

// 16 bytes per thread, over all rows as one flat piece.
template <class T, class Scalar>
struct ScaleKernel {
  static constexpr int max_threads = 256;

  ScaleParameters parameters;
  bool aligned;

  KD_INLINE Scalar factor(int64_t row) const {
    const int64_t k = parameters.students == 1 ? 0 : row / parameters.rows;
    const int64_t index = k * parameters.grad_student_stride +
                          (row - k * parameters.rows) * parameters.grad_row_stride;
    const Scalar factor = read(static_cast<const Scalar*>(parameters.grad_loss) + index);
    if (parameters.gradient_scale == nullptr) return factor;
    return factor * Scalar(read(parameters.gradient_scale + row));
  }

  // The row of a number. A 64-bit division costs more than everything else here.
  KD_INLINE int64_t row_of(int64_t index, int64_t total) const {
    if (total <= 0xffffffff) return uint32_t(index) / uint32_t(parameters.classes);
    return index / parameters.classes;
  }

  template <class Team>
  KD_INLINE void operator()(const Team& team) const {
    constexpr int size = Chunk<T>::size;
    const int64_t total = parameters.students * parameters.rows * parameters.classes;
    const int64_t first = (team.block() * team.threads() + team.thread()) * size;
    if (first >= total) return;
    const T* const from = static_cast<const T*>(parameters.gradient);
    T* const to = static_cast<T*>(parameters.out);
    const bool whole = aligned && first + size <= total;
    Chunk<T> chunk{};
    if (whole) {
      chunk = read(reinterpret_cast<const Chunk<T>*>(from + first));
    } else {
      for (int i = 0; i < size && first + i < total; ++i) chunk.set(i, read(from + first + i));
    }

    int64_t row = row_of(first, total), column = first - row * parameters.classes;
    Scalar row_factor = factor(row);
    Scalar values[size];
    KD_UNROLL
    for (int i = 0; i < size; ++i) {
      if (column == parameters.classes && first + i < total) {
        column = 0;
        row_factor = factor(++row);
      }
      ++column;
      values[i] = Scalar(chunk.get(i)) * row_factor;
    }
    T rounded[size];
    KD_UNROLL
    for (int i = 0; i < size; ++i) {
      narrow(rounded[i], values[i]);
      chunk.set(i, rounded[i]);
    }
    if (whole) {
      write(reinterpret_cast<Chunk<T>*>(to + first), chunk);
    } else {
      for (int i = 0; i < size && first + i < total; ++i) write(to + first + i, rounded[i]);
    }
  }
};

// Calls launch(kernel, shape) for the kernel that serves.
template <class Launch>
void launch_reduce(const ReduceParameters& p, bool clusters, Launch launch) {
  if (p.students == 0) return;
  const int cluster_blocks = clusters && p.rows > 16384 ? max_cluster_blocks : 1;
  const int threads = p.rows > 128 ? max_warps * warp_lanes : warp_lanes;
  const Shape shape{p.students * cluster_blocks, threads, cluster_blocks,
                    int(sizeof(Partials<double, 1>))};
  if (p.compute_type == Type::float64)
    launch(ReduceKernel<double>{p, cluster_blocks}, shape);
  else
    launch(ReduceKernel<float>{p, cluster_blocks}, shape);
}

template <class T, class Launch>
void launch_scale_of(const ScaleParameters& p, Launch launch) {
  const int64_t total = p.students * p.rows * p.classes;
  if (total == 0) return;
  const int64_t chunks = (total + Chunk<T>::size - 1) / Chunk<T>::size;
  const int threads = 256;
  const Shape shape{(chunks + threads - 1) / threads, threads, 1, 0};
  const bool aligned = (reinterpret_cast<uintptr_t>(p.gradient) |
                        reinterpret_cast<uintptr_t>(p.out)) % 16 == 0;
  if (p.compute_type == Type::float64)
    launch(ScaleKernel<T, double>{p, aligned}, shape);
  else if constexpr (sizeof(T) < 8)
    launch(ScaleKernel<T, float>{p, aligned}, shape);
}

template <class Launch>
void launch_scale(const ScaleParameters& p, Launch launch) {
  switch (p.type) {
    case Type::float32: return launch_scale_of<float>(p, launch);
    case Type::bfloat16: return launch_scale_of<BFloat16>(p, launch);
    case Type::float16: return launch_scale_of<Float16>(p, launch);
    case Type::float64: return launch_scale_of<double>(p, launch);
  }
}

}  // namespace KD_BODY
}  // namespace kd
