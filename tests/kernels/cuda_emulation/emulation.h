// The kernels' memory accesses, checked where a CPU runs them.
#pragma once

#include <cstddef>

namespace kd {

// Ends the emulated launch with an error unless the bytes lie in memory that the launch may use and
// the address is a multiple of `alignment`.
void check_access(const void* address, size_t bytes, size_t alignment);

}  // namespace kd
