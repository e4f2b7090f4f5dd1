// Rows whose student and teacher are bfloat16.
#include "launch_here.h"

namespace kd::device {

KD_INSTANTIATE_ROWS(ChunkAccess<BFloat16, false>)
KD_INSTANTIATE_ROWS(ChunkAccess<BFloat16, true>)
KD_INSTANTIATE_TILES(ChunkAccess<BFloat16, true>)

}  // namespace kd::device
