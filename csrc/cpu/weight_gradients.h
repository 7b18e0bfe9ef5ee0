// The gradients of weights and biases: products and sums over all rows (time steps and sequences)
// of a chunk, added up chunk by chunk.
#pragma once

#include "cpu/layout.h"
#include "cpu/variant.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class Cell, class S>
class WeightGradients {
  using T = Compute<S>;
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;
  static constexpr int64_t widest = panel_vectors * lanes;
  static constexpr int shares = share_count<Cell>();
  // A panel of the second factor has this many rows, and stays in the second-level cache.
  static constexpr int64_t most_depth = 512;
  enum Weight { input, recurrent, projection, weights };

 public:
  // mask: with recurrent dropout [B, mask_width], of what the recurrent products multiplied.
  WeightGradients(const BackwardCall<S>& call, const TimeSteps& steps, int64_t chunk_rows,
                  const T* mask, int64_t mask_width)
      : call_(call),
        mask_(mask),
        mask_width_(mask_width),
        size_(call.sizes),
        steps_(steps),
        made_slot_(reserve_slots<Cell>() + (call.weights.projection != nullptr)),
        slots_(made_slot_ + (call.variant.zones() ? Cell::states : 0)),
        width_(shares * size_.units),
        results_{call.input_weight_gradient, call.recurrent_weight_gradient,
                 call.projection_gradient},
        wants_bias_(call.input_bias_gradient != nullptr || call.recurrent_bias_gradient != nullptr),
        joined_(can_join()),
        depth_(smaller(most_depth, chunk_rows)),
        splits_(splits()),
        panels_(tasks() * depth_ * widest),
        zeros_(size_.outputs),
        x_rows_(wants(input) || joined_ ? chunk_rows : 0),
        hidden_rows_(wants(recurrent) || joined_ ? chunk_rows : 0),
        masked_(masks() && (wants(recurrent) || joined_) ? Cell::phases * chunk_rows * size_.outputs
                                                         : 0),
        bias_sums_(wants_bias_ ? width_ : 0),
        joined_sums_(joined_ ? width_ * joined_width() : 0),
        sums_{Buffer<T>(own_sums(input)), Buffer<T>(own_sums(recurrent)),
              Buffer<T>(own_sums(projection))} {
    zeros_.clear(size_.outputs);
    if (wants_bias_) bias_sums_.clear(width_);
  }

  // Adds the time steps [first_time, end_time). gradients: [rows, shares * H]; output_gradients,
  // with a projection: [rows, P]; saved: their rows of the reserve. Where they differ, those of the
  // input's shares, and of the shares once biases were added, [rows, shares * H].
  void add(int64_t first_time, int64_t end_time, const T* gradients, const T* output_gradients,
           const S* saved, const T* input_gradients, const T* bias_gradients) {
    const Chunk chunk{
        first_time,
        end_time,
        steps_.offset(end_time) - steps_.offset(first_time),
        gradients,
        output_gradients,
        saved,
        input_gradients == nullptr ? gradients : input_gradients,
        bias_gradients == nullptr || input_gradients == nullptr ? gradients : bias_gradients};
    int64_t work = wants_bias_ ? chunk.rows * width_ : 0;
    for (int weight = 0; weight < weights; ++weight) {
      if (wants(weight)) work += chunk.rows * weight_rows(weight) * columns(weight);
    }
    if (work == 0) return;
    find_rows(chunk);
    if (joined_) {
      add_joined(chunk);
    } else {
      // Products into the same weight follow each other inside one task, so their order is fixed.
      in_parallel(call_.pool, tasks(), work, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) run_task(task, chunk);
      });
    }
    started_ = true;
  }

  RNNCELLS_OUT_OF_LINE void finish() {
    if (joined_) scatter_joined();
    if constexpr (converts<S>) {
      for (int weight = 0; weight < weights && !joined_; ++weight) {
        if (!wants(weight)) continue;
        narrow_row(sums_[weight].get(), weight_rows(weight) * columns(weight), results_[weight]);
      }
    }
    if (!wants_bias_) return;
    for_phases<Cell>([&](auto index) {
      constexpr Phase phase = Cell::phase(decltype(index)::value);
      scatter_bias(phase, phase.input, call_.input_bias_gradient);
      scatter_bias(phase, has_recurrent_product<Cell>() ? phase.recurrent : phase.shares,
                   call_.recurrent_bias_gradient);
    });
  }

 private:
  struct Chunk {
    int64_t first_time, end_time, rows;
    const T *gradients, *output_gradients;
    const S* saved;
    const T *input_gradients, *bias_gradients;
  };

  bool wants(int weight) const { return results_[weight] != nullptr; }
  int64_t columns(int weight) const {
    return weight == input ? size_.inputs : weight == recurrent ? size_.outputs : size_.units;
  }
  int64_t weight_rows(int weight) const {
    return weight == projection ? size_.outputs : Cell::gates * size_.units;
  }
  // What is computed in another type than it is stored in has a sum of its own.
  int64_t own_sums(int weight) const {
    return converts<S> && wants(weight) && !joined_ ? weight_rows(weight) * columns(weight) : 0;
  }
  T* sums(int weight) {
    if constexpr (converts<S>) {
      return sums_[weight].get();
    } else {
      return results_[weight];
    }
  }

  // Where the input and the hidden state before the step are, for each row of the chunk.
  RNNCELLS_OUT_OF_LINE void find_rows(const Chunk& chunk) {
    const S **x = x_rows_.get(), **hidden = hidden_rows_.get();
    const bool find_x = wants(input) || joined_, find_hidden = wants(recurrent) || joined_;
    for (int64_t t = chunk.first_time; t < chunk.end_time; ++t) {
      const int64_t rows = steps_.rows(t), before = steps_.before(t);
      const int64_t going_on = smaller(rows, steps_.rows(before));
      if (find_x) {
        const OrderedRows<const S> source =
            steps_.rows_of(call_.x, t, 0, call_.x_step_stride, call_.x_batch_stride);
        for (int64_t row = 0; row < rows; ++row) *x++ = source[row];
      }
      if (!find_hidden) continue;
      const bool given = call_.initial[0] != nullptr;
      const OrderedRows<const S> initial = steps_.state_rows(call_.initial[0], 0, size_.outputs);
      if (going_on > 0) {
        const OrderedRows<const S> y =
            steps_.rows_of(call_.y, before, 0, call_.y_step_stride, call_.y_batch_stride);
        for (int64_t row = 0; row < going_on; ++row) *hidden++ = y[row];
      }
      for (int64_t row = going_on; row < rows; ++row) {
        *hidden++ = given ? initial[row] : zeros_.get();
      }
      if (call_.variant.any()) vary_rows(chunk, t, hidden - rows, rows);
    }
  }

  bool masks() const { return call_.variant.masks(); }
  // The masked rows of what phase P's product multiplied, from the chunk's row `row` on.
  S* masked_rows(int P, const Chunk& chunk, int64_t row) const {
    return masked_ + (P * chunk.rows + row) * size_.outputs;
  }

  // The same with a variant: zeros where a sequence starts anew, and under the mask of recurrent
  // dropout.
  RNNCELLS_OUT_OF_LINE void vary_rows(const Chunk& chunk, int64_t t, const S** hidden,
                                      int64_t rows) {
    const int64_t first = steps_.offset(t) - steps_.offset(chunk.first_time);
    for (int64_t row = 0; row < rows; ++row) {
      if (starts_anew(call_.variant, steps_, t, row)) hidden[row] = zeros_.get();
      if (!masks()) continue;
      const T* mask = mask_ + row * mask_width_;
      for_phases<Cell>([&](auto index) {
        constexpr int P = decltype(index)::value;
        constexpr int operand = Cell::phase(P).operand;
        const S* source = hidden[row];
        if (operand >= 0) source = chunk.saved + ((first + row) * slots_ + operand) * size_.units;
        S* target = masked_rows(P, chunk, first + row);
        multiply_row(source, mask, size_.outputs, target);
      });
      hidden[row] = masked_rows(0, chunk, first + row);
    }
  }

  // Where the last vector of a row of units has room for the inputs and a one, all gradients are
  // one product, with the rows [hidden state before the step, input, 1]. It is taken whichever of
  // them are asked for, so that none changes by a bit with what else is.
  bool can_join() const {
    return Cell::phases == 1 && has_recurrent_product<Cell>() && call_.variant.norm == Norm::none &&
           call_.weights.projection == nullptr && size_.units <= widest &&
           size_.units + size_.inputs + 1 <= joined_width() &&
           (wants_bias_ || wants(input) || wants(recurrent));
  }
  int64_t joined_width() const { return ceil_divide(size_.units, lanes) * lanes; }

  // Packs `depth` rows of the chunk from row `first` on into `panel`.
  RNNCELLS_OUT_OF_LINE void pack_joined(int64_t first, int64_t depth, T* panel) const {
    const int64_t units = size_.units, inputs = size_.inputs, width = joined_width();
    for (int64_t k = first; k < first + depth; ++k, panel += width) {
      const S *hidden = hidden_rows_.get()[k], *x = x_rows_.get()[k];
      int64_t j = 0;
      for (; j + lanes <= units; j += lanes) load_vector(hidden + j).store(panel + j);
      load_vector(hidden + j, static_cast<int>(units - j)).store(panel + j);
      for (int64_t i = 0; i < inputs; ++i) panel[units + i] = widen(x[i * call_.x_column_stride]);
      panel[units + inputs] = T(1);
    }
  }

  RNNCELLS_OUT_OF_LINE void add_joined(const Chunk& chunk) {
    const int64_t width = joined_width();
    for (int64_t first = 0; first < chunk.rows; first += depth_) {
      const int64_t depth = smaller(depth_, chunk.rows - first);
      pack_joined(first, depth, panels_.get());
      // The rows of the result are split, so no sum depends on the number of threads.
      const bool add = started_ || first > 0;
      in_parallel(call_.pool, width_, depth * width_ * width, [&](int64_t begin, int64_t end) {
        const Factors<T> factors{depth, chunk.gradients + first * width_ + begin, 1, width_,
                                 panels_.get()};
        multiply_panel<T>(width / lanes, end - begin, factors, joined_sums_ + begin * width, width,
                          width, add);
      });
    }
  }

  RNNCELLS_OUT_OF_LINE void scatter_joined() {
    const int64_t units = size_.units, inputs = size_.inputs, width = joined_width();
    constexpr Phase phase = Cell::phase(0);
    for (int64_t row = 0; row < width_; ++row) {
      const T* sums = joined_sums_ + row * width;
      const int share = static_cast<int>(row / units);
      const int64_t gate_row = phase.gate_of_share[share] * units + row % units;
      if (wants(recurrent) && share >= phase.recurrent.first && share < phase.recurrent.end()) {
        narrow_row(sums, units, results_[recurrent] + gate_row * units);
      }
      if (wants(input) && share >= phase.input.first && share < phase.input.end()) {
        narrow_row(sums + units, inputs, results_[input] + gate_row * inputs);
      }
      if (wants_bias_) bias_sums_.get()[row] = sums[units + inputs];
    }
  }

  // Tasks: for each weight its panels of columns, each split over the units of a gate where there
  // are fewer panels than threads; then blocks of columns of the biases.
  int64_t panels(int weight) const {
    return wants(weight) ? ceil_divide(columns(weight), widest) : 0;
  }
  int64_t all_panels() const { return panels(input) + panels(recurrent) + panels(projection); }
  int64_t splits() const {
    return smaller(ceil_divide(call_.pool.threads, larger(1, all_panels())),
                   ceil_divide(size_.units, 4 * lanes));
  }
  int64_t bias_tasks() const { return wants_bias_ ? ceil_divide(width_, widest) : 0; }
  int64_t tasks() const { return all_panels() * splits_ + bias_tasks(); }

  RNNCELLS_OUT_OF_LINE void run_task(int64_t task, const Chunk& chunk) {
    int64_t panel = task / splits_;
    const int64_t split = task % splits_;
    if (panel >= all_panels()) {
      sum_columns(chunk, (task - all_panels() * splits_) * widest);
      return;
    }
    T* space = panels_ + task * depth_ * widest;
    unsigned touched = 0;  // gates that already hold a product of this chunk
    int weight = input;
    for (; panel >= panels(weight); ++weight) panel -= panels(weight);
    const int64_t column = panel * widest;
    if (weight == projection) {
      const int64_t width = slots_ * size_.units;
      const RowSource row_at{nullptr, chunk.saved + (made_slot_ - 1) * size_.units, width};
      multiply(projection, projection_phase, projection_phase.shares, chunk.output_gradients,
               size_.outputs, size_.outputs, row_at, 1, chunk.rows, column, split, space, touched);
      return;
    }
    for_phases<Cell>([&](auto index) {
      constexpr int P = decltype(index)::value;
      constexpr Phase phase = Cell::phase(P);
      if (weight == input) {
        const RowSource row_at{x_rows_.get(), nullptr, 0};
        multiply(input, phase, phase.input, chunk.input_gradients, width_, size_.units, row_at,
                 call_.x_column_stride, chunk.rows, column, split, space, touched);
      } else if constexpr (phase.recurrent.count == 0) {
        return;  // a row to normalise
      } else if constexpr (phase.operand >= 0) {
        RowSource row_at{nullptr, chunk.saved + phase.operand * size_.units, slots_ * size_.units};
        if (masks()) row_at = {nullptr, masked_rows(P, chunk, 0), size_.outputs};
        multiply(recurrent, phase, phase.recurrent, chunk.gradients, width_, size_.units, row_at, 1,
                 chunk.rows, column, split, space, touched);
      } else {
        const RowSource row_at{hidden_rows_.get(), nullptr, 0};
        multiply(recurrent, phase, phase.recurrent, chunk.gradients, width_, size_.units, row_at, 1,
                 chunk.rows, column, split, space, touched);
      }
    });
  }

  // Rows by their addresses, or `width` apart.
  struct RowSource {
    const S* const* rows;
    const S* base;
    int64_t width;
    const S* operator()(int64_t k) const { return rows == nullptr ? base + k * width : rows[k]; }
  };

  // Adds a panel of columns of the product (gradients of `range`, transposed) x (rows of the
  // operand) to the weight's gradient, in one part of the units of each gate.
  RNNCELLS_OUT_OF_LINE void multiply(Weight weight, const Phase& phase, Range range,
                                     const T* gradients, int64_t gradient_width, int64_t gate_rows,
                                     const RowSource& row_at, int64_t column_stride, int64_t rows,
                                     int64_t column, int64_t split, T* panel, unsigned& touched) {
    const int64_t begin = gate_rows * split / splits_, end = gate_rows * (split + 1) / splits_;
    const int64_t present = smaller(widest, columns(weight) - column);
    const int64_t vectors = ceil_divide(present, lanes);
    for (int64_t first = 0; first < rows; first += depth_) {
      const int64_t depth = smaller(depth_, rows - first);
      pack_rows<S>([&](int64_t k) { return row_at(first + k); }, depth, column, present,
                   column_stride, vectors * lanes, panel);
      for (int share = range.first; share < range.end(); ++share) {
        const int64_t gate = phase.gate_of_share[share - phase.shares.first];
        const Factors<T> factors{depth,
                                 gradients + first * gradient_width + share * gate_rows + begin, 1,
                                 gradient_width, panel};
        T* out = sums(weight) + (gate * gate_rows + begin) * columns(weight) + column;
        multiply_panel<T>(vectors, end - begin, factors, out, columns(weight), present,
                          started_ || (touched >> gate & 1u) != 0);
        touched |= 1u << gate;
      }
    }
  }

  RNNCELLS_OUT_OF_LINE void sum_columns(const Chunk& chunk, int64_t begin) const {
    const int64_t end = smaller(width_, begin + widest);
    for (int64_t j = begin; j < end; j += lanes) {
      const int present = static_cast<int>(smaller(lanes, end - j));
      // Four sums side by side: a chain of additions would wait for each one.
      V sums[4] = {V(0), V(0), V(0), V(0)};
      for (int64_t row = 0; row < chunk.rows; ++row) {
        V& sum = sums[row & 3];
        sum = sum + V::load(chunk.bias_gradients + row * width_ + j, present);
      }
      const V total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
      (V::load(bias_sums_ + j, present) + total).store(bias_sums_ + j, present);
    }
  }

  RNNCELLS_OUT_OF_LINE void scatter_bias(const Phase& phase, Range range, S* out) const {
    if (out == nullptr) return;
    for (int share = range.first; share < range.end(); ++share) {
      const int64_t gate = phase.gate_of_share[share - phase.shares.first];
      narrow_row(bias_sums_ + share * size_.units, size_.units, out + gate * size_.units);
    }
  }

  const BackwardCall<S>& call_;
  const T* const mask_;
  const int64_t mask_width_;
  const Sizes size_;
  const TimeSteps& steps_;
  const int made_slot_, slots_;  // of the reserve
  const int64_t width_;          // of a row of share gradients
  S* const results_[weights];
  const bool wants_bias_;
  const bool joined_;
  const int64_t depth_, splits_;
  Buffer<T> panels_;
  Buffer<S> zeros_;
  Buffer<const S*> x_rows_, hidden_rows_;
  Buffer<S> masked_;
  Buffer<T> bias_sums_, joined_sums_, sums_[weights];
  bool started_ = false;
};

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
