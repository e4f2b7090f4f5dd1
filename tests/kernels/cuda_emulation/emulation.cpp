// The library that the tests load: the launches of csrc/cuda/ on the emulator.
#define KD_WITH_CUDA
#include "emulator.h"
#include "plan.h"
#include "small_kernels.h"

namespace {

using namespace kd;

struct Request {
  device::Device device;
  int64_t at_once;  // clusters that the device runs at once
  Order order;
  const Range* memory;
  int64_t ranges;
};

int finish(const Emulator& done, char* message, int64_t room) {
  std::snprintf(message, size_t(room), "%s", done.message().c_str());
  return done.failed() ? 1 : 0;
}

struct Launcher {
  Emulator& on;
  const Request& request;

  template <class Kernel>
  void operator()(const Kernel& kernel, const device::Shape& shape) const {
    on.launch(kernel, shape);
  }
  template <class Kernel>
  int64_t at_once(const device::Shape&) const {
    return request.at_once;
  }
};

auto launcher(Emulator& on) {
  return [&on](const auto& kernel, const device::Shape& shape) { on.launch(kernel, shape); };
}

std::vector<Range> ranges(const Request& request) {
  return {request.memory, request.memory + request.ranges};
}

// Kernels that are wrong, for the emulator to find out.
struct BrokenKernel {
  static constexpr int max_threads = 64;
  enum Fault { race, divergence, outside, misaligned } fault;
  float* out;

  template <class Team>
  void operator()(const Team& team) const {
    auto* const shared = reinterpret_cast<float*>(team.shared());
    const int thread = team.thread();
    if (fault == divergence && thread % 2 == 0) team.barrier();
    if (fault == outside) device::write(out + 64 + thread, 1.f);
    if (fault == misaligned)
      device::read(reinterpret_cast<const device::Chunk<float>*>(out + thread));
    device::write(shared + thread, float(thread));
    team.shuffle_xor(0.f, 1);  // no barrier between what one warp writes and another reads
    device::write(out + thread, device::read(shared + 63 - thread));
  }
};

}  // namespace

extern "C" {

int run_broken(int fault, float* out, const Request* request, char* message, int64_t room) {
  Emulator on(ranges(*request), request->order);
  on.launch(BrokenKernel{BrokenKernel::Fault(fault), out}, {1, 64, 1, 256});
  return finish(on, message, room);
}

int64_t row_parameters_bytes() { return sizeof(RowParameters); }

// "tile 2x64", "lanes 4x32", "block 256", "cluster 8x512" or "split 17", and chunks a thread.
void describe_plan(const RowParameters* p, const Request* request, char* text, int64_t room) {
  device::with_access(*p, [&](const device::Layout& layout, auto* null) {
    using Access = std::remove_pointer_t<decltype(null)>;
    const auto plan = device::plan_rows<Access>(*p, request->device, layout);
    const auto& row = plan.row;
    const auto print = [&](const char* form, auto... values) {
      std::snprintf(text, size_t(room), form, values...);
    };
    if (plan.split)
      print("split %d launches of %lld", plan.parts.parts, (long long)plan.rows_per_launch);
    else if (row.cluster_blocks > 1)
      print("cluster %dx%d chunks %d", row.cluster_blocks, row.row_threads / row.cluster_blocks,
            row.chunks);
    else if (row.row_threads > device::warp_lanes)
      print("block %d chunks %d", row.row_threads, row.chunks);
    else
      print("%s %dx%d chunks %d", row.tile ? "tile" : "lanes", row.row_threads, row.rows_per_block,
            row.chunks);
  });
}

int run_rows(const RowParameters* p, const Request* request, char* message, int64_t room) {
  return device::with_access(*p, [&](const device::Layout& layout, auto* null) {
    using Access = std::remove_pointer_t<decltype(null)>;
    const int64_t bytes = device::workspace_bytes<Access>(*p, request->device, layout);
    // Of the size that was asked for, and full of NaN.
    std::vector<uint64_t> workspace(size_t(bytes + 7) / 8, ~uint64_t(0));
    auto memory = ranges(*request);
    memory.push_back({reinterpret_cast<const char*>(workspace.data()), bytes});
    Emulator on(memory, request->order);
    device::launch_rows<Access>(*p, request->device, layout, workspace.data(),
                                Launcher{on, *request});
    return finish(on, message, room);
  });
}

int run_reduce(const ReduceParameters* p, const Request* request, char* message, int64_t room) {
  const int64_t bytes = device::reduce_workspace_bytes(p->students, p->rows);
  // Of the size that was asked for, and full of NaN.
  std::vector<uint64_t> workspace(size_t(bytes) / 8, ~uint64_t(0));
  auto memory = ranges(*request);
  memory.push_back({reinterpret_cast<const char*>(workspace.data()), bytes});
  Emulator on(memory, request->order);
  device::launch_reduce(*p, workspace.data(), launcher(on));
  return finish(on, message, room);
}

int count_reduce_launches(const ReduceParameters* p) {
  int count = 0;
  double partials[1];  // that no kernel reads
  device::launch_reduce(*p, partials, [&](const auto&, const device::Shape&) { ++count; });
  return count;
}

int run_scale(const ScaleParameters* p, const Request* request, char* message, int64_t room) {
  Emulator on(ranges(*request), request->order);
  device::launch_scale(*p, request->device.multiprocessors, launcher(on));
  return finish(on, message, room);
}

}  // extern "C"
