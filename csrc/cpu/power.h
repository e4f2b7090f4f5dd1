// The exponential at temperature 1, which cross entropy needs, from that at the student's
// temperature.
#pragma once

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

// How exp(s - max), for r, is had: from e = exp((s - max)/Ts) by e^Ts where that is e itself, its
// square or its fourth power, else by an exponential of its own.
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

}  // namespace KD_BODY
}  // namespace kd
