// The kernels of rows, compiled once for each type so that the compiles run side by side: of rows
// whose logits are both of type KD_ROWS_OF, or, without it, of mixed, strided or masked rows.
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
