// Rows whose student and teacher are float32.
#include "launch_here.h"

namespace kd::device {

KD_INSTANTIATE_ROWS(ChunkAccess<float, false>)
KD_INSTANTIATE_ROWS(ChunkAccess<float, true>)
KD_INSTANTIATE_TILES(ChunkAccess<float, true>)

}  // namespace kd::device
