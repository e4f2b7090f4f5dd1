#define KD_BODY plain
#include "vector_plain.h"
#include "rows.h"

namespace kd {

void run_plain(const RowParameters& parameters, int64_t begin, int64_t end, void* scratch) {
  plain::run<plain::Ops>(parameters, begin, end, scratch);
}

void run_plain_double(const RowParameters& parameters, int64_t begin, int64_t end, void* scratch) {
  plain::run<plain::DoubleOps>(parameters, begin, end, scratch);
}

}  // namespace kd
