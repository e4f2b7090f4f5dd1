// Rows whose student and teacher are bfloat16.
#include "launch_here.h"

namespace kd::device {

KD_INSTANTIATE_ROWS(ChunkAccess<BFloat16>)

}  // namespace kd::device
