// Memory of large gradients on the CPU, kept from step to step.
//
// A training step frees the gradient that the next step asks for again. The system's allocator
// gives such blocks back to the kernel, and touching fresh pages then costs as much as the loss:
// so the last blocks are kept here instead, warm, up to a limit.
#pragma once

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace kd {

class GradientMemory {
 public:
  // Below this the system's allocator keeps the block itself.
  static constexpr int64_t smallest = 64 << 10;
  static constexpr int64_t most_kept = int64_t(256) << 20;
  // From this on huge pages are asked for: 512 times fewer to touch first and to look up.
  static constexpr int64_t huge_page = 2 << 20;

  // Never destroyed: tensors may outlive every static object.
  static GradientMemory& instance() {
    static auto* const memory = new GradientMemory;
    return *memory;
  }

  // `bytes` at an address aligned to 64. A kept block serves if no more than half of it is wasted.
  void* take(int64_t bytes) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (size_t i = blocks_.size(); i-- > 0;) {
        const Block block = blocks_[i];
        if (block.bytes < bytes || block.bytes / 2 > bytes) continue;
        blocks_.erase(blocks_.begin() + int64_t(i));
        kept_ -= block.bytes;
        taken_.push_back(block);
        return block.data;
      }
    }
    const int64_t page = bytes < huge_page ? 4096 : huge_page;
    const int64_t rounded = (bytes + page - 1) / page * page;
    void* const data = std::aligned_alloc(size_t(page), size_t(rounded));
    if (data == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    // Advice only: where it is not taken, pages are small and nothing else changes.
    if (page == huge_page) madvise(data, size_t(rounded), MADV_HUGEPAGE);
#endif
    const std::lock_guard<std::mutex> lock(mutex_);
    taken_.push_back({data, rounded});
    return data;
  }

  void give_back(void* data) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = taken_.size(); i-- > 0;) {
      if (taken_[i].data != data) continue;
      blocks_.push_back(taken_[i]);
      kept_ += taken_[i].bytes;
      taken_.erase(taken_.begin() + int64_t(i));
      break;
    }
    while (kept_ > most_kept) {
      std::free(blocks_.front().data);
      kept_ -= blocks_.front().bytes;
      blocks_.erase(blocks_.begin());
    }
  }

 private:
  struct Block {
    void* data;
    int64_t bytes;
  };
  std::mutex mutex_;
  std::vector<Block> blocks_;  // oldest first
  std::vector<Block> taken_;
  int64_t kept_ = 0;
};

}  // namespace kd
