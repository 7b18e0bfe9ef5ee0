// Runs kernels on a CPU: each thread of a launch is a fiber, blocks run one after another, and
// those of a cluster or of a cooperative launch side by side. The first fault ends the launch.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fiber.h"
#include "memory.h"

namespace rnncells::emulation {

// A barrier that `expected` threads must reach.
struct Barrier {
  int expected = 0, arrived = 0;
  int line = 0;        // of the source, of the first to arrive
  uint32_t round = 0;  // how often it opened
};

struct AsyncCopy {
  char* to;
  const char* from;
  int64_t offset;  // in the block's shared memory
};

struct Block;

struct Thread {
  Fiber fiber;
  Block* block = nullptr;
  int index = 0;
  bool done = false;
  const Barrier* waits = nullptr;
  const char* where = "";             // the name of the barrier
  uint32_t since = 0;                 // the barrier's round when the wait began
  const uint32_t* counter = nullptr;  // a group barrier: waits until *counter reaches goal
  uint32_t goal = 0;
  std::vector<std::vector<AsyncCopy>> groups;  // committed copies
  std::vector<AsyncCopy> open;
  const void* slot = nullptr;  // what the other lanes of the warp look at
};

struct Block {
  int64_t index = 0;
  int rank = 0;  // in its cluster
  int threads = 0;
  SharedStore shared;
  Barrier barrier;
  std::vector<Barrier> warps;
  std::vector<std::unique_ptr<Thread>> fibers;
};

struct Fault {
  std::string text;
};

class Machine {
 public:
  static Machine& instance() {
    static Machine machine;
    return machine;
  }

  Buffers buffers;
  int64_t shared_limit = 227 * 1024;
  std::string fault;  // of the last launch; empty if there was none

  template <class Body>
  void launch(int64_t blocks, int threads, int64_t shared_bytes, int cluster, bool cooperative,
              const Body& body) {
    fault.clear();
    if (shared_bytes > shared_limit) fault = "the launch asks for too much shared memory";
    if (threads < 1 || threads > 1024) fault = "a block has 1 to 1024 threads";
    if (blocks % cluster != 0) fault = "the blocks do not fill their clusters";
    const int64_t together = cooperative ? blocks : cluster;
    body_ = [](void* context) { (*static_cast<const Body*>(context))(); };
    context_ = const_cast<void*>(static_cast<const void*>(&body));
    for (int64_t first = 0; first < blocks && fault.empty(); first += together) {
      run_together(first, static_cast<int>(together), threads, shared_bytes, cluster);
    }
  }

  Thread& thread() { return *current_; }
  Block& block() { return *current_->block; }
  Block& block_of_rank(int rank) {
    return *group_[block().index / cluster_ * cluster_ + rank - group_[0]->index];
  }
  Barrier& cluster_barrier() { return clusters_[(block().index - group_[0]->index) / cluster_]; }
  int cluster_size() const { return cluster_; }

  Moment now() {
    const Thread& t = thread();
    return {static_cast<int>(t.block->index), t.index, t.block->warps[t.index / 32].round,
            t.block->barrier.round, cluster_barrier().round};
  }

  void wait(Barrier& barrier, const char* name, int line) {
    if (barrier.arrived++ == 0) barrier.line = line;
    if (barrier.line != line) {
      stop("reaches the " + std::string(name) + " barrier of line " + std::to_string(line) +
           " while others wait at that of line " + std::to_string(barrier.line));
    }
    if (barrier.arrived == barrier.expected) {
      barrier.arrived = 0;
      ++barrier.round;
      return;
    }
    Thread& t = thread();
    t.waits = &barrier;
    t.where = name;
    t.since = barrier.round;
    t.fiber.leave();
    t.waits = nullptr;
  }
  void wait_for(const uint32_t* counter, uint32_t goal) {
    Thread& t = thread();
    t.counter = counter;
    t.goal = goal;
    t.where = "group";
    while (static_cast<int32_t>(*counter - goal) < 0) t.fiber.leave();
    t.counter = nullptr;
  }

  // Ends the launch, from within a thread of it.
  [[noreturn]] void stop(const std::string& what) {
    fault = name(thread()) + " " + what;
    thread().fiber.leave();
    std::abort();
  }

 private:
  static std::string name(const Thread& t) {
    return "block " + std::to_string(t.block->index) + " thread " + std::to_string(t.index);
  }
  static bool can_run(const Thread& t) {
    if (t.done) return false;
    if (t.counter != nullptr) return static_cast<int32_t>(*t.counter - t.goal) >= 0;
    return t.waits == nullptr || t.waits->round != t.since;
  }

  void prepare(Block& block, int64_t index, int threads, int64_t shared_bytes) {
    block.index = index;
    block.rank = static_cast<int>(index % cluster_);
    block.threads = threads;
    block.shared.reset(shared_bytes);
    block.barrier = {threads, 0, 0, 0};
    block.warps.clear();
    for (int w = 0; w < threads; w += 32) {
      block.warps.push_back({std::min(32, threads - w), 0, 0, 0});
    }
    while (static_cast<int>(block.fibers.size()) < threads) {
      block.fibers.push_back(std::make_unique<Thread>());
    }
    for (int i = 0; i < threads; ++i) {
      Thread& t = *block.fibers[i];
      t.block = &block;
      t.index = i;
      t.done = false;
      t.waits = nullptr;
      t.counter = nullptr;
      t.groups.clear();
      t.open.clear();
      t.fiber.prepare(&run_thread, &t);
    }
  }

  static void run_thread(void* context) {
    Thread& t = *static_cast<Thread*>(context);
    Machine& machine = instance();
    machine.body_(machine.context_);
    t.done = true;
    t.fiber.leave();
  }

  void run_together(int64_t first, int blocks, int threads, int64_t shared_bytes, int cluster) {
    cluster_ = cluster;
    while (static_cast<int>(group_.size()) < blocks) group_.push_back(std::make_unique<Block>());
    for (int b = 0; b < blocks; ++b) prepare(*group_[b], first + b, threads, shared_bytes);
    clusters_.assign(blocks / cluster, {cluster * threads, 0, 0, 0});
    int left = blocks * threads;
    while (left > 0) {
      bool moved = false;
      for (int b = 0; b < blocks; ++b) {
        for (int i = 0; i < threads; ++i) {
          Thread& t = *group_[b]->fibers[i];
          if (!can_run(t)) continue;
          moved = true;
          current_ = &t;
          t.fiber.enter();
          if (!fault.empty()) return;
          left -= t.done;
        }
      }
      if (!moved) return report_deadlock(blocks, threads);
    }
  }

  // Whether a thread waits, or should, at the barrier that another one waits at.
  static bool concerns(const Thread& t, const Thread& waiting) {
    const std::string where = waiting.where;
    if (where == "group") return t.block != waiting.block;
    if (where == "cluster") return true;
    return t.block == waiting.block && (where != "warp" || t.index / 32 == waiting.index / 32);
  }

  // Some wait for others that ended, or that wait elsewhere.
  void report_deadlock(int blocks, int threads) {
    const Thread *waiting = nullptr, *missing = nullptr;
    for (int b = 0; b < blocks; ++b) {
      for (int i = 0; i < threads; ++i) {
        const Thread& t = *group_[b]->fibers[i];
        if (waiting == nullptr && !t.done) waiting = &t;
      }
    }
    for (int b = 0; b < blocks; ++b) {
      for (int i = 0; i < threads; ++i) {
        const Thread& t = *group_[b]->fibers[i];
        if (missing == nullptr && concerns(t, *waiting) && (t.done || t.waits != waiting->waits)) {
          missing = &t;
        }
      }
    }
    fault = name(*waiting) + " waits at a " + waiting->where + " barrier that " +
            (missing == nullptr ? "another thread" : name(*missing)) + " never reaches";
  }

  void (*body_)(void*) = nullptr;
  void* context_ = nullptr;
  int cluster_ = 1;
  Thread* current_ = nullptr;
  std::vector<std::unique_ptr<Block>> group_;
  std::vector<Barrier> clusters_;
};

}  // namespace rnncells::emulation
