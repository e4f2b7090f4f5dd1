// Chooses the body for this CPU, distributes rows over torch's threads and sums the rows' losses.
#define KD_BODY driver
#include "../driver.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "body.h"
#include "../half.h"

namespace kd {
namespace {

// Below this many logits a second thread costs more than it saves.
constexpr int64_t elements_per_thread = 32768;

struct NamedBody {
  const char* name;
  Body run;
  int lanes;
  bool (*supported)();
};

constexpr NamedBody bodies[] = {
#ifdef KD_WITH_X86_BODIES
    {"avx512", run_avx512, 16,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
     }},
    {"avx2", run_avx2, 8,
     [] {
       return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
              __builtin_cpu_supports("f16c");
     }},
#endif
    {"plain", run_plain, 4, [] { return true; }},
};

const NamedBody* best_body() {
  return std::find_if(std::begin(bodies), std::end(bodies),
                      [](const NamedBody& body) { return body.supported(); });
}

const NamedBody*& current_body() {
  static const NamedBody* body = best_body();
  return body;
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// Scratch memory of this thread, reused by later calls. It grows to the largest row seen.
void* thread_scratch(int64_t bytes) {
  thread_local std::unique_ptr<void, Free> memory;
  thread_local int64_t size = 0;
  if (size < bytes) {
    size = (bytes + 63) / 64 * 64;
    memory.reset(std::aligned_alloc(64, size));
    if (memory == nullptr) throw std::bad_alloc();
  }
  return memory.get();
}

// Eight running sums, so that additions overlap; the order does not depend on threads.
template <class Scalar>
double sum(const Scalar* values, int64_t count) {
  double parts[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (int j = 0; j < 8; ++j) parts[j] += values[i + j];
  for (; i < count; ++i) parts[i % 8] += values[i];
  return ((parts[0] + parts[1]) + (parts[2] + parts[3])) +
         ((parts[4] + parts[5]) + (parts[6] + parts[7]));
}

template <class Scalar>
void reduce(const ReduceParameters& parameters) {
  const int64_t rows = parameters.rows;
  for (int i = 0; i < row_values; ++i)
    for (int64_t k = 0; k < parameters.students; ++k)
      static_cast<Scalar*>(parameters.out[i])[k] =
          Scalar(parameters.factor *
                 sum(static_cast<const Scalar*>(parameters.values[i]) + k * rows, rows));
}

template <class Scalar, class T>
void scale(const ScaleParameters& parameters) {
  const int64_t classes = parameters.classes, total = parameters.students * parameters.rows;
  const int64_t grain = std::max<int64_t>(1, elements_per_thread / classes);
  at::parallel_for(0, total, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t student = i / parameters.rows, row = i % parameters.rows;
      Scalar factor = static_cast<const Scalar*>(
          parameters.grad_loss)[student * parameters.grad_student_stride +
                                row * parameters.grad_row_stride];
      if (parameters.gradient_scale != nullptr) factor *= parameters.gradient_scale[i];
      const T* from = static_cast<const T*>(parameters.gradient) + i * classes;
      T* to = static_cast<T*>(parameters.out) + i * classes;
      for (int64_t c = 0; c < classes; ++c) driver::from_float(to[c], driver::to_float(from[c]) * factor);
    }
  });
}

}  // namespace

void cpu_rows(const RowParameters& parameters) {
  const bool wide = parameters.compute_type == Type::float64;
  const NamedBody& body = *current_body();
  const Body run = wide ? run_plain_double : body.run;
  const int lanes = wide ? 1 : body.lanes;
  const auto layout = driver::scratch_layout(parameters, lanes);
  const int64_t bytes = (layout.kept + layout.staged) * (wide ? 8 : 4);
  const int64_t per_row = parameters.classes * parameters.students;
  const int64_t grain = elements_per_thread / std::clamp<int64_t>(per_row, 1, elements_per_thread);
  at::parallel_for(0, parameters.rows, grain, [&](int64_t begin, int64_t end) {
    run(parameters, begin, end, bytes == 0 ? nullptr : thread_scratch(bytes));
  });
}

void cpu_reduce(const ReduceParameters& parameters) {
  return parameters.compute_type == Type::float64 ? reduce<double>(parameters)
                                                  : reduce<float>(parameters);
}

void cpu_scale(const ScaleParameters& parameters) {
  const bool wide = parameters.compute_type == Type::float64;
  switch (parameters.type) {
    case Type::float32:
      return wide ? scale<double, float>(parameters) : scale<float, float>(parameters);
    case Type::bfloat16:
      return wide ? scale<double, driver::BFloat16>(parameters)
                  : scale<float, driver::BFloat16>(parameters);
    case Type::float16:
      return wide ? scale<double, driver::Float16>(parameters)
                  : scale<float, driver::Float16>(parameters);
    case Type::float64: return scale<double, double>(parameters);
  }
}

const char* cpu_body() { return current_body()->name; }

bool set_cpu_body(const char* name) {
  for (const NamedBody& body : bodies)
    if (std::strcmp(body.name, name) == 0 && body.supported()) {
      current_body() = &body;
      return true;
    }
  return false;
}

}  // namespace kd
