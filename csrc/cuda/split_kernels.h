// Splits a row into parts, one block each: for rows that no cluster holds, and for devices without
// clusters. There are three kernels: the maxima and sums of each part, the gradient and divergence
// of each part, and the rows' results. The second finds the logits in the L2 cache if the rows of a
// launch fit into it.
//
// Parts are combined in the order of their numbers, so results do not depend on timing.
#pragma once

#include "access.h"
#include "reduce.h"

namespace kd {
namespace KD_BODY {

struct SplitPlan {
  int parts;
  int64_t part_chunks;  // Access::width classes each
  int64_t first_row;    // rows of this launch
  int64_t rows;
};

// Where the first kernel stores its results of a part.
struct Part {
  enum Place { student_max, teacher_max, student_sum, teacher_sum, sum_at_one, kept, size };
};

template <class Scalar>
struct SplitWorkspace {
  Scalar* data;  // [K, B, parts, Part::size], then [K, B, parts, terms]

  static KD_INLINE int64_t numbers(const RowParameters& p, int parts) {
    return p.students * p.rows * parts * (Part::size + terms);
  }
  KD_INLINE Scalar* sums(const RowParameters& p, int parts, int64_t k, int64_t row) const {
    return data + (k * p.rows + row) * parts * Part::size;
  }
  KD_INLINE Scalar* part_terms(const RowParameters& p, int parts, int64_t k, int64_t row) const {
    return data + p.students * p.rows * parts * Part::size + (k * p.rows + row) * parts * terms;
  }
};

template <class Scalar>
struct SplitShared {
  Partials<Scalar, 2> maxima;
  Partials<Scalar, 4> sums;
  Partials<Scalar, terms> all_terms;
};

template <class Scalar>
KD_INLINE Scalar rescaled(Scalar sum, Scalar from, Scalar to, Scalar rate) {
  return sum * rescaling(from, to, rate);
}

// Maxima and sums of exponentials that accept further logits.
template <class Scalar>
struct RunningSums {
  RowNumbers<Scalar> row;
  Scalar kept = 0;

  KD_INLINE explicit RunningSums(const RowConstants<Scalar>& constants) {
    row.student_max = row.teacher_max = -INFINITY;
    row.student_sum = row.teacher_sum = row.sum_at_one = 0;
    row.set_rates(constants.student_temperature, constants.teacher_temperature);
  }

  KD_INLINE void rescale(Scalar student_max, Scalar teacher_max) {
    row.student_sum =
        rescaled(row.student_sum, row.student_max, student_max, row.student_rate);
    row.sum_at_one = rescaled(row.sum_at_one, row.student_max, student_max, Scalar(log2e));
    row.teacher_sum =
        rescaled(row.teacher_sum, row.teacher_max, teacher_max, row.teacher_rate);
    row.student_max = student_max;
    row.teacher_max = teacher_max;
  }

  template <class Held, int width>
  KD_INLINE void add(const Held& student, const Held& teacher) {
    Scalar student_max = row.student_max, teacher_max = row.teacher_max;
    KD_UNROLL
    for (int i = 0; i < width; ++i) {
      student_max = larger(student_max, Scalar(student.get(i)));
      teacher_max = larger(teacher_max, Scalar(teacher.get(i)));
    }
    rescale(student_max, teacher_max);
    // Only -inf so far: any finite number in its place gives sums of 0.
    RowNumbers<Scalar> base = row;
    if (base.student_max == -INFINITY) base.student_max = 0;
    if (base.teacher_max == -INFINITY) base.teacher_max = 0;
    KD_UNROLL
    for (int i = 0; i < width; ++i) {
      row.student_sum += base.student_exponential(student.get(i));
      row.teacher_sum += base.teacher_exponential(teacher.get(i));
      row.sum_at_one += base.exponential_at_one(student.get(i));
    }
  }

  // The team's totals, in every thread.
  template <class Team>
  KD_INLINE void join(const Team& team, const RowTeam& row_team, SplitShared<Scalar>* shared) {
    Scalar maxima[2] = {row.student_max, row.teacher_max};
    reduce<Maxima>(team, row_team, maxima, &shared->maxima);
    rescale(maxima[0], maxima[1]);
    Scalar sums[4] = {row.student_sum, row.teacher_sum, row.sum_at_one, kept};
    reduce<Sums>(team, row_team, sums, &shared->sums);
    row.student_sum = sums[0];
    row.teacher_sum = sums[1];
    row.sum_at_one = sums[2];
    kept = sums[3];
  }

  // Adds the results of the first kernel. Each thread of the team takes some of the parts.
  KD_INLINE void add_parts(const Scalar* part_sums, int parts, const RowTeam& row_team) {
    const auto place = [&](int part, Part::Place i) {
      return read(part_sums + part * Part::size + i);
    };
    Scalar student_max = row.student_max, teacher_max = row.teacher_max;
    for (int i = row_team.lane; i < parts; i += row_team.size) {
      student_max = larger(student_max, place(i, Part::student_max));
      teacher_max = larger(teacher_max, place(i, Part::teacher_max));
    }
    rescale(student_max, teacher_max);
    for (int i = row_team.lane; i < parts; i += row_team.size) {
      const Scalar from_student = place(i, Part::student_max);
      const Scalar from_teacher = place(i, Part::teacher_max);
      row.student_sum +=
          rescaled(place(i, Part::student_sum), from_student, student_max, row.student_rate);
      row.teacher_sum +=
          rescaled(place(i, Part::teacher_sum), from_teacher, teacher_max, row.teacher_rate);
      row.sum_at_one +=
          rescaled(place(i, Part::sum_at_one), from_student, student_max, Scalar(log2e));
      kept += place(i, Part::kept);
    }
  }
};

// The part that a block of a split launch works on.
struct PartPosition {
  RowTeam row_team;
  int64_t row, first_chunk, last_chunk;
  int part;

  template <class Team>
  KD_INLINE PartPosition(const Team& team, const SplitPlan& plan) {
    row_team.size = team.threads();
    row_team.lane = team.thread();
    row = plan.first_row + team.block() / plan.parts;
    part = int(team.block() % plan.parts);
    first_chunk = part * plan.part_chunks;
    last_chunk = first_chunk + plan.part_chunks;
  }

  // Calls body(chunk) for each of this thread's chunks.
  template <class Body>
  KD_INLINE void over_chunks(Body body) const {
    for (int64_t c = first_chunk + row_team.lane; c < last_chunk; c += row_team.size) body(c);
  }
};

// The constants and sums of a row, in every thread, from the first kernel's parts.
template <class Scalar>
struct SummedRow {
  CheckedConstants<Scalar> constants;
  RunningSums<Scalar> sums;

  template <class Team>
  KD_INLINE SummedRow(const RowParameters& parameters, const SplitWorkspace<Scalar>& workspace,
                      int parts, int64_t k, int64_t row, const Team& team, const RowTeam& row_team,
                      SplitShared<Scalar>* shared)
      : constants(checked_constants<Scalar>(parameters, k, row)), sums(constants) {
    sums.add_parts(workspace.sums(parameters, parts, k, row), parts, row_team);
    sums.join(team, row_team, shared);
    if (parameters.class_mask != nullptr && sums.kept < 2) set_dead(constants);
  }
};

constexpr int split_threads = 256;

template <class Access>
struct SplitSumsKernel {
  using Scalar = typename Access::Scalar;
  static constexpr int max_threads = split_threads;

  RowParameters parameters;
  SplitPlan plan;
  SplitWorkspace<Scalar> workspace;

  template <class Team>
  KD_INLINE void operator()(const Team& team) const {
    const PartPosition at(team, plan);
    auto* const shared = reinterpret_cast<SplitShared<Scalar>*>(team.shared());
    for (int64_t k = 0; k < parameters.students; ++k) {
      const Access access(parameters, k, at.row);
      RunningSums<Scalar> sums(checked_constants<Scalar>(parameters, k, at.row));
      at.over_chunks([&](int64_t c) {
        sums.template add<typename Access::Held, Access::width>(access.read_student(c),
                                                                access.read_teacher(c));
        if constexpr (Access::masks) sums.kept += Scalar(access.kept(c));
      });
      sums.join(team, at.row_team, shared);
      if (at.row_team.lane != 0) continue;
      Scalar* const to = workspace.sums(parameters, plan.parts, k, at.row) + at.part * Part::size;
      write(to + Part::student_max, sums.row.student_max);
      write(to + Part::teacher_max, sums.row.teacher_max);
      write(to + Part::student_sum, sums.row.student_sum);
      write(to + Part::teacher_sum, sums.row.teacher_sum);
      write(to + Part::sum_at_one, sums.row.sum_at_one);
      write(to + Part::kept, sums.kept);
    }
  }
};

template <class Access>
struct SplitGradientKernel {
  using Scalar = typename Access::Scalar;
  static constexpr int max_threads = split_threads;

  RowParameters parameters;
  SplitPlan plan;
  SplitWorkspace<Scalar> workspace;

  template <class Team>
  KD_INLINE void operator()(const Team& team) const {
    const PartPosition at(team, plan);
    auto* const shared = reinterpret_cast<SplitShared<Scalar>*>(team.shared());
    for (int64_t k = 0; k < parameters.students; ++k) {
      const SummedRow<Scalar> row(parameters, workspace, plan.parts, k, at.row, team, at.row_team,
                                  shared);
      Scalar part[terms] = {0, 0, 0, 0};
      if (wants_temperature_gradient(parameters))
        add_part<true>(at, k, row.constants, row.sums.row, part);
      else
        add_part<false>(at, k, row.constants, row.sums.row, part);
      reduce<Sums>(team, at.row_team, part, &shared->all_terms);
      if (at.row_team.lane != 0) continue;
      Scalar* const to = workspace.part_terms(parameters, plan.parts, k, at.row) + at.part * terms;
      for (int i = 0; i < terms; ++i) write(to + i, part[i]);
    }
  }

  template <bool sloped>
  KD_INLINE void add_part(const PartPosition& at, int64_t k,
                          const CheckedConstants<Scalar>& constants, const RowNumbers<Scalar>& row,
                          Scalar (&part)[terms]) const {
    const ClassArithmetic<Scalar, sloped> arithmetic(parameters, constants, row);
    const Access access(parameters, k, at.row);
    at.over_chunks([&](int64_t c) {
      const auto student = access.read_student(c), teacher = access.read_teacher(c);
      Scalar gradient[Access::width];
      KD_UNROLL
      for (int i = 0; i < Access::width; ++i) {
        const Scalar s = student.get(i), t = teacher.get(i);
        gradient[i] = arithmetic.add(s, t, arithmetic.row.student_exponential(s),
                                     arithmetic.row.teacher_exponential(t), part);
      }
      if (parameters.gradient == nullptr) return;
      arithmetic.add_label(constants.label, access.first_class(c), gradient);
      if constexpr (Access::masks) {
        if (constants.dead) gradient[0] = 0;
      }
      access.write_gradient(c, gradient);
    });
  }
};

// One warp per row of each student.
template <class Access>
struct SplitFinishKernel {
  using Scalar = typename Access::Scalar;
  static constexpr int max_threads = 128;

  RowParameters parameters;
  int parts;
  SplitWorkspace<Scalar> workspace;

  template <class Team>
  KD_INLINE void operator()(const Team& team) const {
    const int64_t all = parameters.students * parameters.rows;
    const int64_t item = (team.block() * team.threads() + team.thread()) / warp_lanes;
    const int64_t index = item < all ? item : all - 1;
    const int64_t k = index / parameters.rows, row = index % parameters.rows;
    const RowTeam row_team{warp_lanes, team.thread() % warp_lanes};
    const SummedRow<Scalar> summed(parameters, workspace, parts, k, row, team, row_team, nullptr);
    Scalar total[terms] = {0, 0, 0, 0};
    const Scalar* const part = workspace.part_terms(parameters, parts, k, row);
    for (int i = row_team.lane; i < parts; i += row_team.size)
      for (int term = 0; term < terms; ++term) total[term] += read(part + i * terms + term);
    reduce<Sums>(team, row_team, total, static_cast<Partials<Scalar, terms>*>(nullptr));
    const int64_t label = summed.constants.label;
    const Scalar label_logit =
        label < 0 ? Scalar(0) : Access(parameters, k, row).student_number(label);
    if (item < all && row_team.lane == 0)
      write_results(parameters, summed.constants, summed.sums.row, k, row, label_logit, total);
  }
};

}  // namespace KD_BODY
}  // namespace kd
