#define KD_BODY avx512
#include "vector_avx512.h"
#include "rows.h"

namespace kd {

void run_avx512(const RowParameters& parameters, int64_t begin, int64_t end, void* scratch) {
  avx512::run<avx512::Ops>(parameters, begin, end, scratch);
}

}  // namespace kd
