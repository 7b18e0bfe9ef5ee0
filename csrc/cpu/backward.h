// Backpropagation through time for one direction.
//
// The sequence is taken in chunks of time steps, last first. For each chunk the loop over time
// turns the gradients of the outputs into the gradients of the shares (each thread its own
// sequences), and then the weights' gradients grow by one product per weight over all rows of the
// chunk. How the work is split over threads changes no sum.
#pragma once

#include "cpu/forward.h"
#include "cpu/weight_gradients.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class Cell, class T>
class BackwardPass {
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;
  static constexpr int states = Cell::states;
  static constexpr int slots = reserve_slots<Cell>();
  static constexpr int shares = share_count<Cell>();
  static constexpr int last_phase = Cell::phases - 1;
  static constexpr int save_count = Cell::saved > 0 ? Cell::saved : 1;

 public:
  explicit BackwardPass(const BackwardCall<T>& call)
      : call_(call),
        size_(call.sizes),
        padded_(ceil_divide(size_.units, lanes) * lanes),
        width_(shares * size_.units),
        chunk_(chunk_steps(size_, width_)),
        back_through_time_(size_.steps > 1 || Cell::phases > 1 ||
                           call.initial_gradient[0] != nullptr),
        recurrent_weights_(back_through_time_ ? packed_size<T>(shares * size_.units, size_.units)
                                              : 0),
        input_weights_(
            call.x_gradient == nullptr ? 0 : packed_size<T>(shares * size_.units, size_.inputs)),
        carry_(states * size_.batch * padded_),
        zeros_(larger(padded_, panel_vectors * lanes)),
        gradients_((chunk_ + 1) * size_.batch * width_) {
    check_cell<Cell>();
    zeros_.clear(larger(padded_, panel_vectors * lanes));
    const Weights<T>& w = call.weights;
    for_phases<Cell>([&](auto index) {
      constexpr int P = decltype(index)::value;
      constexpr Phase phase = Cell::phase(P);
      if (back_through_time_) {
        pack_transposed(
            phase, phase.recurrent, size_.units, w.recurrent, w.recurrent_row_stride,
            w.recurrent_column_stride, size_.units,
            recurrent_weights_ + packed_size<T>(phase.shares.first * size_.units, size_.units));
      }
      if (call.x_gradient != nullptr) {
        pack_transposed(
            phase, phase.input, size_.units, w.input, w.input_row_stride, w.input_column_stride,
            size_.inputs,
            input_weights_ + packed_size<T>(phase.shares.first * size_.units, size_.inputs));
      }
    });
  }

  void run() {
    const int64_t per_row = Cell::gates * size_.units * (size_.inputs + size_.units);
    WeightGradients<Cell, T> weights(call_, chunk_);
    for (int64_t s1 = size_.steps; s1 > 0; s1 -= chunk_) {
      const int64_t s0 = larger(0, s1 - chunk_);
      const Chunk chunk = chunk_of(s0, s1);
      in_parallel(call_.pool, size_.batch, (s1 - s0) * size_.batch * per_row,
                  [&](int64_t begin, int64_t end) { run_rows(chunk, begin, end); });
      weights.add(chunk.first_time, s1 - s0, chunk.gradients);
    }
    weights.finish();
  }

 private:
  // Time steps [s0, s1) in the order of the forward pass. `gradients` holds the shares' gradients
  // of the chunk, in the order of time; the row block of the step after s1 - 1 stands beside it.
  struct Chunk {
    int64_t s0, s1, first_time;
    T* gradients;  // [steps, B, shares * H]
  };

  static int64_t chunk_steps(const Sizes& size, int64_t width) {
    constexpr int64_t bytes = 512 * 1024, rows = 512;
    const int64_t wanted = larger(rows, bytes / (width * int64_t{sizeof(T)}));
    return larger(1, smaller(size.steps, wanted / size.batch));
  }

  int64_t time(int64_t s) const { return call_.reverse ? size_.steps - 1 - s : s; }
  Chunk chunk_of(int64_t s0, int64_t s1) const {
    const int64_t block = size_.batch * width_;
    return {s0, s1, smaller(time(s0), time(s1 - 1)),
            gradients_.get() + (call_.reverse ? block : 0)};
  }
  Rows<T> gradient_rows(const Chunk& chunk, int64_t t, int64_t begin) const {
    return {chunk.gradients + ((t - chunk.first_time) * size_.batch + begin) * width_, width_};
  }
  Rows<const T> reserved(int64_t t, int64_t row, int64_t slot) const {
    const int64_t width = slots * size_.units;
    return {call_.reserve + (t * size_.batch + row) * width + slot * size_.units, width};
  }
  Rows<const T> state(int i, int64_t t, int64_t begin) const {
    if (i == 0)
      return {call_.y + (t * size_.batch + begin) * call_.y_row_stride, call_.y_row_stride};
    return reserved(t, begin, Cell::saved + i - 1);
  }
  Rows<const T> initial(int i, int64_t begin) const {
    if (call_.initial[i] == nullptr) return {zeros_.get(), 0};
    return {call_.initial[i] + begin * size_.units, size_.units};
  }
  Rows<T> carry(int i, int64_t begin) const {
    return {carry_.get() + (i * size_.batch + begin) * padded_, padded_};
  }

  struct Step {
    bool final;  // the last step of the forward pass
    Rows<const T> previous[states], next[states], saved, y_gradient;
    Rows<T> carry[states], gradients;
  };

  void run_rows(const Chunk& chunk, int64_t begin, int64_t end) const {
    const int64_t rows = end - begin;
    if (chunk.s1 == size_.steps) {
      start_carry(begin, rows);
    } else {
      keep_next_step(chunk, begin, rows);
    }
    for (int64_t s = chunk.s1 - 1; s >= chunk.s0; --s) {
      const Step step = step_of(chunk, s, begin);
      for_phases_backward<Cell>(
          [&](auto index) { run_phase<decltype(index)::value>(chunk, step, s, begin, rows); });
    }
    if (call_.x_gradient != nullptr) input_gradient(chunk, begin, rows);
    if (chunk.s0 == 0) initial_gradients(chunk, begin, rows);
  }

  void start_carry(int64_t begin, int64_t rows) const {
    for (int i = 0; i < states; ++i) {
      const T* source = call_.last_gradient[i];
      for (int64_t row = 0; row < rows; ++row) {
        T* target = carry(i, begin)[row];
        for (int64_t j = 0; j < padded_; ++j) {
          target[j] =
              source != nullptr && j < size_.units ? source[(begin + row) * size_.units + j] : T(0);
        }
      }
    }
  }

  // The gradients of the step after this chunk, from where the chunk before left them.
  void keep_next_step(const Chunk& chunk, int64_t begin, int64_t rows) const {
    const int64_t steps = chunk.s1 - chunk.s0, block = size_.batch * width_;
    // Forward in time the earlier chunk's first block, else its last one, which is full.
    const T* source = call_.reverse ? chunk.gradients + (chunk_ - 1) * block : chunk.gradients;
    T* target = call_.reverse ? chunk.gradients - block : chunk.gradients + steps * block;
    memcpy(target + begin * width_, source + begin * width_,
           static_cast<size_t>(rows * width_) * sizeof(T));
  }
  Step step_of(const Chunk& chunk, int64_t s, int64_t begin) const {
    const int64_t t = time(s);
    Step step;
    step.final = s == size_.steps - 1;
    for (int i = 0; i < states; ++i) {
      step.next[i] = state(i, t, begin);
      step.previous[i] = s > 0 ? state(i, time(s - 1), begin) : initial(i, begin);
      step.carry[i] = carry(i, begin);
    }
    step.saved = reserved(t, begin, 0);
    step.y_gradient = {zeros_.get(), 0};
    if (call_.y_gradient != nullptr) {
      step.y_gradient = {call_.y_gradient + t * call_.y_gradient_step_stride +
                             begin * call_.y_gradient_batch_stride,
                         call_.y_gradient_batch_stride};
    }
    step.gradients = gradient_rows(chunk, t, begin);
    return step;
  }

  // What phase P's recurrent product passes back: share gradients x W_hh.
  template <int P>
  Factors<T> recurrent_factors(Rows<T> gradients, int64_t column) const {
    constexpr Phase phase = Cell::phase(P);
    const int64_t depth = phase.recurrent.count * size_.units;
    const T* weights = recurrent_weights_ +
                       packed_size<T>(phase.shares.first * size_.units, size_.units) +
                       column * depth;
    return {depth, gradients.base + phase.recurrent.first * size_.units, gradients.stride, 1,
            weights};
  }

  template <int P>
  void run_phase(const Chunk& chunk, const Step& step, int64_t s, int64_t begin,
                 int64_t rows) const {
    // The product that feeds this phase: of the phase after it, or of the next step's first phase.
    constexpr int source = P == last_phase ? 0 : P + 1;
    const bool none = P == last_phase && step.final;
    Rows<T> gradients = step.gradients;
    if (P == last_phase && !none) gradients = gradient_rows(chunk, time(s + 1), begin);
    const int64_t vectors = padded_ / lanes;
    for (int64_t v0 = 0; v0 < vectors; v0 += panel_vectors) {
      Factors<T> factors = recurrent_factors<source>(gradients, v0 * lanes);
      if (none) factors.depth = 0;
      const int64_t count = smaller(panel_vectors, vectors - v0);
      if (count == 4) run_panel<P, 4>(step, factors, v0 * lanes, rows);
      if (count == 3) run_panel<P, 3>(step, factors, v0 * lanes, rows);
      if (count == 2) run_panel<P, 2>(step, factors, v0 * lanes, rows);
      if (count == 1) run_panel<P, 1>(step, factors, v0 * lanes, rows);
    }
  }

  template <int P, int Count>
  void run_panel(const Step& step, const Factors<T>& factors, int64_t first_unit,
                 int64_t rows) const {
    alignas(64) T tile[tile_rows(Count) * Count * lanes];
    for_row_tiles(rows, tile_rows(Count), [&](int64_t first, int64_t height) {
      Factors<T> part = factors;
      part.a += first * factors.row_stride;
      tile_kernel<T, Count, Count, 0>(height)(zeros_.get(), 0, part, no_factors<T>(), tile,
                                              Count * lanes);
      for (int v = 0; v < Count; ++v) {
        const int64_t unit = first_unit + v * lanes;
        const int present = static_cast<int>(smaller(lanes, size_.units - unit));
        if (present == lanes) {
          run_cell<P, Count, true>(step, first, height, unit, lanes, tile + v * lanes);
        } else {
          run_cell<P, Count, false>(step, first, height, unit, present, tile + v * lanes);
        }
      }
    });
  }

  // The cell's adjoint on one vector of units and the rows of a tile.
  template <int P, int Count, bool Full>
  RNNCELLS_INLINE void run_cell(const Step& step, int64_t first, int64_t height, int64_t unit,
                                int present, const T* tile) const {
    constexpr Range own = Cell::phase(P).shares;
    const int64_t units = size_.units;
    for (int64_t m = 0; m < height; ++m, tile += Count * lanes) {
      const int64_t row = first + m;
      V save[save_count], previous[states], next[states], state_gradient[states], gradient[shares];
      const V product = V::load(tile);
      const T* saved = step.saved[row] + unit;
      RNNCELLS_UNROLL
      for (int i = 0; i < Cell::saved; ++i) save[i] = load_lanes<Full>(saved + i * units, present);
      RNNCELLS_UNROLL
      for (int i = 0; i < states; ++i) {
        previous[i] = load_lanes<Full>(step.previous[i][row] + unit, present);
        next[i] = load_lanes<Full>(step.next[i][row] + unit, present);
        state_gradient[i] = V::load(step.carry[i][row] + unit);
      }
      T* target = step.gradients[row] + unit;
      RNNCELLS_UNROLL
      for (int i = 0; i < shares; ++i) {
        gradient[i] =
            P < last_phase && i < own.end() ? load_lanes<Full>(target + i * units, present) : V(0);
      }
      if constexpr (P == last_phase) {
        const V outside = product + load_lanes<Full>(step.y_gradient[row] + unit, present);
        state_gradient[0] =
            Cell::direct_hidden || step.final ? outside + state_gradient[0] : outside;
      }
      Cell::template backward<P>(save, previous, next, product, state_gradient, gradient);
      RNNCELLS_UNROLL
      for (int i = 0; i < shares; ++i) {
        if (i < own.end()) store_lanes<Full>(gradient[i], target + i * units, present);
      }
      RNNCELLS_UNROLL
      for (int i = 0; i < states; ++i) {
        if (i > 0 || Cell::direct_hidden) state_gradient[i].store(step.carry[i][row] + unit);
      }
    }
  }

  // dx = share gradients x W_ih, for the chunk's time steps.
  void input_gradient(const Chunk& chunk, int64_t begin, int64_t rows) const {
    constexpr int64_t widest = panel_vectors * lanes;
    // All sequences: the rows of all time steps follow each other, and one product does.
    const bool together = rows == size_.batch;
    const int64_t blocks = together ? 1 : chunk.s1 - chunk.s0;
    const int64_t block_rows = together ? rows * (chunk.s1 - chunk.s0) : rows;
    for (int64_t column = 0; column < size_.inputs; column += widest) {
      const int64_t columns = smaller(widest, size_.inputs - column);
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t t = chunk.first_time + block;
        const Rows<T> gradients = gradient_rows(chunk, t, begin);
        T* out = call_.x_gradient + (t * size_.batch + begin) * size_.inputs + column;
        for_phases<Cell>([&](auto index) {
          constexpr int P = decltype(index)::value;
          constexpr Phase phase = Cell::phase(P);
          const int64_t depth = phase.input.count * size_.units;
          const Factors<T> factors{
              depth, gradients.base + phase.input.first * size_.units, gradients.stride, 1,
              input_weights_ + packed_size<T>(phase.shares.first * size_.units, size_.inputs) +
                  column * depth};
          multiply_panel<T>(ceil_divide(columns, lanes), block_rows, factors, out, size_.inputs,
                            columns, call_.add_to_x_gradient || P > 0);
        });
      }
    }
  }

  void initial_gradients(const Chunk& chunk, int64_t begin, int64_t rows) const {
    constexpr int64_t widest = panel_vectors * lanes;
    for (int i = 0; i < states; ++i) {
      T* out = call_.initial_gradient[i];
      if (out == nullptr) continue;
      const bool direct = i > 0 || Cell::direct_hidden;
      for (int64_t row = 0; row < rows; ++row) {
        T* target = out + (begin + row) * size_.units;
        for (int64_t j = 0; j < size_.units; ++j)
          target[j] = direct ? carry(i, begin)[row][j] : T(0);
      }
      if (i > 0) continue;
      const Rows<T> gradients = gradient_rows(chunk, time(0), begin);
      for (int64_t column = 0; column < size_.units; column += widest) {
        const int64_t columns = smaller(widest, size_.units - column);
        const int64_t vectors = ceil_divide(columns, lanes);
        multiply_panel<T>(vectors, rows, recurrent_factors<0>(gradients, column),
                          out + begin * size_.units + column, size_.units, columns, true);
      }
    }
  }

  const BackwardCall<T>& call_;
  const Sizes size_;
  const int64_t padded_;          // units, filled up to whole vectors
  const int64_t width_;           // of a row of share gradients
  const int64_t chunk_;           // time steps at once
  const bool back_through_time_;  // whether any gradient goes through the recurrent weights
  Buffer<T> recurrent_weights_, input_weights_, carry_, zeros_, gradients_;
};

template <class Cell, class T>
void backward(const BackwardCall<T>& call) {
  if (call.sizes.batch > 0) BackwardPass<Cell, T>(call).run();
}

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
