// A few rows for a few time steps: streaming.
//
// Packing weights would cost more than the products themselves. Each is read once, as it is: the
// lanes go along the rows of the weights, and the sums of a vector's lanes come last, which is
// another order than the other regimes'. Nothing is allocated.
#pragma once

#include "cpu/forward.h"
#include "cpu/lanes.h"

namespace rnncells {
namespace RNNCELLS_ISA {

// Adds to each sum, lane by lane, the products of a row of a weight with the operand.
template <int Rows, class S>
RNNCELLS_INLINE void add_rows(const S* weight, int64_t row_stride, const S* operand, int64_t depth,
                              Vec<Compute<S>> (&sum)[Rows]) {
  using V = Vec<Compute<S>>;
  int64_t k = 0;
  for (; k + V::lanes <= depth; k += V::lanes) {
    const V value = load_vector(operand + k);
    RNNCELLS_UNROLL
    for (int row = 0; row < Rows; ++row) {
      sum[row] = mul_add(load_vector(weight + row * row_stride + k), value, sum[row]);
    }
  }
  if (k == depth) return;
  const int left = static_cast<int>(depth - k);
  const V value = load_vector(operand + k, left);
  RNNCELLS_UNROLL
  for (int row = 0; row < Rows; ++row) {
    sum[row] = mul_add(load_vector(weight + row * row_stride + k, left), value, sum[row]);
  }
}
// The same for the first `rows` sums.
template <class S>
RNNCELLS_OUT_OF_LINE void add_products(const S* weight, int64_t row_stride, const S* operand,
                                       int64_t depth, int rows,
                                       Vec<Compute<S>> (&sum)[Vec<Compute<S>>::lanes]) {
  using V = Vec<Compute<S>>;
  if (rows == V::lanes) {
    add_rows<V::lanes>(weight, row_stride, operand, depth, sum);
    return;
  }
  for (int row = 0; row < rows; ++row) {
    V one[1] = {sum[row]};
    add_rows<1>(weight + row * row_stride, row_stride, operand, depth, one);
    sum[row] = one[0];
  }
}

// The sum of each vector's lanes.
template <class V>
RNNCELLS_INLINE V sums_of(V (&square)[V::lanes]) {
  turn(square);
  RNNCELLS_UNROLL
  for (int half = V::lanes / 2; half > 0; half /= 2) {
    RNNCELLS_UNROLL
    for (int i = 0; i < half; ++i) square[i] = square[i] + square[i + half];
  }
  return square[0];
}

template <class Cell, class S>
class RowForward {
  using T = Compute<S>;
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;
  static constexpr int states = Cell::states;
  static constexpr int shares = share_count<Cell>();
  static constexpr int save_count = Cell::saved > 0 ? Cell::saved : 1;
  static constexpr Phase phase = Cell::phase(0);

 public:
  explicit RowForward(const ForwardCall<S>& call)
      : call_(call), size_(call.sizes), steps_(call.sizes, nullptr, nullptr, call.reverse) {
    check_cell<Cell>();
  }

  void run() const {
    for (int64_t row = 0; row < size_.batch; ++row) {
      for (int64_t s = 0; s < size_.steps; ++s) run_step(s, row);
      const S* h = y(size_.steps - 1, row);
      copy_row(h, size_.units, call_.last[0] + row * size_.units);
    }
  }

 private:
  S* y(int64_t s, int64_t row) const { return steps_.output_rows(call_, steps_.at(s), row).base; }

  RNNCELLS_OUT_OF_LINE void run_step(int64_t s, int64_t row) const {
    const S* previous[states];
    for (int i = 0; i < states; ++i) {
      // The last states hold those besides h from step to step.
      const S* const initial = call_.initial[i];
      previous[i] = initial == nullptr ? nullptr : initial + row * size_.units;
      if (s > 0) previous[i] = i == 0 ? y(s - 1, row) : call_.last[i] + row * size_.units;
    }
    const int64_t t = steps_.at(s);
    const S* x = call_.x + t * call_.x_step_stride + row * call_.x_batch_stride;
    for (int64_t unit = 0; unit < size_.units; unit += lanes) {
      run_cell(x, previous, unit, static_cast<int>(smaller(lanes, size_.units - unit)), y(s, row),
               row, t);
    }
  }

  // Units [unit, unit + present) of one row.
  RNNCELLS_INLINE void run_cell(const S* x, const S* const* before, int64_t unit, int present,
                                S* out, int64_t row, int64_t t) const {
    const Weights<S>& w = call_.weights;
    V share[shares], previous[states], next[states], save[save_count];
    RNNCELLS_UNROLL
    for (int i = 0; i < shares; ++i) {
      const int64_t first = phase.gate_of_share[i] * size_.units + unit;
      V sum[lanes], bias(0);
      RNNCELLS_UNROLL
      for (int lane = 0; lane < lanes; ++lane) sum[lane] = V(0);
      if (i < phase.input.end()) {
        add_products(w.input + first * w.input_row_stride, w.input_row_stride, x, size_.inputs,
                     present, sum);
        if (w.input_bias != nullptr) bias = load_vector(w.input_bias + first, present);
      }
      if (i >= phase.recurrent.first) {
        if (before[0] != nullptr) {
          add_products(w.recurrent + first * w.recurrent_row_stride, w.recurrent_row_stride,
                       before[0], size_.units, present, sum);
        }
        if (w.recurrent_bias != nullptr) {
          bias = bias + load_vector(w.recurrent_bias + first, present);
        }
      }
      share[i] = sums_of(sum) + bias;
    }
    RNNCELLS_UNROLL
    for (int i = 0; i < states; ++i) {
      previous[i] = before[i] == nullptr ? V(0) : load_vector(before[i] + unit, present);
    }
    Cell::template forward<0>(share, previous, next, save);
    store_vector(next[0], out + unit, present);
    if (call_.reserve != nullptr) {
      const int saved = call_.recompute ? 0 : Cell::saved;
      S* kept = call_.reserve + (t * size_.batch + row) * (saved + states - 1) * size_.units + unit;
      RNNCELLS_UNROLL
      for (int i = 0; i < Cell::saved; ++i) {
        if (i >= saved) break;
        store_vector(save[i], kept, present);
        kept += size_.units;
      }
      RNNCELLS_UNROLL
      for (int i = 1; i < states; ++i, kept += size_.units) store_vector(next[i], kept, present);
    }
    RNNCELLS_UNROLL
    for (int i = 1; i < states; ++i) {
      store_vector(next[i], call_.last[i] + row * size_.units + unit, present);
    }
  }

  const ForwardCall<S>& call_;
  const Sizes size_;
  const TimeSteps steps_;
};

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
