// What an emulated kernel may touch, and whether it does so in order: the buffers that a test
// names, and the shared memory of each block with the history of every two bytes of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace rnncells::emulation {

// The memory that kernels may read and write through Global.
class Buffers {
 public:
  struct Range {
    const char *begin = nullptr, *end = nullptr;
  };

  void add(const void* begin, size_t bytes) {
    const auto* first = static_cast<const char*>(begin);
    if (bytes > 0) ranges_[first] = {first, first + bytes};
  }
  void remove(const void* begin) { ranges_.erase(static_cast<const char*>(begin)); }
  // Of the buffer that the address is in; an empty one if it is in none.
  Range find(const void* address) const {
    const auto* p = static_cast<const char*>(address);
    auto after = ranges_.upper_bound(p);
    if (after == ranges_.begin()) return {};
    const Range range = std::prev(after)->second;
    return p < range.end ? range : Range{};
  }

 private:
  std::map<const char*, Range> ranges_;
};

// When an access happened: what lay between it and another tells whether they are in order.
struct Moment {
  int block = -1, thread = -1;
  uint32_t warp_round = 0, block_round = 0, cluster_round = 0;

  // Whether a barrier stands between this earlier access and that later one.
  bool before(const Moment& later) const {
    if (block < 0) return true;
    if (block != later.block) return cluster_round != later.cluster_round;
    if (thread == later.thread || block_round != later.block_round) return true;
    return thread / 32 == later.thread / 32 && warp_round != later.warp_round;
  }
};

// The shared memory of one block.
class SharedStore {
 public:
  static constexpr int64_t grain = 2;  // bytes that share a history

  void reset(int64_t bytes) {
    // Neither zeros nor the values of the launch before: what nobody wrote is seen as such.
    bytes_.assign(bytes + 64, static_cast<char>(0xCB));
    history_.assign(bytes / grain + 32, {});
    size_ = bytes;
  }
  char* begin() {
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    return bytes_.data() + (64 - address % 64) % 64;
  }
  int64_t size() const { return size_; }

  // Null, or what is wrong with the access.
  const char* on_read(int64_t offset, int64_t bytes, const Moment& now) {
    const char* fault = nullptr;
    each(offset, bytes, [&](History& cell) {
      if (cell.pending) fault = "reads shared memory before the wait of its asynchronous copy";
      if (!cell.pending && cell.writer.block < 0) fault = "reads shared memory that nothing wrote";
      if (!cell.writer.before(now)) fault = "reads what another thread wrote, with no barrier";
      // Of readers since the last barrier one is enough, unless another block's.
      cell.others_read = cell.others_read || !cell.reader.before(now);
      if (cell.reader.before(now)) cell.others_read = false;
      cell.reader = now;
    });
    return fault;
  }
  const char* on_write(int64_t offset, int64_t bytes, const Moment& now, bool pending = false) {
    const char* fault = nullptr;
    each(offset, bytes, [&](History& cell) {
      if (cell.pending && pending) fault = "copies to where an asynchronous copy is under way";
      if (!cell.writer.before(now)) fault = "writes what another thread wrote, with no barrier";
      const bool ordered = cell.reader.before(now);
      const bool same = cell.reader.block == now.block && cell.reader.thread == now.thread &&
                        cell.reader.block_round == now.block_round;
      if (!ordered || (same && cell.others_read)) {
        fault = "writes what another thread reads, with no barrier";
      }
      cell.pending = pending;
      if (pending) cell.writer = {};
      if (!pending) cell.writer = now;
    });
    return fault;
  }

 private:
  struct History {
    Moment writer, reader;
    bool pending = false, others_read = false;
  };
  template <class Body>
  void each(int64_t offset, int64_t bytes, const Body& body) {
    for (int64_t i = offset / grain; i < (offset + bytes + grain - 1) / grain; ++i) {
      body(history_[i]);
    }
  }

  std::vector<char> bytes_;
  std::vector<History> history_;
  int64_t size_ = 0;
};

}  // namespace rnncells::emulation
