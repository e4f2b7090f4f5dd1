// Rows whose student and teacher are float16.
#include "launch_here.h"

namespace kd::device {

KD_INSTANTIATE_ROWS(ChunkAccess<Float16, false>)
KD_INSTANTIATE_ROWS(ChunkAccess<Float16, true>)
KD_INSTANTIATE_TILES(ChunkAccess<Float16, true>)

}  // namespace kd::device
