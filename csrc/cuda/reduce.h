// Sums and maxima over a row's team: part of a warp, a warp, a block, or a cluster of blocks. The
// order is fixed, and every thread gets the same bits.
#pragma once

#include "arithmetic.h"
#include "team.h"

namespace kd {
namespace KD_BODY {

// One row's team of `size` threads: a power of two up to 32, or whole blocks.
struct RowTeam {
  int size;
  int lane;  // of this thread
};

constexpr int max_warps = 16;          // of a block
constexpr int max_cluster_blocks = 8;  // what every device with clusters has

// Memory for one reduction of n values over a cluster. A kernel alternates between at least two, so
// that the next reduction's barrier protects these values from the writes of the one after it.
template <class Scalar, int n>
struct Partials {
  Scalar values[n][max_warps * max_cluster_blocks];
};

struct Maxima {
  template <class Scalar>
  static KD_INLINE Scalar combine(int, Scalar a, Scalar b) {
    return larger(a, b);
  }
  template <class Scalar>
  static KD_INLINE Scalar identity() {
    return -INFINITY;
  }
};

struct Sums {
  template <class Scalar>
  static KD_INLINE Scalar combine(int, Scalar a, Scalar b) {
    return a + b;
  }
  template <class Scalar>
  static KD_INLINE Scalar identity() {
    return 0;
  }
};

template <class Operation, class Team, class Scalar, int n>
KD_INLINE void reduce_lanes(const Team& team, int lanes, Scalar (&values)[n]) {
  KD_UNROLL
  for (int mask = warp_lanes / 2; mask > 0; mask /= 2) {
    if (mask >= lanes) continue;
    KD_UNROLL
    for (int i = 0; i < n; ++i)
      values[i] = Operation::combine(i, values[i], team.shuffle_xor(values[i], mask));
  }
}

// Two butterfly reductions. The first is over each warp, and its result goes to every block of the
// cluster. The second is over the warps' results, in every warp.
template <class Operation, class Team, class Scalar, int n>
KD_INLINE void reduce(const Team& team, const RowTeam& row_team, Scalar (&values)[n],
                      Partials<Scalar, n>* partials) {
  reduce_lanes<Operation>(team, row_team.size < warp_lanes ? row_team.size : warp_lanes, values);
  if (row_team.size <= warp_lanes) return;
  const int lane = team.thread() % warp_lanes;
  const int warps = row_team.size / warp_lanes, warp = row_team.lane / warp_lanes;
  const int blocks = row_team.size / team.threads();
  if (lane < blocks) {
    Partials<Scalar, n>* const there = blocks == 1 ? partials : team.remote(partials, lane);
    KD_UNROLL
    for (int i = 0; i < n; ++i) write(&there->values[i][warp], values[i]);
  }
  if (blocks == 1)
    team.barrier();
  else
    team.cluster_barrier();
  KD_UNROLL
  for (int i = 0; i < n; ++i) values[i] = Operation::template identity<Scalar>();
  for (int w = lane; w < warps; w += warp_lanes) {
    KD_UNROLL
    for (int i = 0; i < n; ++i)
      values[i] = Operation::combine(i, values[i], read(&partials->values[i][w]));
  }
  reduce_lanes<Operation>(team, warp_lanes, values);
}

}  // namespace KD_BODY
}  // namespace kd
