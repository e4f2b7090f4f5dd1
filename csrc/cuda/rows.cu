// The row kernels, compiled once per type so that the compilations run in parallel. With KD_ROWS_OF
// both logits have that type. Without it, rows are mixed, strided or masked.
#include "launch.h"

namespace kd::device {

#ifdef KD_ROWS_OF
KD_INSTANTIATE_ROWS(ChunkAccess<KD_ROWS_OF, false>)
KD_INSTANTIATE_ROWS(ChunkAccess<KD_ROWS_OF, true>)
KD_INSTANTIATE_TILES(ChunkAccess<KD_ROWS_OF, true>)
#else
KD_INSTANTIATE_ROWS(NumberAccess<float>)
KD_INSTANTIATE_ROWS(NumberAccess<double>)
#endif

}  // namespace kd::device
