// The primitives on a CPU, every access and barrier checked; primitives.cuh says what each is.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "machine.h"

#define RNNCELLS_DEVICE inline
#define RNNCELLS_KERNEL(threads) inline void
#define RNNCELLS_ROLLED
#define RNNCELLS_PARAMETER(...) const __VA_ARGS__&

namespace rnncells::gpu {

using emulation::Machine;
inline Machine& machine() { return Machine::instance(); }

inline int thread_index() { return machine().thread().index; }
inline int block_threads() { return machine().block().threads; }
inline int64_t block_index() { return machine().block().index; }

inline void block_barrier(int line = __builtin_LINE()) {
  machine().wait(machine().block().barrier, "block", line);
}
inline void warp_barrier(int line = __builtin_LINE()) {
  machine().wait(machine().block().warps[thread_index() / warp_lanes], "warp", line);
}
inline int cluster_rank() { return machine().block().rank; }
inline void cluster_barrier(int line = __builtin_LINE()) {
  // Threads of a block see each other's writes after it, too.
  machine().wait(machine().cluster_barrier(), "cluster", line);
  block_barrier(line);
}

// Shows a value to the lanes of the warp: look(lane) is what another lane showed, or null where
// the block has no such thread.
template <class V, class Body>
auto with_lanes(const V& value, const Body& body, int line) {
  machine().thread().slot = &value;
  warp_barrier(line);
  const int first = thread_index() / warp_lanes * warp_lanes;
  emulation::Block& block = machine().block();
  const auto look = [&](int lane) {
    return first + lane < block.threads ? static_cast<const V*>(block.fibers[first + lane]->slot)
                                        : nullptr;
  };
  auto result = body(look);
  warp_barrier(line);
  return result;
}
template <class V>
V shuffle_down(V value, int distance, int line = __builtin_LINE()) {
  const int lane = thread_index() % warp_lanes + distance;
  const auto take = [&](auto look) {
    const V* other = lane < warp_lanes ? look(lane) : nullptr;
    return other == nullptr ? value : *other;
  };
  return with_lanes(value, take, line);
}

// Memory of the card: no access outside the buffer that the pointer points into.
template <class T>
class Global {
 public:
  Global() = default;
  explicit Global(T* p) : p_(p), range_(machine().buffers.find(p)) {}
  T* at(int64_t i, int64_t count, const char* act) const {
    const auto* begin = reinterpret_cast<const char*>(p_ + i);
    const char* end = begin + count * static_cast<int64_t>(sizeof(T));
    if (p_ == nullptr || begin < range_.begin || end > range_.end) {
      machine().stop(std::string(act) + " outside of a buffer: element " + std::to_string(i) +
                     " of " +
                     std::to_string((range_.end - reinterpret_cast<const char*>(p_)) /
                                    static_cast<int64_t>(sizeof(T))));
    }
    if (reinterpret_cast<uintptr_t>(begin) % (count * sizeof(T)) != 0) {
      machine().stop(std::string(act) + " a pack that is not aligned");
    }
    return p_ + i;
  }

 private:
  T* p_ = nullptr;
  emulation::Buffers::Range range_;
};

// An array in shared memory, of this block or of another in the cluster.
template <class T>
class Shared {
 public:
  Shared() = default;
  Shared(emulation::Block* block, int64_t offset, int64_t count)
      : block_(block), offset_(offset), count_(count) {}
  T* at(int64_t i, int64_t count, const char* act) const {
    if (i < 0 || i + count > count_) {
      machine().stop(std::string(act) + " outside of a shared array: element " + std::to_string(i) +
                     " of " + std::to_string(count_));
    }
    if (offset(i) % (count * static_cast<int64_t>(sizeof(T))) != 0) {
      machine().stop(std::string(act) + " a pack that is not aligned");
    }
    return reinterpret_cast<T*>(block_->shared.begin() + offset(i));
  }
  int64_t offset(int64_t i) const { return offset_ + i * static_cast<int64_t>(sizeof(T)); }
  emulation::SharedStore& store() const { return block_->shared; }
  int64_t count() const { return count_; }
  int64_t begin() const { return offset_; }

 private:
  emulation::Block* block_ = nullptr;
  int64_t offset_ = 0, count_ = 0;
};

inline void check(const char* fault) {
  if (fault != nullptr) machine().stop(fault);
}

template <class T>
std::remove_const_t<T> read(const Global<T>& p, int64_t i) {
  return *p.at(i, 1, "reads");
}
template <class T>
void write(const Global<T>& p, int64_t i, std::common_type_t<T> value) {
  *p.at(i, 1, "writes") = value;
}
template <int N, class T>
Pack<std::remove_const_t<T>, N> read_pack(const Global<T>& p, int64_t i) {
  Pack<std::remove_const_t<T>, N> pack;
  std::memcpy(&pack, p.at(i, N, "reads"), sizeof pack);
  return pack;
}
template <class T, int N>
void write_pack(const Global<T>& p, int64_t i, Pack<T, N> pack) {
  std::memcpy(p.at(i, N, "writes"), &pack, sizeof pack);
}
template <class T>
std::remove_const_t<T> read_once(const Global<T>& p, int64_t i) {
  return read(p, i);
}
template <class T>
void will_read(const Global<T>& p, int64_t i) {
  p.at(i, 1, "announces a read");
}

template <class T>
T read(const Shared<T>& p, int64_t i) {
  const T* from = p.at(i, 1, "reads");
  check(p.store().on_read(p.offset(i), sizeof(T), machine().now()));
  return *from;
}
template <class T>
void write(const Shared<T>& p, int64_t i, std::common_type_t<T> value) {
  T* to = p.at(i, 1, "writes");
  check(p.store().on_write(p.offset(i), sizeof(T), machine().now()));
  *to = value;
}
template <int N, class T>
Pack<T, N> read_pack(const Shared<T>& p, int64_t i) {
  Pack<T, N> pack;
  const T* from = p.at(i, N, "reads");
  check(p.store().on_read(p.offset(i), sizeof pack, machine().now()));
  std::memcpy(&pack, from, sizeof pack);
  return pack;
}
template <class T, int N>
void write_pack(const Shared<T>& p, int64_t i, Pack<T, N> pack) {
  T* to = p.at(i, N, "writes");
  check(p.store().on_write(p.offset(i), sizeof pack, machine().now()));
  std::memcpy(to, &pack, sizeof pack);
}

class SharedMemory {
 public:
  template <class T>
  Shared<T> take(int64_t count) {
    const int64_t begin = used_, bytes = count * static_cast<int64_t>(sizeof(T));
    used_ += (bytes + 15) / 16 * 16;
    if (begin + bytes > machine().block().shared.size()) {
      machine().stop("takes more shared memory than the launch gave");
    }
    return {&machine().block(), begin, count};
  }

 private:
  int64_t used_ = 0;
};

template <class T>
Shared<T> at_rank(const Shared<T>& shared, int rank) {
  if (rank < 0 || rank >= machine().cluster_size()) machine().stop("names no block of the cluster");
  return {&machine().block_of_rank(rank), shared.begin(), shared.count()};
}

template <class T, class U>
void copy_async(const Shared<T>& to, int64_t i, const Global<U>& from, int64_t j) {
  constexpr int count = 16 / sizeof(T);
  char* target = reinterpret_cast<char*>(to.at(i, count, "copies"));
  const char* source = reinterpret_cast<const char*>(from.at(j, count, "copies"));
  check(to.store().on_write(to.offset(i), 16, machine().now(), true));
  machine().thread().open.push_back({target, source, to.offset(i)});
}
inline void copy_commit() {
  emulation::Thread& t = machine().thread();
  t.groups.push_back(t.open);
  t.open.clear();
}
template <int N>
void copy_wait() {
  emulation::Thread& t = machine().thread();
  while (t.groups.size() > N) {
    for (const emulation::AsyncCopy& copy : t.groups.front()) {
      std::memcpy(copy.to, copy.from, 16);
      check(t.block->shared.on_write(copy.offset, 16, machine().now()));
    }
    t.groups.erase(t.groups.begin());
  }
}

inline void group_barrier(const Global<uint32_t>& counter, int blocks, int round,
                          int line = __builtin_LINE()) {
  block_barrier(line);
  if (thread_index() == 0) {
    uint32_t* value = counter.at(0, 1, "counts");
    ++*value;
    machine().wait_for(value, static_cast<uint32_t>(round + 1) * static_cast<uint32_t>(blocks));
  }
  block_barrier(line);
}

// Null, or what went wrong: the fault's text stays in the machine.
template <class Call>
const char* launch(void (*kernel)(const Call&), const Call& call, const LaunchShape& shape,
                   Stream) {
  machine().launch(shape.blocks, shape.threads, shape.shared_bytes, shape.cluster,
                   shape.cooperative, [&] { kernel(call); });
  return machine().fault.empty() ? nullptr : machine().fault.c_str();
}

}  // namespace rnncells::gpu

#include "emulation/numbers.h"
