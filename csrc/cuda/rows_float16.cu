// Rows whose student and teacher are float16.
#include "launch_here.h"

namespace kd::device {

KD_INSTANTIATE_ROWS(ChunkAccess<Float16>)

}  // namespace kd::device
