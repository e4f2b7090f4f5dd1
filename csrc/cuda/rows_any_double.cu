// Rows of mixed types, strided or masked, computed in double.
#include "launch_here.h"

namespace kd::device {

KD_INSTANTIATE_ROWS(NumberAccess<double>)

}  // namespace kd::device
