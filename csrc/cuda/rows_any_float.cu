// Rows of mixed types, strided or masked, computed in float.
#include "launch_here.h"

namespace kd::device {

KD_INSTANTIATE_ROWS(NumberAccess<float>)

}  // namespace kd::device
