// Runs CUDA kernels written over a `team` (csrc/cuda/team.h) on one thread of a CPU. Each thread of
// a cluster is a fiber that runs to its next shuffle or barrier, in an order of the caller's
// choice, so that a barrier that is missing shows as a result that depends on the order.
//
// A launch fails, with a message, where lanes of a warp or threads of a block do not meet at the
// same shuffle or barrier, and where memory is touched that is not the launch's.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "team.h"

namespace kd {

struct Range {
  const char* begin;
  int64_t bytes;
  bool holds(const void* address, size_t count) const {
    const auto* first = static_cast<const char*>(address);
    return first >= begin && first + count <= begin + bytes;
  }
};

enum class Order : int { forward, reverse, warp_by_warp, warp_by_warp_reverse };

class Emulator {
 public:
  Emulator(std::vector<Range> memory, Order order) : memory_(std::move(memory)), order_(order) {}
  ~Emulator() {
    if (stacks_ != nullptr) munmap(stacks_, stack_bytes * fibers_.size());
  }

  template <class Kernel>
  void launch(const Kernel& kernel, const device::Shape& shape);

  bool failed() const { return !message_.empty(); }
  const std::string& message() const { return message_; }

  void fail(const std::string& message) {
    if (message_.empty()) message_ = message;
    if (running_ != nullptr) leave();  // and never come back
  }
  void check(const void* address, size_t bytes, size_t alignment) {
    if (reinterpret_cast<uintptr_t>(address) % alignment != 0) {
      fail("an address that is no multiple of " + std::to_string(alignment));
      return;
    }
    for (const Range& range : memory_)
      if (range.holds(address, bytes)) return;
    for (const auto& block : shared_)
      if (Range{block->bytes, shape_.shared_bytes}.holds(address, bytes)) return;
    fail("memory that is not the launch's: " + std::to_string(bytes) + " bytes");
  }

  struct Copy {
    char* to;
    const char* from;
    int bytes;
  };
  // What a fiber is, and what it waits for.
  struct Meeting {
    int expected = 0, arrived = 0;
    uint64_t generation = 0;
  };
  struct Fiber {
    ucontext_t context;
    bool finished;
    int thread, rank;
    int parity;  // of its next shuffle
    std::vector<Copy> copies;  // begun and not waited for
  };
  void meet(Meeting& meeting) {
    if (++meeting.arrived == meeting.expected) {
      meeting.arrived = 0;
      ++meeting.generation;
      ++progress_;
      return;
    }
    const uint64_t generation = meeting.generation;
    while (meeting.generation == generation) leave();
  }
  struct Warp {
    Meeting meeting;
    uint64_t slots[2][device::warp_lanes];
  };

  const device::Shape& shape() const { return shape_; }
  Fiber& running() { return *running_; }
  Warp& warp_of(const Fiber& fiber) {
    return warps_[(fiber.rank * shape_.threads + fiber.thread) / device::warp_lanes];
  }
  Meeting& block_of(const Fiber& fiber) { return blocks_[fiber.rank]; }
  Meeting& cluster() { return cluster_; }
  char* shared(int rank) {
    if (!begun_[rank]) fail("shared memory of a block that may not run yet");
    return shared_[rank]->bytes;
  }
  int64_t block(const Fiber& fiber) const {
    return cluster_index_ * shape_.cluster_blocks + fiber.rank;
  }

 private:
  static constexpr size_t stack_bytes = 1 << 16;
  static constexpr int most_shared_bytes = 227 * 1024;
  struct alignas(16) SharedMemory {
    char bytes[most_shared_bytes];
  };

  void leave() { swapcontext(&running_->context, &scheduler_); }
  void run(Fiber& fiber) {
    running_ = &fiber;
    begun_[fiber.rank] = true;
    swapcontext(&scheduler_, &fiber.context);
    running_ = nullptr;
  }
  void prepare(const device::Shape& shape);
  void start_cluster(void (*entry)());
  void run_cluster();

  std::vector<Range> memory_;
  Order order_;
  device::Shape shape_{};
  std::string message_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::vector<Meeting> blocks_;
  Meeting cluster_;
  std::vector<std::unique_ptr<SharedMemory>> shared_;
  std::vector<char> begun_;  // which blocks of the cluster
  char* stacks_ = nullptr;
  int64_t cluster_index_ = 0;
  uint64_t progress_ = 0;
  ucontext_t scheduler_;
  Fiber* running_ = nullptr;
};

inline Emulator* emulator = nullptr;

// The threads of the emulated block, by the names that the kernels use.
struct EmulatedTeam {
  Emulator::Fiber& fiber() const { return emulator->running(); }
  int thread() const { return fiber().thread; }
  int threads() const { return emulator->shape().threads; }
  int64_t block() const { return emulator->block(fiber()); }
  int rank() const { return fiber().rank; }
  int cluster_blocks() const { return emulator->shape().cluster_blocks; }

  template <class T>
  T shuffle_xor(T x, int mask) const {
    Emulator::Fiber& self = fiber();
    Emulator::Warp& warp = emulator->warp_of(self);
    const int lane = self.thread % device::warp_lanes;
    uint64_t* const slots = warp.slots[self.parity];
    self.parity ^= 1;
    std::memcpy(&slots[lane], &x, sizeof x);
    emulator->meet(warp.meeting);
    std::memcpy(&x, &slots[lane ^ mask], sizeof x);
    return x;
  }
  bool any(bool x) const {
    int all = x;
    for (int mask = device::warp_lanes / 2; mask > 0; mask /= 2) all |= shuffle_xor(all, mask);
    return all != 0;
  }
  void barrier() const { emulator->meet(emulator->block_of(fiber())); }
  void cluster_barrier() const { emulator->meet(emulator->cluster()); }
  // Copies as late as it may: who does not wait finds what was there before.
  void copy(void* to, const void* from, int bytes) const {
    fiber().copies.push_back({static_cast<char*>(to), static_cast<const char*>(from), bytes});
  }
  void wait_for_copies() const {
    for (const Emulator::Copy& copy : fiber().copies) {
      emulator->check(copy.to, 16, 16);
      emulator->check(copy.from, size_t(copy.bytes), 16);
      std::memset(copy.to, 0, 16);
      std::memcpy(copy.to, copy.from, size_t(copy.bytes));
    }
    fiber().copies.clear();
  }
  char* shared() const { return emulator->shared(fiber().rank); }
  template <class T>
  T* remote(T* address, int rank) const {
    return reinterpret_cast<T*>(reinterpret_cast<char*>(address) - shared() +
                                emulator->shared(rank));
  }
};

inline void Emulator::prepare(const device::Shape& shape) {
  shape_ = shape;
  const size_t count = size_t(shape.threads) * shape.cluster_blocks;
  if (shape.threads % device::warp_lanes != 0) fail("a block that is not made of whole warps");
  if (shape.shared_bytes > most_shared_bytes) fail("more shared memory than a block has");
  if (shape.blocks % shape.cluster_blocks != 0) fail("a cluster that is not whole");
  if (stacks_ != nullptr) munmap(stacks_, stack_bytes * fibers_.size());
  fibers_.assign(count, Fiber{});
  stacks_ = static_cast<char*>(mmap(nullptr, stack_bytes * count, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (stacks_ == MAP_FAILED) std::abort();
  shared_.clear();
  for (int i = 0; i < shape.cluster_blocks; ++i)
    shared_.push_back(std::make_unique<SharedMemory>());
}

inline void Emulator::start_cluster(void (*entry)()) {
  const int lanes = device::warp_lanes;
  warps_.assign(fibers_.size() / lanes, Warp{});
  for (Warp& warp : warps_) warp.meeting.expected = lanes;
  blocks_.assign(shape_.cluster_blocks, Meeting{});
  for (Meeting& block : blocks_) block.expected = shape_.threads;
  begun_.assign(shape_.cluster_blocks, false);
  cluster_ = Meeting{};
  cluster_.expected = int(fibers_.size());
  // Memory that nothing was written to reads as NaN.
  for (const auto& block : shared_) std::memset(block->bytes, 0xff, size_t(shape_.shared_bytes));
  for (size_t i = 0; i < fibers_.size(); ++i) {
    Fiber& fiber = fibers_[i];
    fiber.finished = false;
    fiber.parity = 0;
    fiber.copies.clear();
    fiber.rank = int(i) / shape_.threads;
    fiber.thread = int(i) % shape_.threads;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stacks_ + i * stack_bytes;
    fiber.context.uc_stack.ss_size = stack_bytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
  }
}

inline void Emulator::run_cluster() {
  const bool reverse = order_ == Order::reverse || order_ == Order::warp_by_warp_reverse;
  const bool greedy = order_ >= Order::warp_by_warp;
  const int count = int(fibers_.size()), group = greedy ? device::warp_lanes : count;
  size_t finished = 0;
  uint64_t last = progress_ - 1;
  while (finished < fibers_.size() && !failed()) {
    if (progress_ == last) return fail("threads wait for each other at different places");
    last = progress_;
    for (int g = 0; g < count / group; ++g) {
      uint64_t before;
      do {  // as far as a warp comes without the others
        before = progress_;
        for (int i = 0; i < group && !failed(); ++i) {
          const int index = g * group + i;
          Fiber& fiber = fibers_[reverse ? count - 1 - index : index];
          if (fiber.finished) continue;
          run(fiber);
          if (fiber.finished) ++finished, ++progress_;
        }
      } while (greedy && progress_ != before && !failed());
    }
  }
}

template <class Kernel>
void Emulator::launch(const Kernel& kernel, const device::Shape& shape) {
  if (failed()) return;
  static const Kernel* current;
  current = &kernel;
  if (shape.threads > Kernel::max_threads) return fail("more threads than the kernel allows");
  prepare(shape);
  emulator = this;
  const auto entry = [] {
    (*current)(EmulatedTeam{});
    emulator->running().finished = true;
    emulator->leave();
  };
  for (cluster_index_ = 0; cluster_index_ < shape.blocks / shape.cluster_blocks && !failed();
       ++cluster_index_) {
    start_cluster(entry);
    run_cluster();
  }
}

inline void check_access(const void* address, size_t bytes, size_t alignment) {
  emulator->check(address, bytes, alignment);
}

}  // namespace kd
