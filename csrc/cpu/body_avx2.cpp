#define KD_BODY avx2
#include "vector_avx2.h"
#include "rows.h"

namespace kd {

void run_avx2(const RowParameters& parameters, int64_t begin, int64_t end, void* scratch) {
  avx2::run<avx2::Ops>(parameters, begin, end, scratch);
}

}  // namespace kd
