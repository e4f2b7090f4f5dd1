// Keeps a row in the registers of its team: a few lanes, a warp, a block, or a cluster of blocks.
// Each logit is read once and each gradient written once. Otherwise only a few numbers per row
// move.
#pragma once

#include "access.h"
#include "reduce.h"

namespace kd {
namespace KD_BODY {

struct RowPlan {
  int row_threads;     // the team of a row: a power of two up to 32, or whole blocks
  int rows_per_block;  // 1 where a row has a block or more
  int cluster_blocks;  // a power of two
  int chunks;          // that each thread holds, up to Access::chunks
  bool tile;           // rows go through shared memory
  int row_shift, cluster_shift;  // log2 of row_threads up to 32, and of cluster_blocks
};

// Shared memory of a team of a block or more.
template <class Scalar>
struct RowShared {
  Partials<Scalar, 1> one;
  Partials<Scalar, 2> maxima;
  Partials<Scalar, 3> sums;
  Partials<Scalar, terms> all_terms;
};

// Short misaligned rows pass through shared memory as one flat piece of `count` numbers, 16 bytes
// at a time. Both ends are aligned at the start.
template <class Team, class T>
KD_INLINE void copy_flat(const Team& team, const T* from, T* to, int64_t count) {
  constexpr int size = Chunk<T>::size;
  const int64_t whole = count / size;
  for (int64_t i = team.thread(); i < whole; i += team.threads())
    write(reinterpret_cast<Chunk<T>*>(to) + i, read(reinterpret_cast<const Chunk<T>*>(from) + i));
  for (int64_t i = whole * size + team.thread(); i < count; i += team.threads())
    write(to + i, read(from + i));
}

template <class Access, bool sloped, bool tile, class Team>
struct RowPass {
  using Number = typename Access::Number;
  using Scalar = typename Access::Scalar;
  using Held = typename Access::Held;
  static constexpr int chunks = Access::chunks, width = Access::width;

  const RowParameters& parameters;
  const RowPlan& plan;
  const Team& team;
  RowTeam row_team;
  int64_t first_row;  // of the block
  int64_t row;        // of this thread; threads without a row repeat the last one
  bool leader;        // writes the row's single numbers
  bool inside;
  bool dead = false;  // fewer than two classes are left
  RowShared<Scalar>* shared;
  Held student[chunks], teacher[chunks];

  KD_INLINE RowPass(const RowParameters& parameters, const RowPlan& plan, const Team& team)
      : parameters(parameters), plan(plan), team(team) {
    const bool within_warp = plan.row_threads <= warp_lanes;
    const int thread = team.thread();
    row_team.size = plan.row_threads;
    row_team.lane = within_warp ? thread & (plan.row_threads - 1)
                                : team.rank() * team.threads() + thread;
    first_row = (team.block() >> plan.cluster_shift) * plan.rows_per_block;
    row = first_row + (within_warp ? thread >> plan.row_shift : 0);
    inside = row < parameters.rows;
    leader = inside && row_team.lane == 0;
    if (!inside) row = parameters.rows - 1;
    shared = reinterpret_cast<RowShared<Scalar>*>(team.shared());
  }

  // Calls body(j, chunk) for each of this thread's chunks. j is a compile-time constant.
  template <class Body>
  KD_INLINE void over_chunks(Body body) const {
    KD_UNROLL
    for (int j = 0; j < chunks; ++j) {
      if (j >= plan.chunks) break;
      body(j, j * row_team.size + row_team.lane);
    }
  }

  KD_INLINE Access access(int64_t k) const {
    Access access(parameters, k, row);
    if constexpr (tile) {
      const int64_t offset = (row - first_row) * parameters.classes;
      access.student = student_tile() + offset;
      access.teacher = teacher_tile() + offset;
      access.gradient = student_tile() + offset;
      access.shift = alignment_shift(access.student);
    }
    return access;
  }

  // The block's teacher rows and its student rows, which the gradient overwrites.
  KD_INLINE Number* student_tile() const { return reinterpret_cast<Number*>(team.shared()); }
  KD_INLINE Number* teacher_tile() const {
    return student_tile() + plan.rows_per_block * parameters.classes;
  }
  KD_INLINE int64_t tile_count() const {
    const int64_t left = parameters.rows - first_row;
    return (left < plan.rows_per_block ? left : plan.rows_per_block) * parameters.classes;
  }
  KD_INLINE void fill_tile(int64_t k) const {
    const Access global(parameters, k, first_row);
    copy_flat(team, global.student, student_tile(), tile_count());
    if (k == 0) copy_flat(team, global.teacher, teacher_tile(), tile_count());
    team.barrier();
  }
  KD_INLINE void empty_tile(int64_t k) const {
    team.barrier();
    if (parameters.gradient == nullptr) return;
    const Access global(parameters, k, first_row);
    copy_flat(team, static_cast<const Number*>(student_tile()), global.gradient, tile_count());
    team.barrier();
  }

  KD_INLINE void read_teacher(const Access& access) {
    over_chunks([&](int j, int chunk) { teacher[j] = access.read_teacher(chunk); });
  }
  KD_INLINE void read_student(const Access& access) {
    over_chunks([&](int j, int chunk) { student[j] = access.read_student(chunk); });
  }

  KD_INLINE void look_at_mask() {
    if (!Access::masks || parameters.class_mask == nullptr) return;
    Scalar kept[1] = {0};
    for (int64_t k = row_team.lane; k < parameters.classes; k += row_team.size)
      kept[0] += Scalar(class_kept(parameters, row, k));
    reduce<Sums>(team, row_team, kept, &shared->one);
    dead = kept[0] < 2;
  }

  KD_INLINE void find_maxima(RowNumbers<Scalar>& numbers) const {
    Scalar maxima[2] = {-INFINITY, -INFINITY};
    over_chunks([&](int j, int) {
      KD_UNROLL
      for (int i = 0; i < width; ++i) {
        maxima[0] = larger(maxima[0], Scalar(student[j].get(i)));
        maxima[1] = larger(maxima[1], Scalar(teacher[j].get(i)));
      }
    });
    reduce<Maxima>(team, row_team, maxima, &shared->maxima);
    numbers.student_max = maxima[0];
    numbers.teacher_max = maxima[1];
  }

  // The teacher's exponentials, kept from the sums to the gradient or recomputed.
  struct Exponentials {
    Scalar teacher[Access::keeps_exponentials ? chunks * width : 1];
  };

  KD_INLINE void find_sums(RowNumbers<Scalar>& numbers, Exponentials& exponentials) const {
    Scalar sums[3] = {0, 0, 0};
    over_chunks([&](int j, int) {
      KD_UNROLL
      for (int i = 0; i < width; ++i) {
        const Scalar s = student[j].get(i);
        const Scalar e_student = numbers.student_exponential(s);
        const Scalar e_teacher = numbers.teacher_exponential(teacher[j].get(i));
        sums[0] += e_student;
        sums[1] += e_teacher;
        if (parameters.labels != nullptr) sums[2] += numbers.exponential_at_one(s);
        if constexpr (Access::keeps_exponentials) exponentials.teacher[j * width + i] = e_teacher;
      }
    });
    reduce<Sums>(team, row_team, sums, &shared->sums);
    numbers.student_sum = sums[0];
    numbers.teacher_sum = sums[1];
    numbers.sum_at_one = sums[2];
  }

  KD_INLINE void find_gradient(const Access& access, const CheckedConstants<Scalar>& constants,
                               const RowNumbers<Scalar>& numbers, const Exponentials& exponentials,
                               Scalar (&sums)[terms]) const {
    const ClassArithmetic<Scalar, sloped> arithmetic(parameters, constants, numbers);
    over_chunks([&](int j, int chunk) {
      Scalar gradient[width];
      KD_UNROLL
      for (int i = 0; i < width; ++i) {
        const Scalar s = student[j].get(i), t = teacher[j].get(i);
        Scalar e_teacher;
        if constexpr (Access::keeps_exponentials)
          e_teacher = exponentials.teacher[j * width + i];
        else
          e_teacher = numbers.teacher_exponential(t);
        gradient[i] = arithmetic.add(s, t, numbers.student_exponential(s), e_teacher, sums);
      }
      if (parameters.gradient == nullptr || !inside) return;
      arithmetic.add_label(constants.label, access.first_class(chunk), gradient);
      if constexpr (Access::masks) {
        if (constants.dead) gradient[0] = 0;
      }
      access.write_gradient(chunk, gradient);
    });
    // The derivatives by the temperatures are rare, so other calls skip their three sums.
    if constexpr (sloped) {
      reduce<Sums>(team, row_team, sums, &shared->all_terms);
    } else {
      Scalar kl[1] = {sums[divergence]};
      reduce<Sums>(team, row_team, kl, &shared->one);
      sums[divergence] = kl[0];
    }
  }

  KD_INLINE void run(int64_t k) {
    row_team.lane = optimisation_barrier(row_team.lane);
    if constexpr (tile) fill_tile(k);
    const Access access = this->access(k);
    if (k == 0) read_teacher(access);
    read_student(access);
    // The row's single numbers are read while its logits are in flight.
    CheckedConstants<Scalar> constants = checked_constants<Scalar>(parameters, k, row);
    const Scalar label_logit = constants.label < 0 ? Scalar(0)
                                                   : access.student_number(constants.label);
    // No block may write into another's memory before that block runs.
    if (k == 0 && plan.cluster_blocks > 1) team.cluster_barrier();
    if (k == 0) look_at_mask();
    if (dead) set_dead(constants);

    RowNumbers<Scalar> numbers;
    Exponentials exponentials;
    Scalar sums[terms] = {0, 0, 0, 0};
    numbers.set_rates(constants);
    find_maxima(numbers);
    find_sums(numbers, exponentials);
    row_team.lane = optimisation_barrier(row_team.lane);
    find_gradient(access, constants, numbers, exponentials, sums);
    if (leader) write_results(parameters, constants, numbers, k, row, label_logit, sums);
    if constexpr (tile) empty_tile(k);
  }
};

template <class Access, bool sloped, bool tile>
struct RowKernel {
  static constexpr int max_threads = max_warps * warp_lanes;

  RowParameters parameters;
  RowPlan plan;

  template <class Team>
  KD_INLINE void operator()(const Team& team) const {
    RowPass<Access, sloped, tile, Team> pass(parameters, plan, team);
    for (int64_t k = 0; k < parameters.students; ++k) pass.run(k);
  }
};

}  // namespace KD_BODY
}  // namespace kd
