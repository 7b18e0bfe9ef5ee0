// What the persistent kernels have in common: the pair of a sequence and a unit that a thread looks
// after for the whole series, and the sums of its products.
//
// All values of a step that come from memory are asked for one step ahead, into registers, and
// brought near some steps ahead; what is kept is written by stores that nobody waits for.
#pragma once

#include "cuda/exchange.cuh"
#include "cuda/timeline.cuh"

namespace rnncells::gpu {

constexpr int steps_ahead = 3;  // for will_read

// What a thread looks after. Counts fit 32 bits, which make_plan sees to; offsets may not.
struct Pair {
  int row, unit;  // within the block's part; row -1: there is none
  int sequence;   // in the batch
  int column;     // the unit in the layer
  int length;     // of the sequence
  RNNCELLS_DEVICE bool exists() const { return row >= 0; }
};

RNNCELLS_DEVICE Pair pair_of(const Part& part, const Steps& steps) {
  const int index = thread_index();
  if (index >= part.rows * part.units) return {-1, 0, 0, 0, 0};
  const int row = index / part.units, unit = index % part.units;
  const int sequence = part.first_row + row;
  return {row, unit, sequence, part.first_unit + unit, static_cast<int>(steps.length(sequence))};
}

// The products of one pair, `Count` columns side by side, all slices added in their order.
template <int Count>
RNNCELLS_DEVICE void add_slices(const ProductPlan& plan, const Shared<float>& sums, int rows,
                                const Pair& pair, float (&total)[Count]) {
  const int first = pair.row * plan.sums_stride + pair.unit * Count;
  for (int slice = 0; slice < plan.slices; ++slice) {
    const int i = first + slice * rows * plan.sums_stride;
    if constexpr (Count == 4) {
      const Pack<float, 4> four = read_pack<4>(sums, i);
      RNNCELLS_UNROLL
      for (int c = 0; c < Count; ++c) total[c] += four.values[c];
    } else {
      RNNCELLS_UNROLL
      for (int c = 0; c < Count; ++c) total[c] += read(sums, i + c);
    }
  }
}

// A block's columns of the recurrent weights, zero beyond the edges. Objects, not lambdas: what is
// not inlined would move the whole loop's values to memory.
//
// Forward, columns are unit-major, the recurrent shares of a unit side by side, and the depth is
// that of h.
template <class Cell, class T>
class ForwardWeights {
  using P = CellPhase<Cell, 0>;

 public:
  RNNCELLS_DEVICE ForwardWeights(const RecurrentWeights<T>& weights, const Part& part,
                                 int64_t units)
      : values_(weights.weight),
        row_stride_(weights.row_stride),
        column_stride_(weights.column_stride),
        units_(static_cast<int>(units)),
        first_unit_(part.first_unit),
        own_units_(part.units) {}
  RNNCELLS_DEVICE float operator()(int column, int k) const {
    const int unit = column / P::recurrents;
    if (unit >= own_units_ || k >= units_) return 0;
    const int row = P::recurrent_gate(column % P::recurrents) * units_ + first_unit_ + unit;
    return widen(read(values_, row * row_stride_ + k * column_stride_));
  }

 private:
  const Global<const T> values_;
  const int64_t row_stride_, column_stride_;
  const int units_, first_unit_, own_units_;
};

// Backward, a column is a unit of the h before, and the depth is share-major: the gradients of all
// units' first recurrent share come first.
template <class Cell, class T>
class BackwardWeights {
  using P = CellPhase<Cell, 0>;

 public:
  RNNCELLS_DEVICE BackwardWeights(const RecurrentWeights<T>& weights, const Part& part,
                                  int64_t units)
      : values_(weights.weight),
        row_stride_(weights.row_stride),
        column_stride_(weights.column_stride),
        units_(static_cast<int>(units)),
        first_unit_(part.first_unit),
        own_units_(part.units) {}
  RNNCELLS_DEVICE float operator()(int column, int k) const {
    if (column >= own_units_ || k >= P::recurrents * units_) return 0;
    const int row = P::recurrent_gate(k / units_) * units_ + k % units_;
    return widen(read(values_, row * row_stride_ + (first_unit_ + column) * column_stride_));
  }

 private:
  const Global<const T> values_;
  const int64_t row_stride_, column_stride_;
  const int units_, first_unit_, own_units_;
};

}  // namespace rnncells::gpu
