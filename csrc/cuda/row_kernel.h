// Keeps a row in the registers of its team: a few lanes, a warp, a block, or a cluster of blocks.
// Each logit is read once and each gradient written once. Otherwise only a few numbers per row
// move.
//
// In 16 bits a team of a block or more processes many rows, one after the other. While it computes
// one, it copies the next into shared memory, so that the device's memory is never idle. Each
// thread copies the chunks that it reads itself and needs no barrier for them.
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
  bool staged;         // the next row is copied into shared memory
  int row_shift, cluster_shift;  // log2 of row_threads up to 32, and of cluster_blocks
  int64_t row_step;    // from a team's row to its next one
};

// A warp's values of its part of a row, relative to the warp's own maxima.
struct WarpPart {
  enum Place { student_max, teacher_max, student_sum, teacher_sum, sum_at_one, cross, size };
};

// Shared memory of a team of a block or more. `parts` alternates from row to row: the barrier of
// the next row protects the values of this one.
template <class Scalar>
struct RowShared {
  Partials<Scalar, WarpPart::size> parts[2];
  Partials<Scalar, terms> all_terms;
  Partials<Scalar, 1> kept;
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
  // In double, and for the derivatives by the temperatures, every class adds its term.
  static constexpr bool always_terms = sloped || sizeof(Scalar) == 8;
  // Below, the divergence from sums loses too many digits.
  static constexpr Scalar least_from_sums = Scalar(1) / 32;

  const RowParameters& parameters;
  const RowPlan& plan;
  const SharedConstants<Scalar>& shared_constants;
  const Team& team;
  RowTeam row_team;
  int64_t first_row;  // of the block, if its teams are parts of a warp
  int64_t row;        // of this thread; threads without a row repeat the last one
  bool leader;        // writes the row's single numbers
  bool inside;
  bool odd = false;  // which of two buffers this row uses

  // A thread's classes of a row. Exponentials of the teacher are relative to the warp's own
  // maximum. They take the place of its logits if they are as wide. This is no member of the pass:
  // what one row leaves must not take registers while the next is read.
  struct Classes {
    Held student[chunks], teacher[chunks];
    Scalar wide_exponentials[Access::packed ? chunks * width : 1];

    KD_INLINE void set_exponential(int j, int i, Scalar value) {
      if constexpr (Access::packed)
        wide_exponentials[j * width + i] = value;
      else
        teacher[j].set(i, value);
    }
    KD_INLINE Scalar exponential(int j, int i) const {
      if constexpr (Access::packed)
        return wide_exponentials[j * width + i];
      else
        return teacher[j].get(i);
    }
  };

  KD_INLINE RowPass(const RowParameters& parameters, const RowPlan& plan,
                    const SharedConstants<Scalar>& shared_constants, const Team& team)
      : parameters(parameters), plan(plan), shared_constants(shared_constants), team(team) {
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

  // The values of a team of a block or more, behind the threads' copies of the next row.
  KD_INLINE RowShared<Scalar>* shared() const {
    const int copies = plan.staged ? staged_bytes(plan.chunks, team.threads()) : 0;
    return reinterpret_cast<RowShared<Scalar>*>(team.shared() + copies);
  }
  static KD_INLINE int staged_bytes(int chunks, int threads) {
    return 2 * chunks * threads * int(sizeof(Held));
  }
  KD_INLINE Held* staged(bool of_teacher, int j) const {
    const int place = (of_teacher ? plan.chunks : 0) + j;
    return reinterpret_cast<Held*>(team.shared()) + place * team.threads() + team.thread();
  }

  // The row that this team computes after row `of_row` of student k: that of the next student, or
  // of the first student further on. Returns whether there is one.
  KD_INLINE bool advance(int& k, int64_t& of_row) const {
    if (++k == int(parameters.students)) {
      k = 0;
      of_row += plan.row_step;
    }
    return of_row < parameters.rows;
  }

  KD_INLINE void stage_next(int k) const {
    if constexpr (Access::stages && !tile) {
      int64_t next_row = row;
      if (!plan.staged || !advance(k, next_row)) return;
      const Access next(parameters, k, next_row);
      over_chunks([&](int j, int chunk) {
        next.stage_student(team, chunk, staged(false, j));
        next.stage_teacher(team, chunk, staged(true, j));
      });
    }
  }

  KD_INLINE void read_row(const Access& access, bool was_staged, Classes& row) const {
    if constexpr (Access::stages && !tile) {
      if (was_staged) {
        team.wait_for_copies();
        over_chunks([&](int j, int chunk) {
          row.student[j] = access.staged_student(chunk, staged(false, j));
          row.teacher[j] = access.staged_teacher(chunk, staged(true, j));
        });
        return;
      }
    }
    over_chunks([&](int j, int chunk) {
      row.teacher[j] = access.template read_teacher<tile>(chunk);
    });
    over_chunks([&](int j, int chunk) {
      row.student[j] = access.template read_student<tile>(chunk);
    });
  }

  KD_INLINE bool fewer_than_two_kept() const {
    if (!Access::masks || parameters.class_mask == nullptr) return false;
    Scalar kept[1] = {0};
    for (int64_t k = row_team.lane; k < parameters.classes; k += row_team.size)
      kept[0] += Scalar(class_kept(parameters, row, k));
    reduce<Sums>(team, row_team, kept, &shared()->kept);
    return kept[0] < 2;
  }

  // Over the team, or over this warp's part of it. The team's next row is staged meanwhile.
  KD_INLINE void find_maxima(int k, const Classes& row, RowNumbers<Scalar>& numbers) const {
    Largest<Held> student, teacher;
    over_chunks([&](int j, int) {
      student.template add<width>(row.student[j]);
      teacher.template add<width>(row.teacher[j]);
    });
    Scalar maxima[2] = {student.get(), teacher.get()};
    // The maxima depend on every copied logit, so that the copies may be overwritten now.
    stage_next(k);
    reduce_lanes<Maxima>(team, lanes_of_team(), maxima);
    numbers.student_max = maxima[0];
    numbers.teacher_max = maxima[1];
  }
  KD_INLINE int lanes_of_team() const {
    return row_team.size < warp_lanes ? row_team.size : warp_lanes;
  }

  // Sums relative to the maxima, over the same lanes. Returns sum_k exp(t'_k / T) (t'_k - s'_k).
  KD_INLINE Scalar find_sums(Classes& row, RowNumbers<Scalar>& numbers) const {
    // Only -inf: any finite number in its place gives sums of 0.
    RowNumbers<Scalar> base = numbers;
    if (base.student_max == -INFINITY) base.student_max = 0;
    if (base.teacher_max == -INFINITY) base.teacher_max = 0;
    Scalar sums[4] = {0, 0, 0, 0};
    over_chunks([&](int j, int) {
      KD_UNROLL
      for (int i = 0; i < width; ++i) {
        const Scalar s = Scalar(row.student[j].get(i)) - base.student_max;
        const Scalar t = Scalar(row.teacher[j].get(i)) - base.teacher_max;
        const Scalar e = power_of_two(t * base.teacher_rate);
        sums[0] += power_of_two(s * base.student_rate);
        sums[1] += e;
        sums[2] += power_of_two(s * Scalar(log2e));
        // With t = -inf the exponential is 0, and this is 0. With s = -inf alone it is infinite or
        // NaN, and the classes are added one by one.
        if constexpr (!always_terms)
          sums[3] = Ops<Scalar>::fma(e, larger(t - s, Scalar(-1e30f)), sums[3]);
        row.set_exponential(j, i, e);
      }
    });
    reduce_lanes<Sums>(team, lanes_of_team(), sums);
    numbers.student_sum = sums[0];
    numbers.teacher_sum = sums[1];
    numbers.sum_at_one = sums[2];
    return sums[3];
  }

  // Combines the warps of a team. Returns what this thread's exponentials of the teacher are
  // to be multiplied by.
  KD_INLINE Scalar join_warps(RowNumbers<Scalar>& numbers, Scalar& cross) const {
    if (row_team.size <= warp_lanes) return 1;
    const Scalar own_max = numbers.teacher_max;
    const int lane = team.thread() % warp_lanes;
    const int warps = row_team.size / warp_lanes, warp = row_team.lane / warp_lanes;
    const int blocks = row_team.size / team.threads();
    Partials<Scalar, WarpPart::size>* const parts = &shared()->parts[odd ? 1 : 0];
    const Scalar values[WarpPart::size] = {numbers.student_max, numbers.teacher_max,
                                           numbers.student_sum, numbers.teacher_sum,
                                           numbers.sum_at_one,  cross};
    if (lane < blocks) {
      auto* const there = blocks == 1 ? parts : team.remote(parts, lane);
      KD_UNROLL
      for (int i = 0; i < WarpPart::size; ++i) write(&there->values[i][warp], values[i]);
    }
    if (blocks == 1)
      team.barrier();
    else
      team.cluster_barrier();

    const auto part = [&](WarpPart::Place value, int w) { return read(&parts->values[value][w]); };
    Scalar maxima[2] = {-INFINITY, -INFINITY};
    for (int w = lane; w < warps; w += warp_lanes) {
      maxima[0] = larger(maxima[0], part(WarpPart::student_max, w));
      maxima[1] = larger(maxima[1], part(WarpPart::teacher_max, w));
    }
    reduce_lanes<Maxima>(team, warp_lanes, maxima);
    Scalar sums[4] = {0, 0, 0, 0};
    for (int w = lane; w < warps; w += warp_lanes) {
      const Scalar student_max = part(WarpPart::student_max, w);
      const Scalar teacher_max = part(WarpPart::teacher_max, w);
      const Scalar teacher_sum = part(WarpPart::teacher_sum, w);
      const Scalar by = rescaling(teacher_max, maxima[1], numbers.teacher_rate);
      sums[0] += part(WarpPart::student_sum, w) *
                 rescaling(student_max, maxima[0], numbers.student_rate);
      sums[1] += teacher_sum * by;
      sums[2] += part(WarpPart::sum_at_one, w) *
                 rescaling(student_max, maxima[0], Scalar(log2e));
      // Each t' - s' changes by the same number. A warp without classes has no maxima.
      const Scalar moved = (teacher_max - maxima[1]) - (student_max - maxima[0]);
      if (teacher_sum != 0)
        sums[3] += by * Ops<Scalar>::fma(teacher_sum, moved, part(WarpPart::cross, w));
    }
    reduce_lanes<Sums>(team, warp_lanes, sums);
    numbers.student_max = maxima[0];
    numbers.teacher_max = maxima[1];
    numbers.student_sum = sums[0];
    numbers.teacher_sum = sums[1];
    numbers.sum_at_one = sums[2];
    cross = sums[3];
    return rescaling(own_max, maxima[1], numbers.teacher_rate);
  }

  // The divergence of equal temperatures, with an error of a few 1e-7 whatever its size.
  KD_INLINE Scalar divergence_from_sums(const RowNumbers<Scalar>& numbers, Scalar cross) const {
    const Scalar student_norm = reciprocal_of_sum(numbers.student_sum);
    const Scalar log_sums =
        logarithm(quotient(numbers.teacher_sum, numbers.student_sum, student_norm));
    return Ops<Scalar>::fma(cross * reciprocal_of_sum(numbers.teacher_sum),
                            numbers.inverse_student, -log_sums);
  }

  KD_INLINE void write_gradient(const Access& access, const CheckedConstants<Scalar>& constants,
                                int chunk, Scalar (&gradient)[width]) const {
    if (parameters.gradient == nullptr || !inside) return;
    subtract_at_label(constants.label, access.first_class(chunk), constants.ce_gradient, gradient);
    if constexpr (Access::masks) {
      if (constants.dead) gradient[0] = 0;
    }
    access.template write_gradient<tile>(chunk, gradient);
  }

  // The gradient alone.
  KD_INLINE void find_gradient(const Classes& row, const Access& access,
                               const CheckedConstants<Scalar>& constants,
                               const RowNumbers<Scalar>& numbers, Scalar teacher_factor) const {
    if (parameters.gradient == nullptr) return;
    const GradientArithmetic<Scalar> arithmetic(constants, numbers, teacher_factor);
    over_chunks([&](int j, int chunk) {
      Scalar gradient[width];
      KD_UNROLL
      for (int i = 0; i < width; ++i)
        gradient[i] = arithmetic.gradient(row.student[j].get(i), row.exponential(j, i));
      write_gradient(access, constants, chunk, gradient);
    });
  }

  // The gradient, and the terms of every class, added one by one. The teacher's logits are read
  // again, because their registers hold exponentials.
  KD_INLINE void find_gradient_and_terms(const Classes& row, const Access& access,
                                         const CheckedConstants<Scalar>& constants,
                                         const RowNumbers<Scalar>& numbers,
                                         Scalar (&sums)[terms]) const {
    const ClassArithmetic<Scalar, sloped> arithmetic(parameters, constants, numbers);
    over_chunks([&](int j, int chunk) {
      const Held teacher = access.template read_teacher<tile>(chunk);
      Scalar gradient[width];
      KD_UNROLL
      for (int i = 0; i < width; ++i) {
        const Scalar s = row.student[j].get(i), t = teacher.get(i);
        gradient[i] = arithmetic.add(s, t, numbers.student_exponential(s),
                                     numbers.teacher_exponential(t), sums);
      }
      write_gradient(access, constants, chunk, gradient);
    });
  }

  KD_INLINE void join_terms(Scalar (&sums)[terms]) const {
    if constexpr (sloped) {
      reduce<Sums>(team, row_team, sums, &shared()->all_terms);
    } else {
      Scalar kl[1] = {sums[divergence]};
      reduce<Sums>(team, row_team, kl,
                   reinterpret_cast<Partials<Scalar, 1>*>(&shared()->all_terms));
      sums[divergence] = kl[0];
    }
  }

  KD_INLINE Scalar logit_of_label(int64_t k) const {
    const int64_t label = counted_label(parameters, row);
    return label < 0 ? Scalar(0) : access(k).student_number(label);
  }
  KD_INLINE CheckedConstants<Scalar> constants_of(int64_t k, bool dead) const {
    auto constants = shared_constants.known
                         ? shared_constants.constants
                         : checked_constants_without_label<Scalar>(parameters, k, row);
    add_label(parameters, k, row, constants);
    if (dead) set_dead(constants);
    return constants;
  }

  // Maxima and sums of the row. Returns the factor of the teacher's exponentials.
  KD_INLINE Scalar find_numbers(int k, bool was_staged, Classes& classes,
                                RowNumbers<Scalar>& numbers, Scalar& cross) const {
    read_row(access(k), was_staged, classes);
    if (shared_constants.known)
      numbers.set_rates(shared_constants.constants);
    else
      numbers.set_rates(row_value<Scalar>(parameters.student_temperature, k, row),
                        row_value<Scalar>(parameters.teacher_temperature, k, row));
    find_maxima(k, classes, numbers);
    cross = find_sums(classes, numbers);
    return join_warps(numbers, cross);
  }

  KD_INLINE void run(int k, bool was_staged) {
    row_team.lane = optimisation_barrier(row_team.lane);
    if constexpr (tile) fill_tile(k);
    const bool dead = fewer_than_two_kept();
    // Read before the gradient may take its place, and while the logits are in flight.
    const Scalar label_logit = logit_of_label(k);
    Classes classes;
    RowNumbers<Scalar> numbers;
    Scalar cross;
    const Scalar teacher_factor = find_numbers(k, was_staged, classes, numbers, cross);

    // Registers are scarce until here, so that addresses and constants are computed only now.
    row_team.lane = optimisation_barrier(row_team.lane);
    row = optimisation_barrier(row);
    const Access access = this->access(k);
    const CheckedConstants<Scalar> constants = constants_of(k, dead);
    Scalar sums[terms] = {0, 0, 0, 0};
    Scalar from_sums = 0;
    bool by_terms = always_terms;
    if constexpr (!always_terms) {
      from_sums = divergence_from_sums(numbers, cross);
      by_terms = !(from_sums > least_from_sums && from_sums < INFINITY) ||
                 numbers.inverse_student != numbers.inverse_teacher;
    }
    if (by_terms)
      find_gradient_and_terms(classes, access, constants, numbers, sums);
    else
      find_gradient(classes, access, constants, numbers, teacher_factor);
    // All lanes of a warp take part in a shuffle, whatever their rows need.
    if (always_terms || team.any(by_terms)) join_terms(sums);
    if (!by_terms) sums[divergence] = from_sums;
    if (leader) write_results(parameters, constants, numbers, k, row, label_logit, sums);
    if constexpr (tile) empty_tile(k);
    odd = !odd;
  }

  KD_INLINE void run_all() {
    // No block may write into another's memory before that block runs.
    if (plan.cluster_blocks > 1) team.cluster_barrier();
    bool was_staged = false;
    int k = 0;
    do {
      run(k, was_staged);
      was_staged = plan.staged;
    } while (advance(k, row));
  }
};

template <class Access, bool sloped, bool tile>
struct RowKernel {
  static constexpr int max_threads = max_warps * warp_lanes;

  RowParameters parameters;
  RowPlan plan;
  SharedConstants<typename Access::Scalar> shared_constants;

  template <class Team>
  KD_INLINE void operator()(const Team& team) const {
    RowPass<Access, sloped, tile, Team>(parameters, plan, shared_constants, team).run_all();
  }
};

}  // namespace KD_BODY
}  // namespace kd
