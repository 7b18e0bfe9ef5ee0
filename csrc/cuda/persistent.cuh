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

}  // namespace rnncells::gpu
