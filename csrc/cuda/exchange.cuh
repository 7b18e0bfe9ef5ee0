// The operand of every step's product, [rows, depth] in a block's shared memory, and how the blocks
// of a group give each other their parts of it.
#pragma once

#include "cuda/engine.h"
#include "cuda/product.cuh"

namespace rnncells::gpu {

// Which rows and units a block has.
struct Part {
  int group, first_row, rank, rows, first_unit, units;

  RNNCELLS_DEVICE Part(const PersistentPlan& plan, int64_t batch, int64_t all_units)
      : group(static_cast<int>(block_index() / plan.ranks)),
        first_row(group * plan.rows),
        rank(static_cast<int>(block_index() % plan.ranks)),
        rows(static_cast<int>(smaller(plan.rows, batch - first_row))),
        first_unit(rank * plan.units),
        units(static_cast<int>(larger(0, smaller(plan.units, all_units - first_unit)))) {}
};

template <class E>
class OperandExchange {
  static constexpr int pack = 16 / static_cast<int>(sizeof(E));

 public:
  RNNCELLS_DEVICE OperandExchange(const PersistentPlan& plan, const Part& part,
                                  SharedMemory& memory, void* workspace)
      : plan_(plan),
        part_(part),
        shared_(memory.take<E>(operand_elements(plan))),
        global_(at<E>(workspace, packed_bytes(plan.product, operand_of<E>(), plan.ranks))),
        counter_(at<uint32_t>(
            workspace, counters_begin(plan, operand_of<E>()) + part.group * counter_stride)) {}

  RNNCELLS_DEVICE const Shared<E>& memory() const { return shared_; }
  // Where the operand of product number `round` begins.
  RNNCELLS_DEVICE int first(int round) const {
    return plan_.exchange == Exchange::cluster ? round % 2 * buffer() : 0;
  }

  // All rows and columns, those beyond the edges too.
  RNNCELLS_DEVICE void clear() {
    const int elements = static_cast<int>(operand_elements(plan_));
    for (int i = thread_index(); i < elements; i += block_threads()) {
      write(shared_, i, stored<E>(0.0f));
    }
    block_barrier();
  }
  // Fills this block's copy before the first step, from [B, depth], or leaves the zeros.
  template <class T>
  RNNCELLS_DEVICE void fill(Global<const T> from, bool given) {
    if (!given) return;
    const int depth = plan_.product.depth;
    for (int i = thread_index(); i < part_.rows * depth; i += block_threads()) {
      const int row = i / depth, k = i % depth;
      const float value = widen(read(from, int64_t{part_.first_row + row} * depth + k));
      write(shared_, row * plan_.product.operand_stride + k, stored<E>(value));
    }
  }
  // After fill or clear.
  RNNCELLS_DEVICE void begin() {
    if (plan_.exchange == Exchange::cluster) {
      cluster_barrier();
    } else {
      block_barrier();
    }
  }

  // One element of the operand that follows that of `round`, for all blocks of the group.
  RNNCELLS_DEVICE void publish(int round, int row, int k, float value) {
    const E element = stored<E>(value);
    const int i = row * plan_.product.operand_stride + k;
    if (plan_.exchange == Exchange::block) {
      write(shared_, i, element);
    } else if (plan_.exchange == Exchange::cluster) {
      const int place = (round + 1) % 2 * buffer() + i;
      for (int rank = 0; rank < plan_.ranks; ++rank) write(at_rank(shared_, rank), place, element);
    } else {
      write(global_, row_of(round, row) + k, element);
    }
  }
  // Until every block of the group has all of it.
  RNNCELLS_DEVICE void turn(int round) {
    if (plan_.exchange == Exchange::block) {
      block_barrier();
    } else if (plan_.exchange == Exchange::cluster) {
      cluster_barrier();
    } else {
      group_barrier(counter_, plan_.ranks, round);
      fetch(round);
    }
  }

 private:
  // Elements of one of a cluster's two buffers.
  RNNCELLS_DEVICE int buffer() const { return plan_.rows * plan_.product.operand_stride; }
  template <class V>
  RNNCELLS_DEVICE V* at(void* workspace, int64_t bytes) const {
    const bool used = plan_.exchange == Exchange::grid;
    return used ? reinterpret_cast<V*>(static_cast<char*>(workspace) + bytes) : nullptr;
  }
  // Two buffers in turn: a block may still read one while another fills the next.
  RNNCELLS_DEVICE int64_t row_of(int round, int row) const {
    return ((round % 2 * plan_.groups + part_.group) * plan_.rows + row) * plan_.exchange_stride;
  }
  RNNCELLS_DEVICE void fetch(int round) {
    const int packs = plan_.exchange_stride / pack;
    for (int i = thread_index(); i < part_.rows * packs; i += block_threads()) {
      const int row = i / packs, k = i % packs * pack;
      copy_async(shared_, row * plan_.product.operand_stride + k, global_, row_of(round, row) + k);
    }
    copy_commit();
    copy_wait<0>();
    block_barrier();
  }

  const PersistentPlan& plan_;
  const Part part_;  // a copy: an address kept in an object would move the object to memory
  const Shared<E> shared_;
  const Global<E> global_;
  const Global<uint32_t> counter_;
};

}  // namespace rnncells::gpu
