// The interface of a device's driver: three functions over plain structs, free of torch. The CPU's
// are in cpu/driver.cpp, CUDA's in cuda/. binding.cpp calls both.
#pragma once

#include "row_parameters.h"

namespace kd {

constexpr int row_values = 3;  // loss, kl, ce

// For each of a row's values: out[k] = factor * sum_b values[k, b], of the compute type, in a fixed
// order.
struct ReduceParameters {
  int64_t students;
  int64_t rows;
  Type compute_type;
  double factor;
  const void* values[row_values];  // [K, B] each
  void* out[row_values];           // [K] each
};

// out[k, b, c] = gradient[k, b, c] * grad_loss[k, b] * gradient_scale[k, b], rounded once. `out` may
// be `gradient` itself. CUDA then neither reads nor writes it where the factor is exactly 1.
struct ScaleParameters {
  int64_t students;
  int64_t rows;
  int64_t classes;
  Type type;                    // of gradient and out
  Type compute_type;            // of grad_loss
  const void* gradient;         // [K, B, C]
  const float* gradient_scale;  // [K, B], or nullptr
  const void* grad_loss;
  int64_t grad_student_stride;  // 0 if one number serves all
  int64_t grad_row_stride;      // 0 after a reduction
  void* out;                    // [K, B, C]
};

void cpu_rows(const RowParameters& parameters);
void cpu_reduce(const ReduceParameters& parameters);
void cpu_scale(const ScaleParameters& parameters);

// The body that serves: "avx512", "avx2" or "plain".
const char* cpu_body();
// Chooses a body by name. Returns false if this machine or this build has none of that name.
bool set_cpu_body(const char* name);

#ifdef KD_WITH_CUDA
// All run on `stream` (a cudaStream_t) of the current device, without waiting for it.
int64_t cuda_workspace_bytes(const RowParameters& parameters);
void cuda_rows(const RowParameters& parameters, void* workspace, void* stream);
int64_t cuda_reduce_workspace_bytes(int64_t students, int64_t rows);
void cuda_reduce(const ReduceParameters& parameters, void* workspace, void* stream);
void cuda_scale(const ScaleParameters& parameters, void* stream);
// The id of the capture into a CUDA graph that is under way on the stream, or 0.
uint64_t cuda_capture(void* stream);
#endif

}  // namespace kd
