// The forward pass of one direction: input shares, then the loop over time.
//
// Each thread takes some of the sequences through all time steps, so that no barrier stands in the
// loop. A step multiplies the hidden rows with one panel of weights, leaves the shares of a few
// rows and units in a tile in L1, and runs the cell on them.
#pragma once

#include "cpu/layout.h"

namespace rnncells {
namespace RNNCELLS_ISA {

// Up to this many inputs their product is part of the loop: a buffer of input shares, written and
// read again, would cost more than the product itself.
constexpr int64_t widest_fused_input = 32;
// The input shares of the time steps that are computed at once stay in the second-level cache.
constexpr int64_t input_share_bytes = 256 * 1024;

// The rows of one state at one time step.
template <class T>
struct Rows {
  T* base;
  int64_t stride;
  RNNCELLS_INLINE T* operator[](int64_t row) const { return base + row * stride; }
};

template <class Cell, class T, bool Keep>
class ForwardPass {
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;
  static constexpr int states = Cell::states;
  static constexpr int slots = reserve_slots<Cell>();
  // Without a reserve the saved values have a place of their own only where a later phase reads
  // them.
  static constexpr bool saves = Keep || Cell::phases > 1;
  static constexpr int save_count = Cell::saved > 0 ? Cell::saved : 1;

 public:
  explicit ForwardPass(const ForwardCall<T>& call)
      : call_(call),
        size_(call.sizes),
        layout_(call.sizes.units),
        fused_(size_.inputs <= widest_fused_input),
        biases_(layout_.row()),
        input_weights_(layout_.row() * size_.inputs),
        recurrent_weights_(layout_.row() * size_.units),
        zeros_(layout_.padded()) {
    check_cell<Cell>();
    zeros_.clear(layout_.padded());
    pack_biases<Cell>(call.weights, size_.units, biases_.get());
    const Weights<T>& w = call.weights;
    for_phases<Cell>([&](auto index) {
      constexpr int P = decltype(index)::value;
      using L = PhaseLayout<Cell, P>;
      pack_columns(L::phase, L::phase.input, L::unit_vectors, size_.units, w.input,
                   w.input_row_stride, w.input_column_stride, size_.inputs,
                   input_weights_ + layout_.phase_begin(P) * size_.inputs);
      pack_columns(L::phase, L::phase.recurrent, L::unit_vectors, size_.units, w.recurrent,
                   w.recurrent_row_stride, w.recurrent_column_stride, size_.units,
                   recurrent_weights_ + layout_.phase_begin(P) * size_.units);
    });
  }

  void run() const {
    const int64_t work =
        size_.steps * size_.batch * Cell::gates * size_.units * (size_.inputs + size_.units);
    in_parallel(call_.pool, size_.batch, work,
                [this](int64_t begin, int64_t end) { run_rows(begin, end); });
  }

 private:
  // Where the states of one step come from and go to, for the sequences of one thread.
  struct Step {
    Rows<const T> previous[states];
    Rows<T> next[states];
    Rows<T> saved;         // [rows, saved * saved_width]
    Rows<const T> x;       // the input, or
    Rows<const T> shares;  // its shares (or the biases), in panels
  };

  void run_rows(int64_t begin, int64_t end) const {
    const int64_t rows = end - begin, padded = layout_.padded();
    // Without a reserve, the states besides h live here, each replaced by its successor.
    const Buffer<T> rolling(Keep ? 0 : (states - 1) * rows * padded);
    const Buffer<T> saved(saves && !Keep ? rows * Cell::saved * padded : 0);
    const int64_t chunk =
        fused_ ? size_.steps
               : larger(1, smaller(size_.steps, input_share_bytes /
                                                    (rows * layout_.row() * int64_t{sizeof(T)})));
    const Buffer<T> shares(fused_ ? 0 : chunk * rows * layout_.row());
    for (int64_t s = 0; s < size_.steps; ++s) {
      if (!fused_ && s % chunk == 0) {
        input_shares(s, smaller(s + chunk, size_.steps), begin, rows, shares.get());
      }
      Step step = states_of(s, begin, rows, rolling.get(), saved.get());
      step.shares = fused_
                        ? Rows<const T>{biases_.get(), 0}
                        : Rows<const T>{shares + (s % chunk) * rows * layout_.row(), layout_.row()};
      for_phases<Cell>([&](auto index) { run_phase<decltype(index)::value>(step, rows); });
    }
    copy_last(begin, rows, rolling.get());
  }

  int64_t time(int64_t s) const { return call_.reverse ? size_.steps - 1 - s : s; }
  Rows<T> output(int64_t t, int64_t row) const {
    return {call_.y + (t * size_.batch + row) * call_.y_row_stride, call_.y_row_stride};
  }
  Rows<T> reserved(int64_t t, int64_t row, int64_t slot) const {
    const int64_t width = slots * size_.units;
    return {call_.reserve + (t * size_.batch + row) * width + slot * size_.units, width};
  }
  Rows<T> state(int i, int64_t t, int64_t begin, int64_t rows, T* rolling) const {
    if (i == 0) return output(t, begin);
    if constexpr (Keep) return reserved(t, begin, Cell::saved + i - 1);
    return {rolling + (i - 1) * rows * layout_.padded(), layout_.padded()};
  }

  Step states_of(int64_t s, int64_t begin, int64_t rows, T* rolling, T* saved) const {
    const int64_t t = time(s);
    Step step;
    for (int i = 0; i < states; ++i) {
      step.next[i] = state(i, t, begin, rows, rolling);
      if (s > 0) {
        const Rows<T> before = state(i, time(s - 1), begin, rows, rolling);
        step.previous[i] = {before.base, before.stride};
      } else if (call_.initial[i] != nullptr) {
        step.previous[i] = {call_.initial[i] + begin * size_.units, size_.units};
      } else {
        step.previous[i] = {zeros_.get(), 0};
      }
    }
    step.saved = Keep ? reserved(t, begin, 0) : Rows<T>{saved, Cell::saved * layout_.padded()};
    step.x = {call_.x + t * call_.x_step_stride + begin * call_.x_batch_stride,
              call_.x_batch_stride};
    return step;
  }
  // Distance of two saved values of a unit.
  int64_t saved_width() const { return Keep ? size_.units : layout_.padded(); }

  // The shares of steps [from, to), [steps, rows, row of panels].
  void input_shares(int64_t from, int64_t to, int64_t begin, int64_t rows, T* shares) const {
    const int64_t row = layout_.row();
    for_phases<Cell>([&](auto index) {
      constexpr int P = decltype(index)::value;
      using L = PhaseLayout<Cell, P>;
      for_panels<P>([&](auto vectors, int64_t v0) {
        constexpr int width = L::shares * decltype(vectors)::value;
        constexpr int input_width = L::input_shares * decltype(vectors)::value;
        const int64_t panel = layout_.phase_begin(P) + v0 * L::shares * lanes;
        for (int64_t s = from; s < to; ++s) {
          const T* x = call_.x + time(s) * call_.x_step_stride + begin * call_.x_batch_stride;
          T* out = shares + (s - from) * rows * row + panel;
          for_row_tiles(rows, tile_rows(width), [&](int64_t first, int64_t count) {
            const Factors<T> factors{size_.inputs, x + first * call_.x_batch_stride,
                                     call_.x_batch_stride, call_.x_column_stride,
                                     input_panel<P>(v0)};
            tile_kernel<T, width, input_width, 0>(count)(biases_ + panel, 0, factors,
                                                         no_factors<T>(), out + first * row, row);
          });
        }
      });
    });
  }

  // Calls body(Index<vectors>(), first vector) for each panel of phase P.
  template <int P, class Body>
  RNNCELLS_INLINE void for_panels(const Body& body) const {
    constexpr int most = PhaseLayout<Cell, P>::unit_vectors;
    int64_t v0 = 0;
    for (; v0 + most <= layout_.vectors; v0 += most) body(Index<most>(), v0);
    const int64_t left = layout_.vectors - v0;
    if constexpr (most > 3) {
      if (left == 3) body(Index<3>(), v0);
    }
    if constexpr (most > 2) {
      if (left == 2) body(Index<2>(), v0);
    }
    if constexpr (most > 1) {
      if (left == 1) body(Index<1>(), v0);
    }
  }

  template <int P>
  RNNCELLS_INLINE const T* input_panel(int64_t v0) const {
    return input_weights_ + layout_.phase_begin(P) * size_.inputs +
           v0 * PhaseLayout<Cell, P>::input_shares * lanes * size_.inputs;
  }
  template <int P>
  RNNCELLS_INLINE const T* recurrent_panel(int64_t v0) const {
    return recurrent_weights_ + layout_.phase_begin(P) * size_.units +
           v0 * PhaseLayout<Cell, P>::recurrent_shares * lanes * size_.units;
  }

  template <int P>
  void run_phase(const Step& step, int64_t rows) const {
    using L = PhaseLayout<Cell, P>;
    constexpr int operand_slot = L::phase.operand;
    Rows<const T> operand = step.previous[0];
    if constexpr (operand_slot >= 0) {
      operand = {step.saved.base + operand_slot * saved_width(), step.saved.stride};
    }
    for_panels<P>([&](auto vectors, int64_t v0) {
      constexpr int count = decltype(vectors)::value;
      constexpr int width = L::shares * count;
      alignas(64) T tile[tile_rows(width) * width * lanes];
      const int64_t panel = layout_.phase_begin(P) + v0 * L::shares * lanes;
      for_row_tiles(rows, tile_rows(width), [&](int64_t first, int64_t tile_height) {
        const Factors<T> input{fused_ ? size_.inputs : 0, step.x[first], call_.x_batch_stride,
                               call_.x_column_stride, input_panel<P>(v0)};
        const Factors<T> recurrent{size_.units, operand[first], operand.stride, 1,
                                   recurrent_panel<P>(v0)};
        tile_kernel<T, width, L::input_shares * count, L::recurrent_begin * count>(tile_height)(
            step.shares[first] + panel, step.shares.stride, input, recurrent, tile, width * lanes);
        for (int v = 0; v < count; ++v) {
          const int64_t unit = (v0 + v) * lanes;
          const int present = static_cast<int>(smaller(lanes, size_.units - unit));
          if (present == lanes) {
            run_cell<P, count, true>(step, first, tile_height, unit, lanes, tile + v * lanes);
          } else {
            run_cell<P, count, false>(step, first, tile_height, unit, present, tile + v * lanes);
          }
        }
      });
    });
  }

  // The cell on one vector of units and the rows of a tile.
  template <int P, int Count, bool Full>
  RNNCELLS_INLINE void run_cell(const Step& step, int64_t first, int64_t height, int64_t unit,
                                int present, const T* tile) const {
    using L = PhaseLayout<Cell, P>;
    constexpr Range filled = L::phase.saves;
    for (int64_t m = 0; m < height; ++m, tile += L::shares * Count * lanes) {
      V share[L::shares], previous[states], next[states], save[save_count];
      RNNCELLS_UNROLL
      for (int i = 0; i < L::shares; ++i) share[i] = V::load(tile + i * Count * lanes);
      RNNCELLS_UNROLL
      for (int i = 0; i < states; ++i) {
        previous[i] = load_lanes<Full>(step.previous[i][first + m] + unit, present);
      }
      T* saved = step.saved[first + m] + unit;
      RNNCELLS_UNROLL
      for (int i = 0; i < Cell::saved; ++i) {
        if (i < filled.first) save[i] = load_lanes<Full>(saved + i * saved_width(), present);
      }
      Cell::template forward<P>(share, previous, next, save);
      if constexpr (saves) {
        RNNCELLS_UNROLL
        for (int i = 0; i < Cell::saved; ++i) {
          if (filled.first > i || i >= filled.end()) continue;
          store_lanes<Full>(save[i], saved + i * saved_width(), present);
        }
      }
      if constexpr (P == Cell::phases - 1) {
        RNNCELLS_UNROLL
        for (int i = 0; i < states; ++i) {
          store_lanes<Full>(next[i], step.next[i][first + m] + unit, present);
        }
      }
    }
  }

  void copy_last(int64_t begin, int64_t rows, T* rolling) const {
    for (int i = 0; i < states; ++i) {
      const Rows<T> source = state(i, time(size_.steps - 1), begin, rows, rolling);
      for (int64_t row = 0; row < rows; ++row) {
        memcpy(call_.last[i] + (begin + row) * size_.units, source[row],
               static_cast<size_t>(size_.units) * sizeof(T));
      }
    }
  }

  const ForwardCall<T>& call_;
  const Sizes size_;
  const ShareLayout<Cell, T> layout_;
  const bool fused_;
  Buffer<T> biases_, input_weights_, recurrent_weights_, zeros_;
};

template <class Cell, class T>
void forward(const ForwardCall<T>& call) {
  if (call.sizes.batch == 0) return;
  if (call.reserve != nullptr) {
    ForwardPass<Cell, T, true>(call).run();
  } else {
    ForwardPass<Cell, T, false>(call).run();
  }
}

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
