// Rows whose student and teacher are float32.
#include "launch_here.h"

namespace kd::device {

KD_INSTANTIATE_ROWS(ChunkAccess<float>)

}  // namespace kd::device
