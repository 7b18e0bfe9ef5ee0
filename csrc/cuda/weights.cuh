// The recurrent weights, laid out for the persistent kernels by one small kernel before each: packs
// of 16 bytes, [ranks][slice_steps][4][threads that multiply], so that every thread of a block
// loads its own in a few wide reads, whatever the strides, the gates' order and the edges.
#pragma once

#include "cuda/engine.h"
#include "cuda/values.cuh"

namespace rnncells::gpu {

template <class E>
constexpr Operand operand_of() {
  return sizeof(E) == 2 ? Operand::sixteen_bits : Operand::tensor_floats;
}
template <>
constexpr Operand operand_of<float>() {
  return Operand::singles;
}

using Words = Pack<uint32_t, 4>;

template <class T>
struct PackWeights {
  RecurrentWeights<T> weights;
  PersistentPlan plan;
  int64_t units;
  uint32_t* workspace;  // the packs, then what must be zero
  int64_t words, zeros;
};

// A block's columns of the recurrent weights, zero beyond the edges.
//
// Forward, columns are unit-major, the recurrent shares of a unit side by side, and the depth is
// that of h. Backward, a column is a unit of the h before, and the depth is share-major: the
// gradients of all units' first recurrent share come first.
template <class Cell, class T, bool Backward>
RNNCELLS_DEVICE float weight_at(const PackWeights<T>& call, int rank, int column, int k) {
  using P = CellPhase<Cell, 0>;
  const int units = static_cast<int>(call.units), first = rank * call.plan.units;
  const int64_t own = first + (Backward ? column : column / P::recurrents);
  const int64_t depth = Backward ? P::recurrents * units : units;
  if (column >= call.plan.product.columns || own >= units || k >= depth) return 0;
  const int share = Backward ? k / units : column % P::recurrents;
  const int64_t row = P::recurrent_gate(share) * units + (Backward ? k % units : own);
  return widen(
      read(Global<const T>(call.weights.weight),
           row * call.weights.row_stride + (Backward ? own : k) * call.weights.column_stride));
}

RNNCELLS_DEVICE uint32_t word_of(const float* value) {
  uint32_t bits;
  memcpy(&bits, value, sizeof bits);
  return bits;
}
RNNCELLS_DEVICE uint32_t word_of(const TensorFloat* value) { return value->bits; }
template <class H>
RNNCELLS_DEVICE uint32_t word_of(const H* elements) {
  return elements[0].bits | static_cast<uint32_t>(elements[1].bits) << 16;
}

// Where word w of pack j of a step lies in the step: a thread's own column and depth, the latter of
// the word's first element. One by one, a pack is four columns at one depth. With tiles, packs are
// the first half of the depth by 16 columns and by the next 16, then the second half; a lane has
// words of two columns, eight apart, and of the part of the depth that it reads of the operand.
struct WordPlace {
  int column, k;
};
template <class E>
RNNCELLS_DEVICE WordPlace word_place(int lane, int j, int w) {
  constexpr int each = 4 / sizeof(E);
  if (operand_of<E>() == Operand::singles) return {w, j};
  return {j % 2 * 16 + w % 2 * 8 + lane / 4, (lane % 4 * 4 + j / 2 * 2 + w / 2) * each};
}

constexpr int pack_threads = 256;

template <class Cell, class T, class E, bool Backward>
RNNCELLS_KERNEL(pack_threads)
run_pack_weights(RNNCELLS_PARAMETER(PackWeights<T>) call) {
  constexpr ProductFacts facts = product_facts(operand_of<E>());
  constexpr int each = 4 / sizeof(E);
  const ProductPlan& product = call.plan.product;
  const int64_t i = block_index() * pack_threads + thread_index();
  const Global<uint32_t> workspace(call.workspace);
  if (i < call.zeros) write(workspace, call.words + i, 0u);
  if (i >= call.words / 4) return;
  const int threads = product.column_groups * product.slices * facts.lanes;
  const int thread = static_cast<int>(i % threads), j = static_cast<int>(i / threads % 4);
  const int step = static_cast<int>(i / threads / 4 % product.slice_steps);
  const int rank = static_cast<int>(i / threads / 4 / product.slice_steps);
  const int part = thread / facts.lanes;
  Words words;
  RNNCELLS_UNROLL
  for (int w = 0; w < 4; ++w) {
    const WordPlace place = word_place<E>(thread % facts.lanes, j, w);
    const int column = part % product.column_groups * facts.step_columns + place.column;
    const int slice = part / product.column_groups;
    const int k = (slice * product.slice_steps + step) * facts.step_depth + place.k;
    E elements[each];
    RNNCELLS_UNROLL
    for (int e = 0; e < each; ++e) {
      elements[e] = stored<E>(weight_at<Cell, T, Backward>(call, rank, column, k + e));
    }
    words.values[w] = word_of(elements);
  }
  write_pack(workspace, i * 4, words);
}

// A thread's packs, in registers as far as they fit, the rest in shared memory.
template <class E>
class KeptWeights {
  static constexpr ProductFacts facts = product_facts(operand_of<E>());

 public:
  // packed: those of all ranks.
  RNNCELLS_DEVICE KeptWeights(const ProductPlan& plan, SharedMemory& memory,
                              Global<const uint32_t> packed, int rank)
      : threads_(plan.column_groups * plan.slices * facts.lanes) {
    const int left = plan.slice_steps - facts.kept_steps;
    more_ = memory.take<uint32_t>(left > 0 ? left * 16 * threads_ : 0);
    if (!multiplies()) return;
    const int64_t first = int64_t{rank} * plan.slice_steps * 16 * threads_;
    RNNCELLS_UNROLL
    for (int step = 0; step < facts.kept_steps; ++step) {
      RNNCELLS_UNROLL
      for (int j = 0; j < 4; ++j) {
        if (step < plan.slice_steps) {
          kept_[step][j] = read_pack<4>(packed, first + place(step, j));
        }
      }
    }
    for (int step = facts.kept_steps; step < plan.slice_steps; ++step) {
      for (int j = 0; j < 4; ++j) {
        copy_async(more_, place(step - facts.kept_steps, j), packed, first + place(step, j));
      }
    }
    copy_commit();
    copy_wait<0>();  // a thread reads only what it copied
  }

  // Whether this thread has any.
  RNNCELLS_DEVICE bool multiplies() const { return thread_index() < threads_; }
  // Those of a step; the index of a kept step is known when compiling.
  RNNCELLS_DEVICE const Words (&kept(int step) const)[4] { return kept_[step]; }
  RNNCELLS_DEVICE Words more(int step, int j) const {
    return read_pack<4>(more_, place(step - facts.kept_steps, j));
  }

 private:
  RNNCELLS_DEVICE int place(int step, int j) const {
    return ((step * 4 + j) * threads_ + thread_index()) * 4;
  }

  const int threads_;
  Words kept_[facts.kept_steps][4];
  Shared<uint32_t> more_;
};

}  // namespace rnncells::gpu
