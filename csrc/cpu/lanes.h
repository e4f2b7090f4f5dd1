// Shared by both lane layouts: the constants, sums and results of one vector of rows, one row per
// lane.
#pragma once

#include <limits>

#include "../half.h"
#include "body.h"

namespace kd {
namespace KD_BODY {

// x -> 2^(x rate) for x <= 0.
template <class Ops>
struct Exponential {
  using V = typename Ops::V;
  V rate, least;
  explicit KD_INLINE Exponential(V rate)
      : rate(rate), least(Ops::set(Ops::least_exponent) / rate) {}
  KD_INLINE V operator()(V x) const { return Ops::exp2(x, rate, least); }
};

// How exp(s - max), for r, is computed. With e = exp((s - max)/Ts) it is e^Ts: e itself, its square
// or its fourth power for Ts of 1, 2 and 4. Otherwise it takes a separate exponential.
enum class Power { none, same, square, fourth, general };

KD_INLINE Power power_of(const RowParameters& parameters) {
  if (parameters.labels == nullptr) return Power::none;
  if (parameters.student_temperature.data != nullptr) return Power::general;
  const double temperature = parameters.student_temperature.value;
  if (temperature == 1) return Power::same;
  if (temperature == 2) return Power::square;
  return temperature == 4 ? Power::fourth : Power::general;
}

template <class Ops>
KD_INLINE typename Ops::V exponential_at_one(Power power, typename Ops::V shifted,
                                             typename Ops::V exponential) {
  using Scalar = typename Ops::Scalar;
  if (power == Power::general) return Exponential<Ops>(Ops::set(Scalar(log2e)))(shifted);
  if (power == Power::square) return exponential * exponential;
  if (power == Power::fourth) {
    const auto square = exponential * exponential;
    return square * square;
  }
  return exponential;
}

// Stands for absent classes. It is finite, so that its differences are not NaN, and below every
// logit, so that its exponential is 0.
template <class Ops>
KD_INLINE typename Ops::V absent() {
  return Ops::set(std::numeric_limits<typename Ops::Scalar>::lowest());
}

template <class Ops>
struct LaneConstants {
  using V = typename Ops::V;
  using Scalar = typename Ops::Scalar;
  V student_rate, teacher_rate, inverse_student, inverse_difference;
  V kl_weight, ce_weight, student_gradient, ce_gradient;
  V alive;               // 0: fewer than two classes are left
  V label;               // as a number, or -1: no cross entropy
  int64_t labels[Ops::lanes];

  KD_INLINE LaneConstants(const RowParameters& parameters, const RowConstants<Scalar>* shared,
                          int64_t student, int64_t first, int count) {
    if (shared == nullptr)
      gather(parameters, student, first, count);
    else
      spread(parameters, *shared, first, count);
  }

 private:
  KD_INLINE void spread(const RowParameters& parameters, const RowConstants<Scalar>& shared,
                        int64_t first, int count) {
    Scalar numbers[Ops::lanes];
    for (int i = 0; i < Ops::lanes; ++i) {
      labels[i] = i < count ? counted_label(parameters, first + i) : -1;
      numbers[i] = Scalar(labels[i]);
    }
    label = Ops::load(numbers);
    student_rate = Ops::set(shared.student_rate);
    teacher_rate = Ops::set(shared.teacher_rate);
    inverse_student = Ops::set(shared.inverse_student);
    inverse_difference = Ops::set(shared.inverse_difference);
    kl_weight = Ops::set(shared.kl_weight);
    student_gradient = Ops::set(shared.student_gradient);
    const V zero = Ops::set(0.f);
    const auto unlabelled = Ops::less(label, zero);
    ce_weight = Ops::select(unlabelled, zero, Ops::set(shared.ce_weight));
    ce_gradient = Ops::select(unlabelled, zero, Ops::set(shared.ce_gradient));
    alive = Ops::set(1.f);
  }

  void gather(const RowParameters& parameters, int64_t student, int64_t first, int count) {
    Scalar values[10][Ops::lanes];
    for (int i = 0; i < Ops::lanes; ++i) {
      if (i >= count) {
        labels[i] = -1;
        for (auto& member : values) member[i] = member[0];
        continue;
      }
      const int64_t row = first + i;
      const auto c =
          row_constants<Scalar>(parameters, student, row, row_is_dead(parameters, row));
      const Scalar members[] = {c.student_rate,       c.teacher_rate,      c.inverse_student,
                                c.inverse_difference, c.kl_weight,         c.ce_weight,
                                c.student_gradient,   c.ce_gradient,       Scalar(c.label),
                                Scalar(!c.dead)};
      for (int member = 0; member < 10; ++member) values[member][i] = members[member];
      labels[i] = c.label;
    }
    V* const vectors[] = {&student_rate,       &teacher_rate, &inverse_student,
                          &inverse_difference, &kl_weight,    &ce_weight,
                          &student_gradient,   &ce_gradient,  &label,
                          &alive};
    for (int member = 0; member < 10; ++member) *vectors[member] = Ops::load(values[member]);
  }
};

// Sums over classes, with s' = s - max s and t' = t - max t.
template <class Ops>
struct LaneSums {
  using V = typename Ops::V;
  V student_max, teacher_max;
  V student, teacher, at_one;  // Zs, Zt, Z1
  V difference;                // sum exp(t'/Tt) (t' - s')
};

// The plain form of the divergence has an error of about 1e-7, whatever its size. Below this value
// the sum of kl_term, one more pass, keeps the digits.
constexpr float least_plain_divergence = 1.f / 64;

// Values that follow from the sums alone.
template <class Ops>
struct LaneResults {
  using V = typename Ops::V;
  V student_norm, teacher_norm, ce_norm;  // 1/Zs, 1/Zt, ce_gradient/Z1
  V log_ratio;                            // log(Zt / Zs)
  V kl;                                   // the plain form if it serves, else below the least

  // KL = sum p (t' - s') / T - log(Zt / Zs) for one temperature T.
  KD_INLINE LaneResults(const LaneSums<Ops>& sums, const LaneConstants<Ops>& constants) {
    const V one = Ops::set(1.f), zero = Ops::set(0.f);
    student_norm = one / sums.student;
    teacher_norm = one / sums.teacher;
    ce_norm = constants.ce_gradient / sums.at_one;
    log_ratio = Ops::log(sums.teacher / sums.student);
    const V mean = sums.difference / sums.teacher;
    kl = Ops::select(Ops::equal(constants.inverse_difference, zero),
                     Ops::fma(mean, constants.inverse_student, zero - log_ratio), zero);
  }
};

// Whether the plain form serves. It does not in float64, where its error is too large, nor where it
// is NaN: infinite logits need the selections of kl_term.
template <class Scalar>
KD_INLINE bool plain_form_serves(Scalar kl) {
  return sizeof(Scalar) == 4 && kl > least_plain_divergence;
}

// weighted() of row_math.h, lane by lane. Neither kl nor ce is ever -inf.
template <class Ops>
KD_INLINE typename Ops::V weighted_lanes(typename Ops::V weight, typename Ops::V value) {
  const auto zero = Ops::set(0.f);
  const auto finite = Ops::select(Ops::equal(value, Ops::set(INFINITY)), zero, value);
  return weight * Ops::select(Ops::equal(weight, zero), finite, value);
}

// Writes loss, kl and ce of rows first to first + count.
template <class Ops, class T>
KD_INLINE void write_lanes(const RowParameters& parameters, const LaneConstants<Ops>& constants,
                           const LaneSums<Ops>& sums, typename Ops::V kl, const T* student_rows,
                           int64_t student_stride, int64_t student, int64_t first, int count) {
  using V = typename Ops::V;
  using Scalar = typename Ops::Scalar;
  const V zero = Ops::set(0.f);
  Scalar label_logits[Ops::lanes] = {};
  for (int i = 0; i < count; ++i)
    if (constants.labels[i] >= 0)
      label_logits[i] = Scalar(to_float(student_rows[i * student_stride + constants.labels[i]]));
  // log Z1 - (s_y - max s): both are small. logsumexp - s_y would lose digits to a common offset.
  const V ce = Ops::select(Ops::less(constants.label, zero), zero,
                           Ops::log(sums.at_one) - (Ops::load(label_logits) - sums.student_max));
  kl = Ops::select(Ops::equal(constants.alive, zero), zero, kl);
  const int64_t at = student * parameters.rows + first;
  Ops::store(static_cast<Scalar*>(parameters.kl) + at, kl, count);
  Ops::store(static_cast<Scalar*>(parameters.ce) + at, ce, count);
  Ops::store(static_cast<Scalar*>(parameters.loss) + at,
             weighted_lanes<Ops>(constants.kl_weight, kl) +
                 weighted_lanes<Ops>(constants.ce_weight, ce),
             count);
}

// Derivatives by the temperatures, from the slopes of row_math.h. The two means of slope_t are
// separate arguments: `spread` = sum p t' and `spread_ratio` = sum p t' d.
template <class Scalar>
void write_lane_slopes(const RowParameters& parameters, int64_t student, int64_t row, Scalar kl,
                       Scalar slope, Scalar spread, Scalar spread_ratio) {
  write_temperature_gradients(
      parameters, row_constants<Scalar>(parameters, student, row, row_is_dead(parameters, row)),
      student, row, kl, slope, spread * kl - spread_ratio);
}

}  // namespace KD_BODY
}  // namespace kd
