// The forward pass of one direction with the lanes over the batch.
//
// A block of sequences goes through all time steps. Its states stand in [units, sequences], so that
// the shares of a few units are a product of a few rows of the weights, read where they are, with
// the states. Sums are taken in the same order as with the lanes over the units.
#pragma once

#include "cpu/forward.h"
#include "cpu/lanes.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class Cell, class S>
class LaneForward {
  using T = Compute<S>;
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;
  static constexpr int states = Cell::states;
  static constexpr int shares = share_count<Cell>();
  static constexpr int save_count = Cell::saved > 0 ? Cell::saved : 1;
  static constexpr Phase phase = Cell::phase(0);

 public:
  explicit LaneForward(const ForwardCall<S>& call)
      : call_(call),
        size_(call.sizes),
        steps_(call.sizes, nullptr, nullptr, call.reverse),
        fused_(size_.inputs <= widest_fused_input),
        keeps_(call.reserve != nullptr),
        reserve_{call.reserve, size_.batch, reserve_slots<Cell>() * size_.units},
        biases_(shares * size_.units),
        added_biases_(shares * size_.units),
        wide_input_(converts<S> ? Cell::gates * size_.units * size_.inputs : 0),
        wide_recurrent_(converts<S> ? Cell::gates * size_.units * size_.units : 0) {
    check_cell<Cell>();
    const Weights<S>& w = call.weights;
    const int64_t rows = Cell::gates * size_.units;
    input_ = as_operand<S>({w.input, w.input_row_stride, nullptr}, w.input_column_stride, rows,
                           size_.inputs, wide_input_.get());
    recurrent_ = as_operand<S>({w.recurrent, w.recurrent_row_stride, nullptr},
                               w.recurrent_column_stride, rows, size_.units, wide_recurrent_.get());
    for (int share = 0; share < shares; ++share) {
      for (int64_t unit = 0; unit < size_.units; ++unit) {
        biases_.get()[share * size_.units + unit] = bias(share, unit);
        added_biases_.get()[share * size_.units + unit] = fused_ ? bias(share, unit) : T(0);
      }
    }
  }

  void run() const {
    const int64_t work =
        size_.steps * size_.batch * Cell::gates * size_.units * (size_.inputs + size_.units);
    in_parallel(call_.pool, ceil_divide(size_.batch, lanes), work,
                [this](int64_t begin, int64_t end) {
                  for_blocks(begin, end, [this](auto width, int64_t vector) {
                    this->template run_block<decltype(width)::value>(vector * lanes);
                  });
                });
  }

 private:
  template <int Width>
  struct Block {
    static constexpr int width = Width * lanes;
    const int64_t row;          // the first sequence
    const Buffer<T> x;          // [I, width]
    const Buffer<T> hidden[2];  // [H, width], before and after a step
    const Buffer<T> others;     // [states - 1, H, width], each replaced by its successor
    const Buffer<S> kept;       // [reserve slots, H, lanes], of a group that fills no vector

    Block(const Sizes& size, int64_t first)
        : row(first),
          x(size.inputs * width),
          hidden{Buffer<T>(size.units * width), Buffer<T>(size.units * width)},
          others((states - 1) * size.units * width),
          kept(reserve_slots<Cell>() * size.units * lanes) {}
  };

  T bias(int share, int64_t unit) const {
    const Weights<S>& w = call_.weights;
    const int64_t row = phase.gate_of_share[share] * size_.units + unit;
    T sum = T(0);
    if (share < phase.input.end() && w.input_bias != nullptr) {
      sum += widen(w.input_bias[row * w.input_bias_stride]);
    }
    if (share >= phase.recurrent.first && w.recurrent_bias != nullptr) {
      sum += widen(w.recurrent_bias[row * w.recurrent_bias_stride]);
    }
    return sum;
  }

  // How many sequences of a block stand in its vector w.
  int64_t present(int64_t row, int w) const {
    return larger(0, smaller(lanes, size_.batch - row - w * lanes));
  }

  template <int Width>
  RNNCELLS_OUT_OF_LINE void run_block(int64_t row) const {
    const Block<Width> block(size_, row);
    constexpr int64_t width = Block<Width>::width;
    start(call_.initial[0], block.hidden[0].get(), width, row, Width);
    for (int i = 1; i < states; ++i) {
      start(call_.initial[i], block.others + (i - 1) * size_.units * width, width, row, Width);
    }
    for (int64_t s = 0; s < size_.steps; ++s) {
      const int64_t t = steps_.at(s);
      for (int w = 0; w < Width; ++w) {
        rows_to_lanes<S>(
            steps_.rows_of(call_.x, t, row + w * lanes, call_.x_step_stride, call_.x_batch_stride),
            call_.x_column_stride, present(row, w), size_.inputs, block.x + w * lanes, width);
      }
      const T* before = block.hidden[s % 2].get();
      T* after = block.hidden[(s + 1) % 2].get();
      run_step<Width>(block, t, before, after);
      for (int w = 0; w < Width; ++w) {
        lanes_to_rows<S, true>(after + w * lanes, width, present(row, w), size_.units,
                               steps_.output_rows(call_, t, row + w * lanes));
      }
    }
    for (int i = 0; i < states; ++i) {
      const T* state = i == 0 ? block.hidden[size_.steps % 2].get()
                              : block.others + (i - 1) * size_.units * width;
      for (int w = 0; w < Width; ++w) {
        lanes_to_rows<S, true>(state + w * lanes, width, present(row, w), size_.units,
                               steps_.state_rows(call_.last[i], row + w * lanes, size_.units));
      }
    }
  }

  RNNCELLS_OUT_OF_LINE void start(const S* initial, T* state, int64_t width, int64_t row,
                                  int vectors) const {
    if (initial == nullptr) {
      clear_row(state, size_.units * width);
      return;
    }
    for (int w = 0; w < vectors; ++w) {
      rows_to_lanes<S>(steps_.state_rows(initial, row + w * lanes, size_.units), 1, present(row, w),
                       size_.units, state + w * lanes, width);
    }
  }

  template <int Width>
  RNNCELLS_INLINE void run_step(const Block<Width>& block, int64_t t, const T* before,
                                T* after) const {
    constexpr int64_t width = Block<Width>::width;
    constexpr int most = tile_rows(Width);
    alignas(64) static constexpr T zeros[width] = {};
    alignas(64) T tile[shares * most * width];
    Rows<S> kept[Width] = {};
    for (int w = 0; w < Width && keeps_; ++w) kept[w] = reserve_.at(t, block.row + w * lanes);
    const Rows<S> place = kept[Width - 1];
    const int64_t count = present(block.row, Width - 1);  // all other vectors are full
    const bool partial = keeps_ && count < lanes;
    if (partial) kept[Width - 1] = {block.kept.get(), lanes};
    for_row_tiles(size_.units, most, [&](int64_t unit, int64_t units) {
      const TileKernel<T> kernel = tile_kernel<T, Width, Width, 0>(units);
      RNNCELLS_UNROLL
      for (int share = 0; share < shares; ++share) {
        const int64_t row = phase.gate_of_share[share] * size_.units + unit;
        Factors<T> input = no_factors<T>(), recurrent = no_factors<T>();
        if (share < phase.input.end()) {
          input = {size_.inputs, input_[row], input_.row_stride, input_.column_stride,
                   block.x.get()};
        }
        if (share >= phase.recurrent.first) {
          recurrent = {size_.units, recurrent_[row], recurrent_.row_stride,
                       recurrent_.column_stride, before};
        }
        T* sums = tile + share * most * width;
        if (fused_) {
          kernel(zeros, 0, input, recurrent, sums, width);
          continue;
        }
        // As with the lanes over the units: first the input's share with the biases.
        for (int64_t j = 0; j < units * width; j += lanes) {
          V(biases_.get()[share * size_.units + unit + j / width]).store(sums + j);
        }
        kernel(sums, width, input, no_factors<T>(), sums, width);
        kernel(sums, width, no_factors<T>(), recurrent, sums, width);
      }
      for (int w = 0; w < Width; ++w)
        run_cell<Width>(block, kept[w], unit, units, w, tile, before, after);
    });
    if (partial) {
      copy_lanes(block.kept.get(), lanes, reserve_.values, count, place.base, place.stride);
    }
  }

  // The cell on a few units of one vector of sequences; `kept` is where the reserve has them.
  template <int Width>
  RNNCELLS_INLINE void run_cell(const Block<Width>& block, Rows<S> kept, int64_t first_unit,
                                int64_t units, int w, const T* tile, const T* before,
                                T* after) const {
    constexpr int64_t width = Block<Width>::width;
    constexpr int most = tile_rows(Width);
    for (int64_t m = 0; m < units; ++m) {
      const int64_t unit = first_unit + m, place = unit * width + w * lanes;
      V share[shares], previous[states], next[states], save[save_count];
      RNNCELLS_UNROLL
      for (int i = 0; i < shares; ++i) {
        share[i] = V::load(tile + (i * most + m) * width + w * lanes) +
                   V(added_biases_.get()[i * size_.units + unit]);
      }
      previous[0] = Cell::direct_hidden ? V::load(before + place) : V(0);
      RNNCELLS_UNROLL
      for (int i = 1; i < states; ++i) {
        previous[i] = V::load(block.others + (i - 1) * size_.units * width + place);
      }
      Cell::template forward<0>(share, previous, next, save);
      if (keeps_) {
        RNNCELLS_UNROLL
        for (int i = 0; i < Cell::saved; ++i) store_vector(save[i], kept[i * size_.units + unit]);
        RNNCELLS_UNROLL
        for (int i = 1; i < states; ++i) {
          store_vector(next[i], kept[(Cell::saved + i - 1) * size_.units + unit]);
        }
      }
      rounded<S>(next[0]).store(after + place);
      RNNCELLS_UNROLL
      for (int i = 1; i < states; ++i) {
        rounded<S>(next[i]).store(block.others + (i - 1) * size_.units * width + place);
      }
    }
  }

  const ForwardCall<S>& call_;
  const Sizes size_;
  const TimeSteps steps_;
  const bool fused_, keeps_;
  const LaneSeries<S> reserve_;
  Buffer<T> biases_, added_biases_;  // [shares * H]; those added after the products
  Buffer<T> wide_input_, wide_recurrent_;
  Operand<T> input_, recurrent_;  // [G*H, I] and [G*H, H]
};

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
