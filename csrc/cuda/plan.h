// Chooses the kernel of a call and its threads per row. Host code without CUDA, which the tests run
// as it is.
#pragma once

#include <algorithm>
#include <bit>
#include <type_traits>

#include "row_kernel.h"
#include "split_kernels.h"

namespace kd {
namespace KD_BODY {

// Launches a kernel on a stream (a cudaStream_t); launch.h has the body.
template <class Kernel>
void launch(const Kernel& kernel, const Shape& shape, void* stream);

// How many clusters of this shape (blocks, if it has none) the device runs at once; launch.h has
// the body.
template <class Kernel>
int64_t clusters_at_once(const Shape& shape);

// Throws std::runtime_error for anything but success.
void check_launch(int error);

constexpr int most_devices = 128;

// The properties of a device that a plan depends on.
struct Device {
  int multiprocessors;
  bool clusters;
  int64_t cache_bytes;   // L2
  int64_t shared_bytes;  // that a block may have
};

inline int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceiling(a, b) * b; }

inline int64_t type_bytes(Type type) {
  return type == Type::float64 ? 8 : type == Type::float32 ? 4 : 2;
}

// Whether an address or a distance suits 16-byte accesses.
inline bool sixteen(int64_t bytes) { return bytes % 16 == 0; }
inline int64_t place(const void* address) {
  return int64_t(reinterpret_cast<uintptr_t>(address) % 16);
}

// The memory layout of a call's rows.
struct Layout {
  bool chunks;   // ChunkAccess may be used
  bool aligned;  // every row begins at a multiple of 16 bytes
  bool flat;     // rows follow each other without gaps, from a multiple of 16 bytes
};

inline Layout layout_of(const RowParameters& p) {
  const int64_t bytes = type_bytes(p.student.type);
  const int64_t student = p.student.row_stride * bytes, teacher = p.teacher.row_stride * bytes;
  const int64_t next_student = p.students == 1 ? 0 : p.student.student_stride * bytes;
  const int64_t next_gradient = p.students == 1 ? 0 : p.rows * p.classes * bytes;
  const int64_t start = place(p.student.data);
  const bool gradient = p.gradient != nullptr;
  Layout layout{};
  layout.chunks =
      p.student.type == p.teacher.type && p.student.type != Type::float64 &&
      p.student.class_stride == 1 && p.teacher.class_stride == 1 && p.class_mask == nullptr &&
      start == place(p.teacher.data) && sixteen(student - teacher) && sixteen(next_student) &&
      (!gradient || (start == place(p.gradient) && sixteen(student - p.classes * bytes) &&
                     sixteen(next_gradient)));
  layout.aligned = start == 0 && sixteen(student);
  layout.flat = start == 0 && p.student.row_stride == p.classes &&
                p.teacher.row_stride == p.classes;
  return layout;
}

constexpr int block_threads = 128;      // of a block that serves several rows
constexpr int wide_block_threads = 256;  // of a block for one row: two fill a multiprocessor
constexpr int full_block_threads = 448;  // above, one block fills a multiprocessor

struct Plan {
  bool split;
  RowPlan row;
  SplitPlan parts;
  int64_t rows_per_launch;
};

// One call's plan, for an access of `width` classes per chunk and `held` chunks per thread.
class Planner {
 public:
  Planner(const RowParameters& p, const Device& device, const Layout& layout, int width, int held)
      : p_(p), device_(device), layout_(layout), width_(width), held_(held) {
    // A misaligned row begins inside a chunk.
    const int slack = layout.chunks && !layout.aligned ? width - 1 : 0;
    chunks_ = ceiling(p.classes + slack, width);
  }

  Plan plan() const {
    Plan plan{};
    const int64_t least_threads = ceiling(chunks_, held_);
    const int largest_cluster = device_.clusters ? max_cluster_blocks : 1;
    if (least_threads > int64_t(largest_cluster) * max_warps * warp_lanes) {
      plan.split = true;
      split(plan);
      return plan;
    }
    if (tiled(least_threads))
      plan.row = of_lanes(int(least_threads), true);
    else if (least_threads <= warp_lanes && !few_rows(warp_lanes))
      plan.row = of_lanes(lanes(least_threads), false);
    else
      plan.row = least_threads <= warp_lanes && chunks_ < 4 * warp_lanes
                     ? of_lanes(lanes(least_threads), false)
                     : of_blocks(least_threads, largest_cluster);
    return plan;
  }

 private:
  // Too few rows to give every multiprocessor eight warps.
  bool few_rows(int64_t row_threads) const {
    return p_.rows * row_threads < int64_t(device_.multiprocessors) * 8 * warp_lanes;
  }

  // One or two threads per row, which read it from shared memory.
  bool tiled(int64_t least_threads) const {
    return layout_.chunks && layout_.flat && !layout_.aligned && least_threads <= 2 &&
           !few_rows(least_threads);
  }

  // Each access reads at least 32 bytes of a row. More lanes if rows are few.
  int lanes(int64_t least_threads) const {
    int lanes = layout_.chunks ? 2 : 8;
    while (lanes < least_threads) lanes *= 2;
    while (lanes < warp_lanes && lanes < chunks_ && few_rows(lanes)) lanes *= 2;
    return lanes;
  }

  RowPlan of_lanes(int lanes, bool tile) const {
    RowPlan plan{};
    plan.row_threads = lanes;
    plan.row_shift = std::countr_zero(unsigned(lanes));
    plan.rows_per_block = block_threads / lanes;
    plan.cluster_blocks = 1;
    plan.chunks = int(ceiling(chunks_, lanes));
    plan.tile = tile;
    plan.row_step = p_.rows;
    return plan;
  }

  RowPlan of_blocks(int64_t least_threads, int largest_cluster) const {
    int blocks = 1;
    // Two blocks of up to 256 threads fit a multiprocessor. A block of almost 512 fills it as well,
    // and needs no cluster.
    const bool full_block =
        least_threads > full_block_threads && least_threads <= max_warps * warp_lanes;
    while (blocks < largest_cluster && !full_block &&
           least_threads > blocks * wide_block_threads)
      blocks *= 2;
    while (blocks < largest_cluster && p_.rows * blocks * 2 <= device_.multiprocessors &&
           chunks_ >= 4 * blocks * wide_block_threads)
      blocks *= 2;
    int64_t threads = round_up(ceiling(least_threads, blocks), warp_lanes);
    while (threads < wide_block_threads && few_rows(threads * blocks) &&
           threads * 2 * blocks <= chunks_)
      threads *= 2;
    if (threads * blocks <= warp_lanes) return of_lanes(warp_lanes, false);
    RowPlan plan{};
    plan.row_threads = int(threads) * blocks;
    plan.rows_per_block = 1;
    plan.cluster_blocks = blocks;
    plan.cluster_shift = std::countr_zero(unsigned(blocks));
    plan.chunks = int(ceiling(chunks_, threads * blocks));
    plan.row_step = p_.rows;
    plan.staged = layout_.chunks && type_bytes(p_.student.type) == 2;
    return plan;
  }

  // Parts of about 16k classes, smaller if rows are few. A launch has as many rows as keep their
  // logits in the L2 cache for the second kernel, but enough to fill the device.
  void split(Plan& plan) const {
    const int64_t full = 8 * device_.multiprocessors;
    const int64_t wanted =
        std::max(ceiling(p_.classes, 16384), ceiling(full, std::max<int64_t>(p_.rows, 1)));
    const int64_t parts = std::min<int64_t>({wanted, ceiling(p_.classes, 2048), 1024});
    plan.parts.part_chunks = ceiling(chunks_, parts);
    plan.parts.parts = int(ceiling(chunks_, plan.parts.part_chunks));
    const int64_t row_bytes = p_.classes * (p_.students * type_bytes(p_.student.type) +
                                            type_bytes(p_.teacher.type));
    plan.rows_per_launch =
        std::max<int64_t>({1, device_.cache_bytes / 2 / row_bytes, ceiling(full, parts)});
  }

  const RowParameters& p_;
  const Device& device_;
  const Layout& layout_;
  int width_, held_;
  int64_t chunks_;
};

template <class Access>
Plan plan_rows(const RowParameters& p, const Device& device, const Layout& layout) {
  return Planner(p, device, layout, Access::width, Access::chunks).plan();
}

template <class Access>
Shape row_shape(const RowParameters& p, const RowPlan& plan) {
  const bool within_warp = plan.row_threads <= warp_lanes;
  Shape shape{};
  shape.blocks = ceiling(p.rows, plan.rows_per_block) * plan.cluster_blocks;
  shape.threads = within_warp ? plan.row_threads * plan.rows_per_block
                              : plan.row_threads / plan.cluster_blocks;
  shape.cluster_blocks = plan.cluster_blocks;
  if (plan.tile)
    shape.shared_bytes =
        int(2 * plan.rows_per_block * p.classes * type_bytes(p.student.type));
  else if (!within_warp)
    shape.shared_bytes = int(sizeof(RowShared<typename Access::Scalar>));
  if (plan.staged)
    shape.shared_bytes += 2 * plan.chunks * shape.threads * int(sizeof(typename Access::Held));
  return shape;
}

// With more rows than the device computes at once, each team goes through several, the next one
// staged while it computes. Returns the launch's shape.
template <class Access, class AtOnce>
Shape share_rows(const RowParameters& p, const Device& device, RowPlan& plan, AtOnce at_once) {
  Shape shape = row_shape<Access>(p, plan);
  if (!plan.staged) return shape;
  const int64_t teams = shape.shared_bytes <= device.shared_bytes ? at_once(shape) : 0;
  if (teams == 0 || p.rows <= teams) {
    plan.staged = false;
    return row_shape<Access>(p, plan);
  }
  plan.row_step = teams;
  shape.blocks = teams * plan.cluster_blocks;
  return shape;
}

// Calls launcher(kernel, shape) for every kernel of the call, in order.
template <class Access, class Launcher>
void launch_rows(const RowParameters& p, const Device& device, const Layout& layout,
                 void* workspace, Launcher launcher) {
  using Scalar = typename Access::Scalar;
  if (p.rows == 0 || p.students == 0) return;
  Plan plan = plan_rows<Access>(p, device, layout);
  if (!plan.split) {
    const auto launch_row = [&](auto sloped, auto tile) {
      using Kernel = RowKernel<Access, sloped(), tile()>;
      const Shape shape = share_rows<Access>(p, device, plan.row, [&](const Shape& shape) {
        return launcher.template at_once<Kernel>(shape);
      });
      launcher(Kernel{p, plan.row, shared_constants<typename Access::Scalar>(p)}, shape);
    };
    const bool sloped = wants_temperature_gradient(p);
    using Yes = std::true_type;
    using No = std::false_type;
    if constexpr (Access::tiles) {
      if (plan.row.tile) {
        sloped ? launch_row(Yes{}, Yes{}) : launch_row(No{}, Yes{});
        return;
      }
    }
    sloped ? launch_row(Yes{}, No{}) : launch_row(No{}, No{});
    return;
  }
  SplitPlan& split = plan.parts;
  const SplitWorkspace<Scalar> numbers{static_cast<Scalar*>(workspace)};
  for (; split.first_row < p.rows; split.first_row += plan.rows_per_launch) {
    split.rows = std::min(plan.rows_per_launch, p.rows - split.first_row);
    const Shape shape{split.rows * split.parts, split_threads, 1, int(sizeof(SplitShared<Scalar>))};
    launcher(SplitSumsKernel<Access>{p, split, numbers}, shape);
    launcher(SplitGradientKernel<Access>{p, split, numbers}, shape);
  }
  const int64_t warps = SplitFinishKernel<Access>::max_threads / warp_lanes;
  launcher(SplitFinishKernel<Access>{p, split.parts, numbers},
           Shape{ceiling(p.students * p.rows, warps), int(warps) * warp_lanes, 1, 0});
}

template <class Access>
int64_t workspace_bytes(const RowParameters& p, const Device& device, const Layout& layout) {
  using Scalar = typename Access::Scalar;
  const Plan plan = plan_rows<Access>(p, device, layout);
  if (!plan.split || p.rows == 0) return 0;
  return SplitWorkspace<Scalar>::numbers(p, plan.parts.parts) * int64_t(sizeof(Scalar));
}

// Calls visit(layout, access) with a null pointer of the access type that serves the call.
template <class Visit>
auto with_access(const RowParameters& p, Visit visit) {
  const Layout layout = layout_of(p);
  const auto by_chunks = [&](auto number) {
    using T = decltype(number);
    const bool whole = layout.aligned && p.classes % Chunk<T>::size == 0;
    return whole ? visit(layout, static_cast<ChunkAccess<T, false>*>(nullptr))
                 : visit(layout, static_cast<ChunkAccess<T, true>*>(nullptr));
  };
  if (layout.chunks) {
    switch (p.student.type) {
      case Type::float32: return by_chunks(float{});
      case Type::bfloat16: return by_chunks(BFloat16{});
      case Type::float16: return by_chunks(Float16{});
      case Type::float64: break;
    }
  }
  if (p.compute_type == Type::float64)
    return visit(layout, static_cast<NumberAccess<double>*>(nullptr));
  return visit(layout, static_cast<NumberAccess<float>*>(nullptr));
}

}  // namespace KD_BODY
}  // namespace kd
