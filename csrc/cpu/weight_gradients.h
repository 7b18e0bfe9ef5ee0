// The gradients of weights and biases: products and sums over all rows (time steps and sequences)
// of a chunk, added up chunk by chunk.
#pragma once

#include "cpu/layout.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class Cell, class T>
class WeightGradients {
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;
  static constexpr int64_t widest = panel_vectors * lanes;
  static constexpr int shares = share_count<Cell>();
  static constexpr int slots = reserve_slots<Cell>();
  // A panel of the second factor has this many rows, and stays in the second-level cache.
  static constexpr int64_t most_depth = 512;
  static constexpr int most_products = 3 * Cell::phases;

 public:
  WeightGradients(const BackwardCall<T>& call, int64_t chunk_steps)
      : call_(call),
        size_(call.sizes),
        width_(shares * size_.units),
        wants_bias_(call.input_bias_gradient != nullptr || call.recurrent_bias_gradient != nullptr),
        joined_(can_join()),
        depth_(smaller(most_depth, chunk_steps * size_.batch)),
        splits_(splits()),
        panels_(tasks() * depth_ * widest),
        zeros_(size_.units),
        bias_sums_(wants_bias_ ? width_ : 0),
        joined_sums_(joined_ ? width_ * joined_width() : 0) {
    zeros_.clear(size_.units);
    if (wants_bias_) bias_sums_.clear(width_);
  }

  // Adds `steps` time steps from `first_time` on. gradients: [steps, B, shares * H].
  void add(int64_t first_time, int64_t steps, const T* gradients) {
    Product products[most_products];
    const int count = products_of(first_time, steps, gradients, products);
    const int64_t rows = steps * size_.batch;
    int64_t work = wants_bias_ ? rows * width_ : 0;
    for (int i = 0; i < count; ++i) {
      work += products[i].rows * products[i].shares.count * size_.units * products[i].columns;
    }
    if (work == 0) return;
    if (joined_) {
      add_joined(first_time, steps, gradients, rows);
      started_ = true;
      return;
    }
    // Products into the same weight follow each other inside one task, so their order is fixed.
    in_parallel(call_.pool, tasks(), work, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        run_task(task, products, count, gradients, rows);
      }
    });
    started_ = true;
  }

  void finish() {
    if (joined_) scatter_joined();
    if (!wants_bias_) return;
    for_phases<Cell>([&](auto index) {
      constexpr Phase phase = Cell::phase(decltype(index)::value);
      scatter_bias(phase, phase.input, call_.input_bias_gradient);
      scatter_bias(phase, phase.recurrent, call_.recurrent_bias_gradient);
    });
  }

 private:
  // Where the last vector of a row of units has room for the inputs and a one, all gradients are
  // one product, with the rows [hidden state before the step, input, 1]. It is taken whichever of
  // them are asked for, so that none changes by a bit with what else is.
  bool can_join() const {
    return Cell::phases == 1 && size_.units <= widest &&
           size_.units + size_.inputs + 1 <= joined_width() && wants_any();
  }
  bool wants_any() const {
    return wants_bias_ || call_.input_weight_gradient != nullptr ||
           call_.recurrent_weight_gradient != nullptr;
  }
  int64_t joined_width() const { return ceil_divide(size_.units, lanes) * lanes; }

  // Packs the rows of steps [first_time, first_time + steps) into `panel`.
  void pack_joined(int64_t first_time, int64_t first, int64_t depth, T* panel) const {
    const int64_t units = size_.units, inputs = size_.inputs, width = joined_width();
    for (int64_t k = 0; k < depth; ++k, panel += width) {
      const int64_t t = first_time + (first + k) / size_.batch, b = (first + k) % size_.batch;
      const int64_t before = call_.reverse ? t + 1 : t - 1;
      const T* hidden = zeros_.get();
      if (before >= 0 && before < size_.steps) {
        hidden = call_.y + (before * size_.batch + b) * call_.y_row_stride;
      } else if (call_.initial[0] != nullptr) {
        hidden = call_.initial[0] + b * units;
      }
      int64_t j = 0;
      for (; j + lanes <= units; j += lanes) V::load(hidden + j).store(panel + j);
      V::load(hidden + j, static_cast<int>(units - j)).store(panel + j);
      const T* x = call_.x + t * call_.x_step_stride + b * call_.x_batch_stride;
      for (int64_t i = 0; i < inputs; ++i) panel[units + i] = x[i * call_.x_column_stride];
      panel[units + inputs] = T(1);
    }
  }

  void add_joined(int64_t first_time, int64_t steps, const T* gradients, int64_t rows) {
    const int64_t width = joined_width();
    for (int64_t first = 0; first < rows; first += depth_) {
      const int64_t depth = smaller(depth_, steps * size_.batch - first);
      pack_joined(first_time, first, depth, panels_.get());
      // The rows of the result are split, so no sum depends on the number of threads.
      const bool add = started_ || first > 0;
      in_parallel(call_.pool, width_, depth * width_ * width, [&](int64_t begin, int64_t end) {
        const Factors<T> factors{depth, gradients + first * width_ + begin, 1, width_,
                                 panels_.get()};
        multiply_panel<T>(width / lanes, end - begin, factors, joined_sums_ + begin * width, width,
                          width, add);
      });
    }
  }

  void scatter_joined() {
    const int64_t units = size_.units, inputs = size_.inputs, width = joined_width();
    constexpr Phase phase = Cell::phase(0);
    for (int64_t row = 0; row < width_; ++row) {
      const T* sums = joined_sums_ + row * width;
      const int share = static_cast<int>(row / units);
      const int64_t gate_row = phase.gate_of_share[share] * units + row % units;
      if (call_.recurrent_weight_gradient != nullptr && share >= phase.recurrent.first &&
          share < phase.recurrent.end()) {
        memcpy(call_.recurrent_weight_gradient + gate_row * units, sums, units * sizeof(T));
      }
      if (call_.input_weight_gradient != nullptr && share >= phase.input.first &&
          share < phase.input.end()) {
        memcpy(call_.input_weight_gradient + gate_row * inputs, sums + units, inputs * sizeof(T));
      }
      if (wants_bias_) bias_sums_.get()[row] = sums[units + inputs];
    }
  }

  // One product into one weight: gradients of `shares` (transposed) x operand.
  struct Product {
    const Phase* phase;
    Range shares;
    const T* gradients;  // [rows, shares * H]
    RowSet<T> operand;   // [rows, columns]
    int64_t rows, columns;
    T* out;  // [G*H, columns]
    bool recurrent;
  };

  template <int P>
  static const Phase* phase_pointer() {
    static constexpr Phase phase = Cell::phase(P);
    return &phase;
  }

  int products_of(int64_t first_time, int64_t steps, const T* gradients, Product* products) const {
    int count = 0;
    const int64_t batch = size_.batch, units = size_.units;
    for_phases<Cell>([&](auto index) {
      constexpr int P = decltype(index)::value;
      constexpr Phase phase = Cell::phase(P);
      const Phase* pointer = phase_pointer<P>();
      if (call_.input_weight_gradient != nullptr) {
        const RowSet<T> x{call_.x + first_time * call_.x_step_stride, batch, call_.x_step_stride,
                          call_.x_batch_stride, call_.x_column_stride};
        products[count++] = {pointer,
                             phase.input,
                             gradients,
                             x,
                             steps * batch,
                             size_.inputs,
                             call_.input_weight_gradient,
                             false};
      }
      if (call_.recurrent_weight_gradient == nullptr) return;
      Product product{
          pointer, phase.recurrent, gradients, {}, 0, units, call_.recurrent_weight_gradient, true};
      if constexpr (phase.operand >= 0) {
        const int64_t width = slots * units;
        product.operand = {call_.reserve + first_time * batch * width + phase.operand * units,
                           steps * batch, 0, width, 1};
        product.rows = steps * batch;
        products[count++] = product;
        return;
      }
      // The hidden state before each step: the output of the step before, or the initial state.
      const int64_t first_step = call_.reverse ? size_.steps - 1 : 0;
      const bool starts = first_time <= first_step && first_step < first_time + steps;
      if (starts) {
        product.gradients = gradients + (first_step - first_time) * batch * width_;
        const bool given = call_.initial[0] != nullptr;
        product.operand = {given ? call_.initial[0] : zeros_.get(), batch, 0, given ? units : 0, 1};
        product.rows = batch;
        products[count++] = product;
      }
      product.rows = (starts ? steps - 1 : steps) * batch;
      if (product.rows == 0) return;
      const bool skip_first = starts && !call_.reverse;
      product.gradients = gradients + (skip_first ? batch * width_ : 0);
      const int64_t before =
          call_.reverse ? first_time + 1 : (skip_first ? first_time : first_time - 1);
      product.operand = {call_.y + before * batch * call_.y_row_stride, product.rows, 0,
                         call_.y_row_stride, 1};
      products[count++] = product;
    });
    return count;
  }

  // Tasks: for each weight its panels of columns, each split over the units of a gate where there
  // are fewer panels than threads; then blocks of columns of the biases.
  int64_t input_panels() const {
    return call_.input_weight_gradient != nullptr ? ceil_divide(size_.inputs, widest) : 0;
  }
  int64_t recurrent_panels() const {
    return call_.recurrent_weight_gradient != nullptr ? ceil_divide(size_.units, widest) : 0;
  }
  int64_t splits() const {
    const int64_t panels = larger(1, input_panels() + recurrent_panels());
    return smaller(ceil_divide(call_.pool.threads, panels), ceil_divide(size_.units, 4 * lanes));
  }
  int64_t bias_tasks() const { return wants_bias_ ? ceil_divide(width_, widest) : 0; }
  int64_t tasks() const { return (input_panels() + recurrent_panels()) * splits_ + bias_tasks(); }

  void run_task(int64_t task, const Product* products, int count, const T* gradients,
                int64_t rows) {
    const int64_t panels = input_panels() + recurrent_panels();
    if (task >= panels * splits_) {
      sum_columns(gradients, rows, (task - panels * splits_) * widest);
      return;
    }
    const int64_t panel = task / splits_, split = task % splits_;
    const bool recurrent = panel >= input_panels();
    const int64_t column = (recurrent ? panel - input_panels() : panel) * widest;
    const int64_t unit_begin = size_.units * split / splits_;
    const int64_t unit_end = size_.units * (split + 1) / splits_;
    unsigned touched = 0;  // gates that already hold a product of this chunk
    for (int i = 0; i < count; ++i) {
      if (products[i].recurrent != recurrent) continue;
      multiply(products[i], column, unit_begin, unit_end, panels_ + task * depth_ * widest,
               touched);
    }
  }

  void multiply(const Product& product, int64_t column, int64_t unit_begin, int64_t unit_end,
                T* panel, unsigned& touched) const {
    const int64_t columns = smaller(widest, product.columns - column);
    const int64_t vectors = ceil_divide(columns, lanes);
    for (int64_t first = 0; first < product.rows; first += depth_) {
      const int64_t depth = smaller(depth_, product.rows - first);
      pack_rows(product.operand, first, depth, column, columns, vectors * lanes, panel);
      for (int share = product.shares.first; share < product.shares.end(); ++share) {
        const int gate = product.phase->gate_of_share[share - product.phase->shares.first];
        const Factors<T> factors{
            depth, product.gradients + first * width_ + share * size_.units + unit_begin, 1, width_,
            panel};
        T* out = product.out + (gate * size_.units + unit_begin) * product.columns + column;
        multiply_panel<T>(vectors, unit_end - unit_begin, factors, out, product.columns, columns,
                          started_ || (touched >> gate & 1u) != 0);
      }
      for (int share = product.shares.first; share < product.shares.end(); ++share) {
        touched |= 1u << product.phase->gate_of_share[share - product.phase->shares.first];
      }
    }
  }

  void sum_columns(const T* gradients, int64_t rows, int64_t begin) const {
    const int64_t end = smaller(width_, begin + widest);
    for (int64_t j = begin; j < end; j += lanes) {
      const int present = static_cast<int>(smaller(lanes, end - j));
      // Four sums side by side: a chain of additions would wait for each one.
      V sums[4] = {V(0), V(0), V(0), V(0)};
      for (int64_t row = 0; row < rows; ++row) {
        V& sum = sums[row & 3];
        sum = sum + V::load(gradients + row * width_ + j, present);
      }
      const V total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
      (V::load(bias_sums_ + j, present) + total).store(bias_sums_ + j, present);
    }
  }

  void scatter_bias(const Phase& phase, Range range, T* out) const {
    if (out == nullptr) return;
    for (int share = range.first; share < range.end(); ++share) {
      const int64_t gate = phase.gate_of_share[share - phase.shares.first];
      memcpy(out + gate * size_.units, bias_sums_ + share * size_.units,
             static_cast<size_t>(size_.units) * sizeof(T));
    }
  }

  const BackwardCall<T>& call_;
  const Sizes size_;
  const int64_t width_;  // of a row of share gradients
  const bool wants_bias_;
  const bool joined_;
  const int64_t depth_, splits_;
  Buffer<T> panels_, zeros_, bias_sums_, joined_sums_;
  bool started_ = false;
};

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
