// Backpropagation through time of one direction with the lanes over the batch.
//
// A block of sequences goes back through all time steps. At each step the gradients of the shares,
// [shares * units, sequences], are multiplied with the weights for the step before, and with the
// rows [hidden state before the step, input, 1] for the gradients of all weights and biases while
// both are in the first cache. Blocks are dealt out in lots of their own sums, as many as the sizes
// say, so that no sum depends on the number of threads.
#pragma once

#include "cpu/forward.h"
#include "cpu/lanes.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class Cell, class S>
class LaneBackward {
  using T = Compute<S>;
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;
  static constexpr int states = Cell::states;
  static constexpr int shares = share_count<Cell>();
  static constexpr int save_count = Cell::saved > 0 ? Cell::saved : 1;
  static constexpr int64_t widest = panel_vectors * lanes;
  static constexpr int64_t most_lots = 32;
  static constexpr bool looks_at_hidden = Cell::direct_hidden || Cell::output_slope;
  static constexpr Phase phase = Cell::phase(0);

 public:
  explicit LaneBackward(const BackwardCall<S>& call)
      : call_(call),
        size_(call.sizes),
        steps_(call.sizes, nullptr, nullptr, call.reverse),
        reserve_{call.reserve, size_.batch, reserve_slots<Cell>() * size_.units},
        wants_weights_(
            call.input_weight_gradient != nullptr || call.recurrent_weight_gradient != nullptr ||
            call.input_bias_gradient != nullptr || call.recurrent_bias_gradient != nullptr),
        vectors_(ceil_divide(size_.batch, lanes)),
        lots_(smaller(most_lots, ceil_divide(vectors_, block_vectors))),
        joined_(ceil_divide(size_.units + size_.inputs + 1, lanes) * lanes),
        zeros_(size_.units),
        wide_recurrent_(copies() ? phase.recurrent.count * size_.units * size_.units : 0),
        wide_input_(call.x_gradient == nullptr ? 0
                                               : phase.input.count * size_.units * size_.inputs),
        sums_(wants_weights_ ? lots_ * lot_size() : 0) {
    zeros_.clear(size_.units);
    const Weights<S>& w = call.weights;
    if (copies()) {
      in_share_order(phase.recurrent, w.recurrent, w.recurrent_row_stride,
                     w.recurrent_column_stride, size_.units, wide_recurrent_.get());
      recurrent_ = {wide_recurrent_.get(), size_.units, 1};
    } else {
      const int64_t first = phase.gate_of_share[phase.recurrent.first] * size_.units;
      recurrent_ = as_operand<S>(
          {w.recurrent + first * w.recurrent_row_stride, w.recurrent_row_stride, nullptr},
          w.recurrent_column_stride, phase.recurrent.count * size_.units, size_.units, nullptr);
    }
    if (call.x_gradient != nullptr) {
      in_share_order(phase.input, w.input, w.input_row_stride, w.input_column_stride, size_.inputs,
                     wide_input_.get());
    }
  }

  void run() {
    const int64_t work = size_.steps * size_.batch * Cell::gates * size_.units *
                         (size_.inputs + size_.units) * (wants_weights_ ? 2 : 1);
    in_parallel(call_.pool, lots_, work, [this](int64_t begin, int64_t end) {
      for (int64_t lot = begin; lot < end; ++lot) {
        T* sums = wants_weights_ ? sums_ + lot * lot_size() : nullptr;
        if (wants_weights_) clear_row(sums, lot_size());
        for_blocks(vectors_ * lot / lots_, vectors_ * (lot + 1) / lots_,
                   [&](auto width, int64_t vector) {
                     run_block<decltype(width)::value>(vector * lanes, sums);
                   });
      }
    });
    if (wants_weights_) finish();
  }

 private:
  template <int Width>
  struct Block {
    static constexpr int width = Width * lanes;
    const int64_t row;             // the first sequence
    T* const sums;                 // [shares * H, joined], or null: no weight wants a gradient
    const Buffer<T> gradients[3];  // of the shares, [shares * H, width], of three steps in turn
    const Buffer<T> carry;         // [states, H, width], what does not go through the product
    const Buffer<T> outside;       // [H, width], what comes from y
    const Buffer<T> hidden[2];     // [H, width], where the cell looks at them
    const Buffer<T> initial;       // [states - 1, H, width]
    const Buffer<S> kept[2];       // [reserve slots, H, lanes], of a group that fills no vector
    const Buffer<T> joined[2];     // panels of rows [hidden state, input, 1], of two steps in turn
    const Buffer<T> x_gradient;    // [I, width]

    Block(const LaneBackward& pass, int64_t first, T* lot_sums)
        : row(first),
          sums(lot_sums),
          gradients{Buffer<T>(shares * pass.size_.units * width),
                    Buffer<T>(shares * pass.size_.units * width),
                    Buffer<T>(shares * pass.size_.units * width)},
          carry(states * pass.size_.units * width),
          outside(pass.size_.units * width),
          hidden{Buffer<T>(looks_at_hidden ? pass.size_.units * width : 0),
                 Buffer<T>(looks_at_hidden ? pass.size_.units * width : 0)},
          initial((states - 1) * pass.size_.units * width),
          kept{Buffer<S>(pass.reserve_.values * lanes), Buffer<S>(pass.reserve_.values * lanes)},
          joined{Buffer<T>(lot_sums == nullptr ? 0 : pass.joined_ * width),
                 Buffer<T>(lot_sums == nullptr ? 0 : pass.joined_ * width)},
          x_gradient(pass.call_.x_gradient == nullptr ? 0 : pass.size_.inputs * width) {}
  };
  // What one step reads and writes.
  struct Step {
    bool first, last;
    const T *later, *before, *after;  // the next step's gradients; the hidden states around this
    T* gradients;
  };

  // Whether the gates of the recurrent shares stand in the weight as the shares do.
  static constexpr bool in_order() {
    for (int share = phase.recurrent.first + 1; share < phase.recurrent.end(); ++share) {
      if (phase.gate_of_share[share] != phase.gate_of_share[share - 1] + 1) return false;
    }
    return true;
  }
  static constexpr bool copies() { return converts<S> || !in_order(); }
  int64_t lot_size() const { return shares * size_.units * joined_; }
  // How many sequences of a block stand in its vector w.
  int64_t present(int64_t row, int w) const {
    return larger(0, smaller(lanes, size_.batch - row - w * lanes));
  }

  // The rows of a weight that belong to `range`, in the order of the shares.
  RNNCELLS_OUT_OF_LINE void in_share_order(Range range, const S* weight, int64_t row_stride,
                                           int64_t column_stride, int64_t columns, T* out) const {
    for (int share = range.first; share < range.end(); ++share) {
      const S* gate = weight + phase.gate_of_share[share] * size_.units * row_stride;
      for (int64_t row = 0; row < size_.units; ++row) {
        for (int64_t j = 0; j < columns; ++j) {
          *out++ = widen(gate[row * row_stride + j * column_stride]);
        }
      }
    }
  }

  template <int Width>
  RNNCELLS_OUT_OF_LINE void run_block(int64_t row, T* sums) const {
    const Block<Width> block(*this, row, sums);
    constexpr int64_t width = Block<Width>::width;
    const int64_t end = size_.steps - 1;
    for (int i = 0; i < states; ++i) {
      turn_state<Width>(row, call_.last_gradient[i], block.carry + i * size_.units * width);
    }
    for (int i = 1; i < states; ++i) {
      turn_state<Width>(row, call_.initial[i], block.initial + (i - 1) * size_.units * width);
    }
    if (call_.y_gradient == nullptr) clear_row(block.outside.get(), size_.units * width);
    if (looks_at_hidden) hidden_after<Width>(block, end);
    if (sums != nullptr) start_joined_rows<Width>(block);
    for (const Buffer<S>& kept : block.kept) {  // the lanes without a sequence hold no numbers
      if (present(row, Width - 1) < lanes) clear_row(kept.get(), reserve_.values * lanes);
    }
    for (int64_t s = end; s >= 0; --s) {
      if (call_.y_gradient != nullptr) {
        turn_rows<Width>(row, call_.y_gradient, steps_.at(s), call_.y_gradient_step_stride,
                         call_.y_gradient_batch_stride, block.outside.get());
      }
      if (looks_at_hidden) hidden_after<Width>(block, s - 1);
      const Step step{s == 0,
                      s == end,
                      block.gradients[(s + 1) % 3].get(),
                      block.hidden[s % 2].get(),
                      block.hidden[(s + 1) % 2].get(),
                      block.gradients[s % 3].get()};
      run_step<Width>(block, steps_.at(s), step);
      if (sums != nullptr) {
        join_rows<Width>(block, s);
        const bool second = (end - s) % 2 != 0;
        if (second || s == 0) add_weights<Width>(block, s, second);
      }
      if (call_.x_gradient != nullptr) input_gradient<Width>(block, steps_.at(s), step.gradients);
    }
    initial_gradients<Width>(block, block.gradients[0].get());
  }

  template <int Width>
  RNNCELLS_OUT_OF_LINE void turn_rows(int64_t row, const S* series, int64_t t, int64_t step_stride,
                                      int64_t batch_stride, T* out) const {
    for (int w = 0; w < Width; ++w) {
      rows_to_lanes<S>(steps_.rows_of(series, t, row + w * lanes, step_stride, batch_stride), 1,
                       present(row, w), size_.units, out + w * lanes, Width * lanes);
    }
  }
  template <int Width>
  RNNCELLS_OUT_OF_LINE void turn_state(int64_t row, const S* state, T* out) const {
    if (state == nullptr) {
      clear_row(out, size_.units * Width * lanes);
    } else {
      turn_rows<Width>(row, state, 0, 0, size_.units, out);
    }
  }
  // The hidden states after step s; before all steps the initial ones.
  template <int Width>
  void hidden_after(const Block<Width>& block, int64_t s) const {
    T* out = block.hidden[(s + 1) % 2].get();
    if (s < 0) {
      turn_state<Width>(block.row, call_.initial[0], out);
    } else {
      turn_rows<Width>(block.row, call_.y, steps_.at(s), call_.y_step_stride, call_.y_batch_stride,
                       out);
    }
  }

  // What the recurrent product passes back to the units from `unit` on.
  template <int Width>
  Factors<T> recurrent_factors(const T* gradients, int64_t unit) const {
    return {phase.recurrent.count * size_.units, recurrent_.base + unit * recurrent_.column_stride,
            recurrent_.column_stride, recurrent_.row_stride,
            gradients + phase.recurrent.first * size_.units * Width * lanes};
  }

  template <int Width>
  RNNCELLS_OUT_OF_LINE void run_step(const Block<Width>& block, int64_t t, const Step& step) const {
    constexpr int64_t width = Block<Width>::width;
    constexpr int most = tile_rows(Width);
    alignas(64) static constexpr T zeros[width] = {};
    alignas(64) T tile[most * width];
    Rows<const S> kept[Width], before[Width];
    for (int w = 0; w < Width; ++w) {
      kept[w] = reserved(t, block.row, w, block.kept[0]);
      before[w] = step.first ? kept[w] : reserved(steps_.before(t), block.row, w, block.kept[1]);
    }
    for_row_tiles(size_.units, most, [&](int64_t unit, int64_t units) {
      const Factors<T> factors =
          step.last ? no_factors<T>() : recurrent_factors<Width>(step.later, unit);
      tile_kernel<T, Width, Width, 0>(units)(zeros, 0, factors, no_factors<T>(), tile, width);
      for (int w = 0; w < Width; ++w) {
        run_cell<Width>(block, step, kept[w], before[w], unit, units, w, tile);
      }
    });
  }

  // Vector w of a block in the reserve at step t, or its copy where the group does not fill it.
  Rows<const S> reserved(int64_t t, int64_t row, int w, const Buffer<S>& space) const {
    const Rows<const S> place = reserve_.at(t, row + w * lanes);
    const int64_t count = present(row, w);
    if (count == lanes) return place;
    copy_lanes<S>(place.base, place.stride, reserve_.values, count, space.get(), lanes);
    return {space.get(), lanes};
  }

  // The cell's adjoint on a few units of one vector of sequences.
  template <int Width>
  RNNCELLS_INLINE void run_cell(const Block<Width>& block, const Step& step, Rows<const S> kept,
                                Rows<const S> kept_before, int64_t first_unit, int64_t units, int w,
                                const T* tile) const {
    constexpr int64_t width = Block<Width>::width;
    const int64_t all = size_.units;
    for (int64_t m = 0; m < units; ++m) {
      const int64_t unit = first_unit + m, place = unit * width + w * lanes;
      V save[save_count], previous[states], next[states], state_gradient[states], gradient[shares];
      RNNCELLS_UNROLL
      for (int i = 0; i < Cell::saved; ++i) save[i] = load_vector(kept[i * all + unit]);
      previous[0] = Cell::direct_hidden ? V::load(step.before + place) : V(0);
      next[0] = Cell::output_slope ? V::load(step.after + place) : V(0);
      RNNCELLS_UNROLL
      for (int i = 1; i < states; ++i) {
        const int64_t slot = (Cell::saved + i - 1) * all + unit;
        next[i] = load_vector(kept[slot]);
        previous[i] = step.first ? V::load(block.initial + (i - 1) * all * width + place)
                                 : load_vector(kept_before[slot]);
      }
      T* carry = block.carry + place;
      RNNCELLS_UNROLL
      for (int i = 0; i < states; ++i) state_gradient[i] = V::load(carry + i * all * width);
      const V product = V::load(tile + m * width + w * lanes);
      const V outside = product + V::load(block.outside + place);
      state_gradient[0] = Cell::direct_hidden || step.last ? outside + state_gradient[0] : outside;
      Cell::template backward<0>(save, previous, next, product, state_gradient, gradient);
      RNNCELLS_UNROLL
      for (int i = 0; i < shares; ++i) gradient[i].store(step.gradients + i * all * width + place);
      RNNCELLS_UNROLL
      for (int i = 0; i < states; ++i) {
        if (i > 0 || Cell::direct_hidden) state_gradient[i].store(carry + i * all * width);
      }
    }
  }

  // The rows [hidden state before step s, input, 1] in panels; what stays the same is there.
  template <int Width>
  RNNCELLS_OUT_OF_LINE void join_rows(const Block<Width>& block, int64_t s) const {
    const int64_t rows = smaller(Block<Width>::width, size_.batch - block.row);
    OrderedRows<const S> hidden{zeros_.get(), 0, nullptr};
    if (s > 0) {
      hidden = steps_.rows_of(call_.y, steps_.before(steps_.at(s)), block.row, call_.y_step_stride,
                              call_.y_batch_stride);
    } else if (call_.initial[0] != nullptr) {
      hidden = steps_.state_rows(call_.initial[0], block.row, size_.units);
    }
    const OrderedRows<const S> x =
        steps_.rows_of(call_.x, steps_.at(s), block.row, call_.x_step_stride, call_.x_batch_stride);
    const int64_t units = size_.units, inputs_end = units + size_.inputs;
    for (int64_t column = 0; column < joined_; column += widest) {
      const int64_t columns = smaller(widest, joined_ - column);
      T* out = block.joined[s % 2] + column * rows - column;
      for (int64_t row = 0; row < rows; ++row, out += columns) {
        const int64_t hidden_end = smaller(units, column + columns);
        int64_t j = column;
        for (; j + lanes <= hidden_end; j += lanes) load_vector(hidden[row] + j).store(out + j);
        if (j < hidden_end) {
          const int left = static_cast<int>(hidden_end - j);
          load_vector(hidden[row] + j, left).store(out + j, left);
        }
        for (j = larger(column, units); j < smaller(inputs_end, column + columns); ++j) {
          out[j] = widen(x[row][(j - units) * call_.x_column_stride]);
        }
      }
    }
  }
  template <int Width>
  RNNCELLS_OUT_OF_LINE void start_joined_rows(const Block<Width>& block) const {
    const int64_t rows = smaller(Block<Width>::width, size_.batch - block.row);
    const int64_t one = size_.units + size_.inputs, column = one / widest * widest;
    const int64_t columns = smaller(widest, joined_ - column);
    for (const Buffer<T>& panels : block.joined) {
      clear_row(panels.get(), joined_ * rows);
      for (int64_t row = 0; row < rows; ++row) {
        panels.get()[column * rows + row * columns + one - column] = T(1);
      }
    }
  }

  // Adds (gradients of the shares) x (joined rows) of the steps s and s + 1 to the lot's sums.
  template <int Width>
  RNNCELLS_OUT_OF_LINE void add_weights(const Block<Width>& block, int64_t s, bool both) const {
    constexpr int64_t width = Block<Width>::width;
    const int64_t rows = smaller(width, size_.batch - block.row);
    for (int64_t column = 0; column < joined_; column += widest) {
      const int64_t columns = smaller(widest, joined_ - column);
      const auto factors = [&](int64_t step) -> Factors<T> {
        return {rows, block.gradients[step % 3].get(), width, 1,
                block.joined[step % 2] + column * rows};
      };
      multiply_panel<T>(columns / lanes, shares * size_.units, factors(s), block.sums + column,
                        joined_, columns, true, both ? factors(s + 1) : no_factors<T>());
    }
  }

  template <int Width>
  RNNCELLS_OUT_OF_LINE void input_gradient(const Block<Width>& block, int64_t t,
                                           const T* gradients) const {
    constexpr int64_t width = Block<Width>::width;
    alignas(64) static constexpr T zeros[width] = {};
    for_row_tiles(size_.inputs, tile_rows(Width), [&](int64_t input, int64_t inputs) {
      const Factors<T> factors{phase.input.count * size_.units, wide_input_ + input, 1,
                               size_.inputs, gradients + phase.input.first * size_.units * width};
      tile_kernel<T, Width, Width, 0>(inputs)(zeros, 0, factors, no_factors<T>(),
                                              block.x_gradient + input * width, width);
    });
    for (int w = 0; w < Width; ++w) {
      lanes_to_rows<S>(block.x_gradient + w * lanes, width, present(block.row, w), size_.inputs,
                       steps_.rows_of(call_.x_gradient, t, block.row + w * lanes,
                                      size_.batch * size_.inputs, size_.inputs),
                       call_.add_to_x_gradient);
    }
  }

  template <int Width>
  RNNCELLS_OUT_OF_LINE void initial_gradients(const Block<Width>& block, const T* gradients) const {
    constexpr int64_t width = Block<Width>::width;
    for (int i = 0; i < states; ++i) {
      if (call_.initial_gradient[i] == nullptr) continue;
      T* found = block.carry + i * size_.units * width;
      if (i == 0) {
        if (!Cell::direct_hidden) clear_row(found, size_.units * width);
        for_row_tiles(size_.units, tile_rows(Width), [&](int64_t unit, int64_t units) {
          T* target = found + unit * width;
          tile_kernel<T, Width, Width, 0>(units)(target, width,
                                                 recurrent_factors<Width>(gradients, unit),
                                                 no_factors<T>(), target, width);
        });
      }
      for (int w = 0; w < Width; ++w) {
        const int64_t row = block.row + w * lanes;
        lanes_to_rows<S>(found + w * lanes, width, present(block.row, w), size_.units,
                         steps_.state_rows(call_.initial_gradient[i], row, size_.units));
      }
    }
  }

  // All lots' sums, in their order, and each part to where it was asked for.
  RNNCELLS_OUT_OF_LINE void finish() {
    T* sums = sums_.get();
    for (int64_t lot = 1; lot < lots_; ++lot) {
      const T* more = sums + lot * lot_size();
      for (int64_t i = 0; i < lot_size(); i += lanes) {
        (V::load(sums + i) + V::load(more + i)).store(sums + i);
      }
    }
    const int64_t units = size_.units, inputs = size_.inputs;
    for (int64_t row = 0; row < shares * units; ++row, sums += joined_) {
      const int share = static_cast<int>(row / units);
      const int64_t gate_row = phase.gate_of_share[share] * units + row % units;
      if (share >= phase.recurrent.first) {
        if (call_.recurrent_weight_gradient != nullptr) {
          narrow_row(sums, units, call_.recurrent_weight_gradient + gate_row * units);
        }
        if (call_.recurrent_bias_gradient != nullptr) {
          call_.recurrent_bias_gradient[gate_row] = narrow(sums[units + inputs], S());
        }
      }
      if (share < phase.input.end()) {
        if (call_.input_weight_gradient != nullptr) {
          narrow_row(sums + units, inputs, call_.input_weight_gradient + gate_row * inputs);
        }
        if (call_.input_bias_gradient != nullptr) {
          call_.input_bias_gradient[gate_row] = narrow(sums[units + inputs], S());
        }
      }
    }
  }

  const BackwardCall<S>& call_;
  const Sizes size_;
  const TimeSteps steps_;
  const LaneSeries<const S> reserve_;
  const bool wants_weights_;
  const int64_t vectors_, lots_;
  const int64_t joined_;  // columns of the rows [hidden state, input, 1], in whole vectors
  Buffer<S> zeros_;
  Buffer<T> wide_recurrent_, wide_input_;  // in the order of the shares
  Buffer<T> sums_;                         // [lots, shares * H, joined]
  Operand<T> recurrent_{nullptr, 0, 0};    // [recurrent shares * H, H]
};

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
