// The mean or sum over rows, and the scaling of a gradient in the backward pass.
#pragma once

#include "../driver.h"
#include "reduce.h"

namespace kd {
namespace KD_BODY {

// Up to this many rows, one block sums a student's rows, else several blocks do.
constexpr int64_t most_block_rows = 8192;
constexpr int64_t most_pieces = 1024;

inline int64_t reduce_pieces(int64_t rows) {
  const int64_t pieces = (rows + most_block_rows - 1) / most_block_rows;
  return pieces < 1 ? 1 : pieces > most_pieces ? most_pieces : pieces;
}

// One block per piece of a student's rows of one value. Sums are in double, in an order that
// depends only on the number of rows.
template <class In, class Out>
struct ReduceKernel {
  static constexpr int max_threads = max_warps * warp_lanes;
  static constexpr int loads = 8;  // of a thread, in flight at once

  const void* values[row_values];  // [K, rows] each
  void* out[row_values];           // [K, pieces] each
  int64_t rows, piece_rows;
  uint32_t students, pieces;  // a grid has fewer than 2^31 blocks
  double factor;

  template <class Team>
  KD_INLINE void operator()(const Team& team) const {
    const uint32_t block = uint32_t(team.block()), piece = block % pieces;
    const uint32_t value = block / pieces / students, student = block / pieces % students;
    const int64_t begin = piece * piece_rows, left = rows - begin;
    const int count = int(left < piece_rows ? left : piece_rows);
    const In* const from = static_cast<const In*>(values[value]) + student * rows + begin;
    const RowTeam row_team{team.threads(), team.thread()};
    double sum[1] = {0};
#ifdef __CUDACC__
#pragma unroll 1  // a loop of few rounds, whose instructions cost more than its jumps
#endif
    for (int first = row_team.lane; first < count; first += loads * row_team.size) {
      In numbers[loads];
      KD_UNROLL
      for (int j = 0; j < loads; ++j) {
        const int row = first + j * row_team.size;
        numbers[j] = row < count ? read(from + row) : In(0);
      }
      double pairs[loads / 2];
      KD_UNROLL
      for (int j = 0; j < loads / 2; ++j) pairs[j] = double(numbers[2 * j]) + numbers[2 * j + 1];
      sum[0] += (pairs[0] + pairs[1]) + (pairs[2] + pairs[3]);
    }
    reduce<Sums>(team, row_team, sum, reinterpret_cast<Partials<double, 1>*>(team.shared()));
    if (row_team.lane == 0)
      write(static_cast<Out*>(out[value]) + student * int64_t(pieces) + piece,
            Out(sum[0] * factor));
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

// The partial sums of the blocks, where several blocks sum a student's rows.
inline int64_t reduce_workspace_bytes(int64_t students, int64_t rows) {
  const int64_t pieces = reduce_pieces(rows);
  return pieces == 1 ? 0 : row_values * students * pieces * int64_t(sizeof(double));
}

// Calls launch(kernel, shape): once, or for the pieces and for their sums.
template <class Scalar, class Launch>
void launch_reduce_of(const ReduceParameters& p, double* partials, Launch launch) {
  const auto launch_sums = [&](auto kernel) {
    const int64_t wanted = (kernel.piece_rows + kernel.loads - 1) / kernel.loads;
    int threads = warp_lanes;
    while (threads < wanted && threads < kernel.max_threads) threads *= 2;
    launch(kernel, Shape{row_values * p.students * kernel.pieces, threads, 1,
                         int(sizeof(Partials<double, 1>))});
  };
  const uint32_t students = uint32_t(p.students), pieces = uint32_t(reduce_pieces(p.rows));
  if (pieces == 1) {
    ReduceKernel<Scalar, Scalar> kernel{{}, {}, p.rows, p.rows, students, 1, p.factor};
    for (int i = 0; i < row_values; ++i) {
      kernel.values[i] = p.values[i];
      kernel.out[i] = p.out[i];
    }
    launch_sums(kernel);
    return;
  }
  const int64_t piece_rows = (p.rows + pieces - 1) / pieces;
  ReduceKernel<Scalar, double> of_pieces{{}, {}, p.rows, piece_rows, students, pieces, 1};
  ReduceKernel<double, Scalar> of_sums{{}, {}, pieces, pieces, students, 1, p.factor};
  for (int i = 0; i < row_values; ++i) {
    double* const sums = partials + i * p.students * pieces;
    of_pieces.values[i] = p.values[i];
    of_pieces.out[i] = sums;
    of_sums.values[i] = sums;
    of_sums.out[i] = p.out[i];
  }
  launch_sums(of_pieces);
  launch_sums(of_sums);
}

template <class Launch>
void launch_reduce(const ReduceParameters& p, void* workspace, Launch launch) {
  if (p.students == 0) return;
  double* const partials = static_cast<double*>(workspace);
  if (p.compute_type == Type::float64)
    launch_reduce_of<double>(p, partials, launch);
  else
    launch_reduce_of<float>(p, partials, launch);
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
