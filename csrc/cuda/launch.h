// Launching a kernel on a stream. The files that include launch_here.h instantiate it, each for
// some kernels, so that they compile side by side.
#pragma once

#include "plan.h"
#include "small_kernels.h"

namespace kd {
namespace KD_BODY {

template <class Kernel>
void launch(const Kernel& kernel, const Shape& shape, void* stream);

// Throws std::runtime_error for anything but success.
void check_launch(int error);

}  // namespace KD_BODY
}  // namespace kd
