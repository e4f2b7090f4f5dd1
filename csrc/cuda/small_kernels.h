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

// The numbers of a gradient as one flat piece, in chunks of 16 bytes. Chunks that are not aligned
// or not whole are read and written number by number.
template <class T>
struct FlatGradient {
  static constexpr int size = Chunk<T>::size;

  const T* from;
  T* to;
  int64_t total;
  bool aligned;

  KD_INLINE explicit FlatGradient(const ScaleParameters& p, bool aligned)
      : from(static_cast<const T*>(p.gradient)),
        to(static_cast<T*>(p.out)),
        total(p.students * p.rows * p.classes),
        aligned(aligned) {}

  KD_INLINE bool whole(int64_t first) const { return aligned && first + size <= total; }
  KD_INLINE Chunk<T> read_from(int64_t first) const {
    if (whole(first)) return read(reinterpret_cast<const Chunk<T>*>(from + first));
    Chunk<T> chunk{};
    for (int i = 0; i < size && first + i < total; ++i) chunk.set(i, read(from + first + i));
    return chunk;
  }
  KD_INLINE void write_to(int64_t first, const Chunk<T>& chunk) const {
    if (whole(first)) {
      write(reinterpret_cast<Chunk<T>*>(to + first), chunk);
      return;
    }
    KD_UNROLL
    for (int i = 0; i < size; ++i)
      if (first + i < total) write(to + first + i, chunk.raw(i));
  }
};

template <class T, class Scalar>
KD_INLINE T scaled(const Chunk<T>& chunk, int i, Scalar factor) {
  T rounded;
  narrow(rounded, Scalar(chunk.get(i)) * factor);
  return rounded;
}

// One factor for all numbers. The grid is small, so that a factor of 1 ends it at once.
template <class T, class Scalar>
struct ScaleAllKernel {
  static constexpr int max_threads = 256;
  static constexpr int loads = 4;  // of a thread, in flight at once

  ScaleParameters parameters;
  bool aligned, in_place;
  int64_t stride;  // numbers that the grid reads at once

  template <class Team>
  KD_INLINE void operator()(const Team& team) const {
    constexpr int size = Chunk<T>::size;
    const Scalar factor = read(static_cast<const Scalar*>(parameters.grad_loss));
    if (in_place && factor == 1) return;
    const FlatGradient<T> gradient(parameters, aligned);
    int64_t first = (team.block() * team.threads() + team.thread()) * size;
    for (; first < gradient.total; first += loads * stride) {
      Chunk<T> chunks[loads];
      KD_UNROLL
      for (int j = 0; j < loads; ++j)
        if (first + j * stride < gradient.total) chunks[j] = gradient.read_from(first + j * stride);
      KD_UNROLL
      for (int j = 0; j < loads; ++j) {
        if (first + j * stride >= gradient.total) break;
        KD_UNROLL
        for (int i = 0; i < size; ++i) chunks[j].set(i, scaled(chunks[j], i, factor));
        gradient.write_to(first + j * stride, chunks[j]);
      }
    }
  }
};

// A factor per row or student, and 16 bytes per thread.
template <class T, class Scalar>
struct ScaleRowsKernel {
  static constexpr int max_threads = 256;

  ScaleParameters parameters;
  bool aligned, in_place;

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
    const FlatGradient<T> gradient(parameters, aligned);
    const int64_t first = (team.block() * team.threads() + team.thread()) * size;
    if (first >= gradient.total) return;
    // Factors of 1 are rare beside a scale, so there the numbers are not kept waiting.
    const bool looks = in_place && parameters.gradient_scale == nullptr;
    Chunk<T> chunk{};
    if (!looks) chunk = gradient.read_from(first);

    int64_t row = row_of(first, gradient.total), column = first - row * parameters.classes;
    Scalar row_factor = factor(row);
    Scalar factors[size];
    bool ones = true;
    KD_UNROLL
    for (int i = 0; i < size; ++i) {
      if (column == parameters.classes && first + i < gradient.total) {
        column = 0;
        row_factor = factor(++row);
      }
      ++column;
      factors[i] = row_factor;
      ones = ones && row_factor == 1;
    }
    if (looks) {
      if (ones) return;
      chunk = gradient.read_from(first);
    }
    KD_UNROLL
    for (int i = 0; i < size; ++i) chunk.set(i, scaled(chunk, i, factors[i]));
    gradient.write_to(first, chunk);
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

template <class T, class Scalar, class Launch>
void launch_scale_as(const ScaleParameters& p, int multiprocessors, Launch launch) {
  constexpr int threads = 256;
  constexpr int64_t block_numbers = threads * Chunk<T>::size;
  const int64_t total = p.students * p.rows * p.classes;
  const bool aligned = (reinterpret_cast<uintptr_t>(p.gradient) |
                        reinterpret_cast<uintptr_t>(p.out)) % 16 == 0;
  const bool in_place = p.gradient == p.out;
  const bool one_factor = p.gradient_scale == nullptr &&
                          (p.students == 1 || p.grad_student_stride == 0) &&
                          (p.rows == 1 || p.grad_row_stride == 0);
  int64_t blocks = (total + block_numbers - 1) / block_numbers;
  if (!one_factor) {
    launch(ScaleRowsKernel<T, Scalar>{p, aligned, in_place}, Shape{blocks, threads, 1, 0});
    return;
  }
  const int64_t most = multiprocessors > 0 ? 4 * int64_t(multiprocessors) : 1;
  if (blocks > most) blocks = most;
  launch(ScaleAllKernel<T, Scalar>{p, aligned, in_place, blocks * block_numbers},
         Shape{blocks, threads, 1, 0});
}

template <class Launch>
void launch_scale(const ScaleParameters& p, int multiprocessors, Launch launch) {
  if (p.students == 0 || p.rows == 0 || p.classes == 0) return;
  const auto launch_of = [&](auto number) {
    using T = decltype(number);
    if (p.compute_type == Type::float64)
      launch_scale_as<T, double>(p, multiprocessors, launch);
    else if constexpr (sizeof(T) < 8)
      launch_scale_as<T, float>(p, multiprocessors, launch);
  };
  switch (p.type) {
    case Type::float32: return launch_of(float{});
    case Type::bfloat16: return launch_of(BFloat16{});
    case Type::float16: return launch_of(Float16{});
    case Type::float64: return launch_of(double{});
  }
}

}  // namespace KD_BODY
}  // namespace kd
