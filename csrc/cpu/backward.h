// Backpropagation through time for one direction.
//
// The sequence is taken in chunks of time steps, last first. For each chunk the loop over time
// turns the gradients of the outputs into the gradients of the shares (each thread its own
// sequences, or, where there are fewer of them, its own units), and then the weights' gradients
// grow by one product per weight over all rows of the chunk. How the work is split over threads
// changes no sum.
#pragma once

#include "cpu/norm.h"
#include "cpu/recompute.h"
#include "cpu/variant.h"
#include "cpu/weight_gradients.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class Cell, class S>
class BackwardPass {
  using T = Compute<S>;
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;
  static constexpr int64_t widest = panel_vectors * lanes;
  static constexpr int states = Cell::states;
  static constexpr int shares = share_count<Cell>();
  static constexpr int last_phase = Cell::phases - 1;
  static constexpr int save_count = Cell::saved > 0 ? Cell::saved : 1;

 public:
  explicit BackwardPass(const BackwardCall<S>& call)
      : call_(call),
        size_(call.sizes),
        steps_(call.sizes, call.row_counts, call.order, call.reverse),
        projected_(call.weights.projection != nullptr),
        masks_(call.variant.masks()),
        zones_(call.variant.zones()),
        varied_(call.variant.any()),
        normed_(call.variant.norm != Norm::none),
        gates_apart_(call.variant.norm == Norm::gates),
        made_slot_(reserve_slots<Cell>() + projected_),
        slots_(made_slot_ + (zones_ ? states : 0)),
        padded_(ceil_divide(size_.units, lanes) * lanes),
        width_(shares * size_.units),
        chunk_rows_(rows_of_chunks(size_, width_)),
        recomputes_(call.recompute && slots_ >= states),
        kept_slots_(call.recompute ? states - 1 : slots_),
        back_through_time_(size_.steps > 1 || Cell::phases > 1 ||
                           call.initial_gradient[0] != nullptr),
        recurrent_weights_(multiplies_back() ? packed_size<T>(shares * size_.units, size_.outputs)
                                             : 0),
        input_weights_(
            call.x_gradient == nullptr ? 0 : packed_size<T>(shares * size_.units, size_.inputs)),
        projection_weights_(projected_ ? packed_size<T>(size_.outputs, size_.units) : 0),
        carry_(states * size_.batch * padded_),
        zeros_(larger(padded_, widest)),
        stored_zeros_(padded_),
        gradients_((chunk_rows_ + size_.batch) * width_),
        output_gradients_(projected_ ? chunk_rows_ * size_.outputs : 0),
        results_(steps_.padded() ? size_.batch * result_width() : 0),
        state_gradients_(varied_ ? size_.batch * space_width() : 0),
        mask_(masks_ ? size_.batch * space_width() : 0),
        stays_(zones_ ? states * size_.batch * padded_ : 0),
        anew_(call.variant.resets != nullptr ? states * size_.batch * space_width() : 0),
        norm_(call.weights, size_, call.variant.norm),
        middle_(Cell::middle ? 2 * padded_ : 0),
        middle_rows_(Cell::middle ? 2 * size_.batch * padded_ : 0),
        normal_rows_(normed_ ? 3 * size_.batch * norm_.rows() : 0),
        row_scales_(normed_ ? 2 * size_.batch * Cell::gates : 0),
        wide_rows_(normed_ ? size_.batch * (size_.inputs + size_.outputs) : 0),
        masked_rows_(masks_ && (normed_ || !has_recurrent_product<Cell>())
                         ? size_.batch * size_.outputs
                         : 0),
        share_rows_(normed_ ? chunk_rows_ * width_ : 0),
        input_rows_(gates_apart_ ? chunk_rows_ * width_ : 0),
        norm_sums_(normed_ ? size_.batch * norm_parameters() : 0),
        unit_parameters_(Cell::unit_parameters * padded_),
        unit_sums_(wants_unit_parameters() ? size_.batch * Cell::unit_parameters * size_.units
                                           : 0) {
    check_cell<Cell>();
    zeros_.clear(larger(padded_, widest));
    stored_zeros_.clear(padded_);
    if (varied_) state_gradients_.clear(size_.batch * space_width());
    if (wants_unit_parameters()) {
      unit_sums_.clear(size_.batch * Cell::unit_parameters * size_.units);
    }
    pack_unit_parameters<Cell>(call.weights, size_.units, unit_parameters_.get());
    if (normed_) norm_sums_.clear(size_.batch * norm_parameters());
    for (int i = 0; i < 2 && Cell::middle; ++i) {
      widen_row(call.weights.norm[2 + i], size_.units, middle_ + i * padded_);
    }
    for (int64_t row = 0; row < size_.batch && masks_; ++row) {
      draw_recurrent_mask(call.variant, steps_.sequence(row), size_.outputs, mask_row(row));
    }
    const Weights<S>& w = call.weights;
    for_phases<Cell>([&](auto index) {
      constexpr int P = decltype(index)::value;
      constexpr Phase phase = Cell::phase(P);
      const int64_t before = phase.shares.first * size_.units;  // rows of the phases before
      if (multiplies_back()) {
        pack_transposed(phase, phase.recurrent, size_.units, w.recurrent, w.recurrent_row_stride,
                        w.recurrent_column_stride, size_.outputs,
                        recurrent_weights_ + packed_size<T>(before, size_.outputs));
      }
      if (call.x_gradient != nullptr) {
        pack_transposed(phase, phase.input, size_.units, w.input, w.input_row_stride,
                        w.input_column_stride, size_.inputs,
                        input_weights_ + packed_size<T>(before, size_.inputs));
      }
    });
    if (projected_) {
      pack_transposed(projection_phase, projection_phase.shares, size_.outputs, w.projection,
                      w.projection_row_stride, w.projection_column_stride, size_.units,
                      projection_weights_.get());
    }
  }

  void run() {
    const int64_t depth = has_recurrent_product<Cell>() ? size_.outputs : 0;
    const int64_t per_row = Cell::gates * size_.units * (size_.inputs + depth);
    WeightGradients<Cell, S> weights(call_, steps_, chunk_rows_, mask_.get(), space_width());
    std::optional<Recompute<Cell, S>> again;
    if (recomputes_) again.emplace(call_, steps_, chunk_rows_, most_steps());
    Chunk chunk{size_.steps, size_.steps, 0, 0, nullptr, nullptr, 0};
    while (chunk.s0 > 0) {
      const Chunk later = chunk;
      chunk = chunk_before(later.s0);
      if (later.s1 > later.s0) keep_next_step(later, chunk);
      if (recomputes_) {
        chunk.saved = again->run(chunk.s0, chunk.s1, chunk.first_time);
        chunk.first_saved = chunk.first_row;
      }
      const int64_t end_time = chunk.first_time + chunk.s1 - chunk.s0;
      const int64_t work = (steps_.offset(end_time) - steps_.offset(chunk.first_time)) * per_row;
      if (shares_units(call_.pool, size_.batch, size_.batch * per_row) && can_share_units()) {
        if (chunk.s1 == size_.steps) start_carry(0, size_.batch);
        in_team(
            call_.pool, panel_count(), [] { return 0; },
            [&](const Part& part, int) { run_rows(chunk, 0, size_.batch, part); });
      } else {
        in_parallel_rows(steps_, call_.pool, work, [&](int64_t begin, int64_t end) {
          if (chunk.s1 == size_.steps) start_carry(begin, end);
          run_rows(chunk, begin, end, Part());
        });
      }
      weights.add(chunk.first_time, end_time, chunk.gradients, output_gradients_.get(),
                  saved_rows(chunk, chunk.first_time, 0, 0).base,
                  gates_apart_ ? input_rows_.get() : nullptr,
                  normed_ ? share_rows_.get() : nullptr);
    }
    weights.finish();
    if (wants_unit_parameters()) add_unit_sums();
    if constexpr (Cell::row_statistics) {
      if (normed_) add_norm_sums();
    }
  }

 private:
  // Time steps [s0, s1) in the order of the forward pass. `gradients` holds the shares' gradients
  // of the chunk, in the order of time; the rows of the step after s1 - 1 stand beside them.
  struct Chunk {
    int64_t s0, s1, first_time, first_row;
    T* gradients;         // [rows, shares * H]
    const S* saved;       // the reserve [rows, R*H], R + 1 with a projection,
    int64_t first_saved;  // and the row at which it begins
  };

  // At least so many rows are worth a product, and no more than stay in the second-level cache.
  static int64_t rows_of_chunks(const Sizes& size, int64_t width) {
    constexpr int64_t bytes = 512 * 1024, rows = 512;
    const int64_t wanted = larger(rows, bytes / (width * int64_t{sizeof(T)}));
    return smaller(size.steps * size.batch, larger(wanted, size.batch));
  }

  // The chunk of as many steps as its rows allow that ends before s1.
  Chunk chunk_before(int64_t s1) const {
    int64_t s0 = s1, rows = 0;
    while (s0 > 0 && rows + steps_.rows(steps_.at(s0 - 1)) <= chunk_rows_) {
      rows += steps_.rows(steps_.at(--s0));
    }
    const int64_t first_time = smaller(steps_.at(s0), steps_.at(s1 - 1));
    const int64_t beside = call_.reverse ? size_.batch : 0;
    return {
        s0, s1, first_time, steps_.offset(first_time), gradients_ + beside * width_, call_.reserve,
        0};
  }
  // Of any chunk.
  int64_t most_steps() const {
    int64_t most = 0;
    for (int64_t s1 = size_.steps; s1 > 0;) {
      const int64_t s0 = chunk_before(s1).s0;
      most = larger(most, s1 - s0);
      s1 = s0;
    }
    return most;
  }
  // Other cells and series would need more than one place at which all threads wait.
  bool can_share_units() const {
    return Cell::phases == 1 && !projected_ && !steps_.ragged() && !varied_;
  }
  int64_t panel_count() const { return ceil_divide(padded_ / lanes, panel_vectors); }
  Rows<T> gradient_rows(const Chunk& chunk, int64_t t, int64_t row) const {
    return {chunk.gradients + (steps_.offset(t) - chunk.first_row + row) * width_, width_};
  }
  Rows<T> output_gradient_rows(const Chunk& chunk, int64_t t, int64_t row) const {
    return {output_gradients_ + (steps_.offset(t) - chunk.first_row + row) * size_.outputs,
            size_.outputs};
  }
  Rows<const S> saved_rows(const Chunk& chunk, int64_t t, int64_t row, int64_t slot) const {
    const int64_t width = slots_ * size_.units;
    const int64_t place = steps_.offset(t) + row - chunk.first_saved;
    return {chunk.saved + place * width + slot * size_.units, width};
  }
  // The states after step t.
  OrderedRows<const S> state(int i, int64_t t, int64_t row) const {
    if (i == 0) return steps_.rows_of(call_.y, t, row, call_.y_step_stride, call_.y_batch_stride);
    const int64_t slot = (call_.recompute ? 0 : Cell::saved) + i - 1;
    return steps_.rows_of(call_.reserve + slot * size_.units, t, row, kept_slots_ * size_.units);
  }
  int64_t state_width(int i) const { return i == 0 ? size_.outputs : size_.units; }
  Rows<T> carry(int i, int64_t row) const {
    return {carry_.get() + (i * size_.batch + row) * padded_, padded_};
  }

  // Some rows of one time step.
  struct Step {
    int64_t t, row, rows;
    bool final;  // the last step of these sequences
    OrderedRows<const S> previous[states], next[states], y_gradient;
    Rows<const S> saved;
    Rows<T> carry[states], gradients, next_gradients;
    Rows<T> state_gradient;  // with a variant: of what the cell made of h
  };

  // Wide enough for a state, or for what a recurrent product passes back.
  int64_t space_width() const { return larger(padded_, ceil_divide(size_.outputs, lanes) * lanes); }
  T* mask_row(int64_t row) const { return mask_ + row * space_width(); }
  T* stays_row(int i, int64_t row) const { return stays_ + (i * size_.batch + row) * padded_; }

  RNNCELLS_OUT_OF_LINE void run_rows(const Chunk& chunk, int64_t begin, int64_t end,
                                     const Part& part) const {
    for (int64_t s = chunk.s1 - 1; s >= chunk.s0; --s) {
      const int64_t t = steps_.at(s), rows = steps_.rows(t, begin, end);
      const int64_t lasting = smaller(rows, steps_.rows(steps_.after(t), begin, end));
      const int64_t going_on = smaller(rows, steps_.rows(steps_.before(t), begin, end));
      if (steps_.padded()) fetch_step(steps_.before(t), begin, end);
      // Sequences end, or begin, at this step from one row on; the step is cut there.
      const int64_t cut = call_.reverse ? going_on : lasting;
      run_step(chunk, t, begin, begin + cut, lasting == 0, going_on > 0, part);
      run_step(chunk, t, begin + cut, begin + rows, lasting < rows, going_on == rows, part);
      part.wait();
      if (part.number == 0) initial_gradients(chunk, t, begin + going_on, begin + rows);
    }
    if (call_.x_gradient != nullptr) input_gradient(chunk, begin, end, part);
  }

  // Asks for the outputs and their gradients of the step whose turn is next: scattered rows, which
  // no prefetcher foresees.
  void fetch_step(int64_t t, int64_t begin, int64_t end) const {
    const int64_t rows = steps_.rows(t, begin, end);
    if (rows == 0) return;
    fetch_rows(state(0, t, begin), rows);
    if (call_.y_gradient == nullptr) return;
    fetch_rows(steps_.rows_of(call_.y_gradient, t, begin, call_.y_gradient_step_stride,
                              call_.y_gradient_batch_stride),
               rows);
  }
  void fetch_rows(const OrderedRows<const S>& series, int64_t rows) const {
    constexpr int64_t line = 64 / sizeof(S);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t j = 0; j < size_.outputs; j += line) __builtin_prefetch(series[row] + j);
    }
  }

  RNNCELLS_OUT_OF_LINE void start_carry(int64_t begin, int64_t end) const {
    for (int i = projected_ ? 1 : 0; i < states; ++i) {
      const Rows<T> target = carry(i, begin);
      for (int64_t row = 0; row < end - begin; ++row) clear_row(target[row], padded_);
      if (call_.last_gradient[i] == nullptr) continue;
      const OrderedRows<const S> source =
          steps_.state_rows(call_.last_gradient[i], begin, size_.units);
      for (int64_t row = 0; row < end - begin; ++row) {
        widen_row(source[row], size_.units, target[row]);
      }
    }
  }

  // The gradients of the step after this chunk, from where the chunk before left them. All threads
  // wait: packed rows of other sequences may stand where these go.
  RNNCELLS_OUT_OF_LINE void keep_next_step(const Chunk& later, const Chunk& chunk) const {
    const int64_t t = steps_.at(chunk.s1);
    memmove(gradient_rows(chunk, t, 0).base, gradient_rows(later, t, 0).base,
            static_cast<size_t>(steps_.rows(t) * width_) * sizeof(T));
  }

  RNNCELLS_OUT_OF_LINE void run_step(const Chunk& chunk, int64_t t, int64_t first, int64_t last,
                                     bool final, bool going_on, const Part& part) const {
    if (first >= last) return;
    Step step;
    step.t = t;
    step.row = first;
    step.rows = last - first;
    step.final = final;
    for (int i = 0; i < states; ++i) {
      step.next[i] = state(i, t, first);
      step.carry[i] = carry(i, first);
      if (going_on) {
        step.previous[i] = state(i, steps_.before(t), first);
      } else if (call_.initial[i] != nullptr) {
        step.previous[i] = steps_.state_rows(call_.initial[i], first, state_width(i));
      } else {
        step.previous[i] = {stored_zeros_.get(), 0, nullptr};
      }
    }
    step.saved = saved_rows(chunk, t, first, 0);
    // With a projection what it multiplied stands in for h, which the cell then never looks at.
    if (projected_) step.next[0] = step.previous[0] = saved_rows(chunk, t, first, made_slot_ - 1);
    for (int i = 0; i < states && zones_; ++i) {
      step.next[i] = saved_rows(chunk, t, first, made_slot_ + i);
    }
    if (call_.variant.resets != nullptr) start_anew(step);
    if constexpr (!has_recurrent_product<Cell>()) {
      if (masks_) step.previous[0] = masked(step, step.previous[0]);
    }
    step.y_gradient = {stored_zeros_.get(), 0, nullptr};
    if (call_.y_gradient != nullptr) {
      step.y_gradient = steps_.rows_of(call_.y_gradient, t, first, call_.y_gradient_step_stride,
                                       call_.y_gradient_batch_stride);
    }
    if (call_.variant.whole_states) add_series_gradient(step);
    step.gradients = gradient_rows(chunk, t, first);
    step.next_gradients = final ? step.gradients : gradient_rows(chunk, steps_.after(t), first);
    step.state_gradient = {state_gradients_ + first * space_width(), space_width()};
    if (projected_) output_gradient(chunk, step);
    if (varied_ && !projected_) open_states(step);
    if constexpr (Cell::row_statistics) {
      if (normed_) run_normed(chunk, step);
    }
    if constexpr (!Cell::middle) {
      if (!normed_) {
        for_phases_backward<Cell>(
            [&](auto index) { run_phase<decltype(index)::value>(chunk, step, part); });
      }
    }
    if (varied_) close_states(step);
    if (wants_unit_parameters()) sum_units(step, part);
  }

  // What comes from outside to the states besides h, to what comes from the step after.
  RNNCELLS_OUT_OF_LINE void add_series_gradient(const Step& step) const {
    for (int i = 1; i < states; ++i) {
      if (call_.series_gradient[i] == nullptr) continue;
      const OrderedRows<const S> series =
          steps_.rows_of(call_.series_gradient[i], step.t, step.row, call_.series_step_stride,
                         call_.series_batch_stride);
      for (int64_t row = 0; row < step.rows; ++row) {
        T* carry = step.carry[i][row];
        const S* outside = series[row];
        for (int64_t j = 0; j < size_.units; ++j) carry[j] += widen(outside[j]);
      }
    }
  }

  // The hidden state before the step, under the mask of recurrent dropout.
  RNNCELLS_OUT_OF_LINE OrderedRows<const S> masked(const Step& step,
                                                   const OrderedRows<const S>& source) const {
    S* rows = masked_rows_ + step.row * size_.outputs;
    for (int64_t row = 0; row < step.rows; ++row) {
      multiply_row(source[row], mask_row(step.row + row), size_.outputs,
                   rows + row * size_.outputs);
    }
    return {rows, size_.outputs, nullptr};
  }

  bool multiplies_back() const { return back_through_time_ && has_recurrent_product<Cell>(); }
  bool wants_unit_parameters() const {
    return Cell::unit_parameters > 0 && call_.unit_parameter_gradient != nullptr;
  }

  // Each sequence has sums of its own, so that no sum depends on how the sequences are split.
  RNNCELLS_OUT_OF_LINE void sum_units(const Step& step, const Part& part) const {
    if constexpr (Cell::unit_parameters > 0) {
      const int64_t begin = part.begin(panel_count()) * widest;
      const int64_t end = smaller(part.end(panel_count()) * widest, size_.units);
      for (int64_t row = 0; row < step.rows; ++row) {
        T* sums = unit_sums_ + (step.row + row) * Cell::unit_parameters * size_.units;
        for (int k = 0; k < Cell::unit_parameters; ++k, sums += size_.units) {
          const UnitParameter parameter = Cell::parameter(k);
          const T* gradient = step.gradients[row] + parameter.share * size_.units;
          const S* state = (parameter.after ? step.next : step.previous)[parameter.state][row];
          add_product_row(gradient + begin, state + begin, end - begin, sums + begin);
        }
      }
    }
  }
  RNNCELLS_OUT_OF_LINE void add_unit_sums() {
    const int64_t width = Cell::unit_parameters * size_.units;
    T* total = unit_sums_.get();
    for (int64_t row = 1; row < size_.batch; ++row) {
      add_row(static_cast<const T*>(total) + row * width, width, total);
    }
    narrow_row(static_cast<const T*>(total), width, call_.unit_parameter_gradient);
  }

  // The states before the step, as the cell saw them. With a projection it never looks at h.
  RNNCELLS_OUT_OF_LINE void start_anew(Step& step) const {
    const auto anew = [&](int64_t row) {
      return starts_anew(call_.variant, steps_, step.t, step.row + row);
    };
    bool some = false;
    for (int64_t row = 0; row < step.rows && !some; ++row) some = anew(row);
    for (int i = projected_ ? 1 : 0; i < states && some; ++i) {
      const Rows<S> target{anew_ + (i * size_.batch + step.row) * space_width(), space_width()};
      for (int64_t row = 0; row < step.rows; ++row) {
        if (anew(row)) {
          clear_row(target[row], size_.units);
        } else {
          copy_row(step.previous[i][row], size_.units, target[row]);
        }
      }
      step.previous[i] = {target.base, target.stride, nullptr};
    }
  }

  // What phase P's product of step t passes back to what it multiplied, for `rows` rows from `row`
  // on, without what the mask kept from it and, for h, without the sequences that began there.
  template <int P>
  void pass_back(Rows<T> gradients, int64_t t, int64_t row, int64_t rows, Rows<T> out) const {
    for (int64_t column = 0; column < size_.outputs; column += widest) {
      const int64_t columns = smaller(widest, size_.outputs - column);
      multiply_panel<T>(ceil_divide(columns, lanes), rows, recurrent_factors<P>(gradients, column),
                        out.base + column, out.stride, columns, false);
    }
    for (int64_t i = 0; i < rows; ++i) {
      T* target = out[i];
      if (P == 0 && starts_anew(call_.variant, steps_, t, row + i)) {
        clear_row(target, size_.outputs);
      } else if (masks_) {
        scale_row(static_cast<const T*>(mask_row(row + i)), size_.outputs, target);
      }
    }
  }

  // The gradient of what the cell made of each state; what zoneout lets pass to the state before
  // stands aside.
  RNNCELLS_OUT_OF_LINE void open_states(const Step& step) const {
    if (!step.final) {
      pass_back<0>(step.next_gradients, steps_.after(step.t), step.row, step.rows,
                   step.state_gradient);
    }
    for (int64_t row = 0; row < step.rows; ++row) {
      T* target = step.state_gradient[row];
      if (step.final) clear_row(target, size_.units);
      add_row(step.y_gradient[row], size_.units, target);
      add_row(static_cast<const T*>(step.carry[0][row]), size_.units, target);
    }
    for (int i = 0; i < states && zones_; ++i) {
      if (!(call_.variant.zoneout[i] > 0)) continue;
      for (int64_t row = 0; row < step.rows; ++row) {
        T *stays = stays_row(i, step.row + row), *gradient = step.carry[i][row];
        if (i == 0) gradient = step.state_gradient[row];
        zoneout_row(call_.variant, i, call_.variant.first_time + step.t,
                    steps_.sequence(step.row + row), size_.units, stays);
        split_row(size_.units, gradient, stays);
      }
    }
  }

  // The gradients of the states before the step, but for what goes through its product.
  RNNCELLS_OUT_OF_LINE void close_states(const Step& step) const {
    for (int i = projected_ ? 1 : 0; i < states; ++i) {
      for (int64_t row = 0; row < step.rows; ++row) {
        T* target = step.carry[i][row];
        if (i == 0 && !Cell::direct_hidden) clear_row(target, size_.units);
        if (i == 0 && !has_recurrent_product<Cell>() && masks_) {
          scale_row(static_cast<const T*>(mask_row(step.row + row)), size_.units, target);
        }
        if (call_.variant.zoneout[i] > 0) {
          add_row(static_cast<const T*>(stays_row(i, step.row + row)), size_.units, target);
        }
        if (starts_anew(call_.variant, steps_, step.t, step.row + row)) {
          clear_row(target, size_.units);
        }
      }
    }
  }

  // Of layer norm: of both products or of one sum, and of the cell's middle.
  int64_t norm_parameters() const {
    return 2 * norm_.rows() + (Cell::middle ? 2 * size_.units : 0);
  }

  // A step with layer norm: the products of whole rows once more, the cell's adjoint, and the way
  // back through the norms.
  RNNCELLS_OUT_OF_LINE void run_normed(const Chunk& chunk, const Step& step) const {
    const int64_t first = step.row, gate_rows = norm_.rows();
    T *x = wide_rows_ + first * (size_.inputs + size_.outputs), *h = x + step.rows * size_.inputs;
    const Operand<T> input = as_operand<S>(
        steps_.rows_of(call_.x, step.t, first, call_.x_step_stride, call_.x_batch_stride),
        call_.x_column_stride, step.rows, size_.inputs, x);
    OrderedRows<const S> source = step.previous[0];
    if (masks_) source = masked(step, source);
    const Operand<T> hidden = as_operand<S>(source, 1, step.rows, size_.outputs, h);
    T* normal = normal_rows_ + 3 * first * gate_rows;  // of the rows: input, recurrent, space
    T *recurrent = normal + step.rows * gate_rows, *space = recurrent + step.rows * gate_rows;
    norm_.input_product(input.base, input.row_stride, input.column_stride, step.rows, normal);
    norm_.recurrent_product(hidden.base, hidden.row_stride, step.rows, recurrent);
    const int64_t place = steps_.offset(step.t) - chunk.first_row + first;
    for (int64_t row = 0; row < step.rows; row += norm_block) {
      const int64_t count = smaller(norm_block, step.rows - row);
      const auto rows_of = [&](T* base, int64_t at, int64_t stride) {
        return Rows<T>{base + at * stride, stride};
      };
      const typename NormedShares<Cell, S>::Block block{
          rows_of(normal, row, gate_rows), rows_of(recurrent, row, gate_rows),
          rows_of(row_scales_.get(), first + row, 2 * Cell::gates), count};
      const Rows<T> shares_rows = rows_of(share_rows_.get(), place + row, width_);
      const Rows<T> sums = rows_of(norm_sums_.get(), first + row, norm_parameters());
      const Rows<T> middle = rows_of(middle_rows_.get(), first + row, 2 * padded_);
      norm_.normalise(block);
      const auto run = [&](auto phase) {
        for (int64_t i = 0; i < count; ++i) {
          for_units([&](auto full, int64_t unit, int present) {
            run_normed_cell<decltype(phase)::value, decltype(full)::value>(
                step, row + i, unit, present, middle[i], shares_rows[i]);
          });
        }
      };
      if constexpr (Cell::middle) {
        T spread[norm_block];
        for (int64_t i = 0; i < count; ++i) {
          widen_row(step.saved[row + i] + Cell::phase(1).operand * size_.units, size_.units,
                    middle[i]);
        }
        normalise_rows(middle, count, size_.units, Rows<T>{spread, 1});
        run(Index<1>());
        for (int64_t i = 0; i < count; ++i) {
          norm_.add_sums(middle[i], shares_rows[i] + Cell::phase(1).shares.first * size_.units,
                         middle_.get(), middle[i] + padded_, sums[i] + 2 * gate_rows,
                         sums[i] + 2 * gate_rows + size_.units);
        }
        normalise_adjoint(Rows<T>{middle.base + padded_, middle.stride}, middle, Rows<T>{spread, 1},
                          count, size_.units);
      }
      run(Index<0>());
      norm_.adjoint(
          block, shares_rows,
          gates_apart_ ? rows_of(input_rows_.get(), place + row, width_) : Rows<T>{nullptr, 0},
          Rows<T>{step.gradients[row], step.gradients.stride}, rows_of(space, row, gate_rows),
          sums);
    }
  }
  template <class Body>
  RNNCELLS_INLINE void for_units(const Body& body) const {
    int64_t unit = 0;
    for (; unit + lanes <= size_.units; unit += lanes) body(Index<1>(), unit, lanes);
    if (unit < size_.units) body(Index<0>(), unit, static_cast<int>(size_.units - unit));
  }

  // middle: [2, padded], the row that the cell normalised, and the gradient of what it was.
  template <int P, bool Full>
  RNNCELLS_INLINE void run_normed_cell(const Step& step, int64_t row, int64_t unit, int present,
                                       const T* middle, T* shares_row) const {
    constexpr int first_state = Cell::direct_hidden ? 0 : 1;
    const int64_t units = size_.units;
    V save[save_count], previous[states], next[states], state_gradient[states], gradient[shares];
    V parameter[Cell::unit_parameters + 1];
    RNNCELLS_UNROLL
    for (int k = 0; k < Cell::unit_parameters; ++k) {
      parameter[k] = V::load(unit_parameters_ + k * padded_ + unit);
    }
    const S* saved = step.saved[row] + unit;
    RNNCELLS_UNROLL
    for (int i = 0; i < Cell::saved; ++i) save[i] = load_lanes<Full>(saved + i * units, present);
    previous[0] = V(0);
    RNNCELLS_UNROLL
    for (int i = first_state; i < states; ++i) {
      previous[i] = load_lanes<Full>(step.previous[i][row] + unit, present);
    }
    RNNCELLS_UNROLL
    for (int i = 0; i < states; ++i) {
      next[i] = load_lanes<Full>(step.next[i][row] + unit, present);
      state_gradient[i] = V::load(step.carry[i][row] + unit);
    }
    if (P == last_phase) state_gradient[0] = V::load(step.state_gradient[row] + unit);
    T* target = shares_row + unit;
    RNNCELLS_UNROLL
    for (int i = 0; i < shares; ++i) {
      gradient[i] = P < last_phase ? load_lanes<Full>(target + i * units, present) : V(0);
    }
    V operand = V(0);
    if constexpr (P < last_phase) operand = load_lanes<Full>(middle + padded_ + unit, present);
    if constexpr (P == 1) {
      operand = mul_add(load_lanes<Full>(middle + unit, present), V::load(middle_ + unit),
                        V::load(middle_ + padded_ + unit));
    }
    const Terms<V> terms{{call_.variant.activations}, parameter};
    cell_backward<Cell, P>(terms, save, previous, next, operand, state_gradient, gradient);
    RNNCELLS_UNROLL
    for (int i = 0; i < shares; ++i) store_lanes<Full>(gradient[i], target + i * units, present);
    RNNCELLS_UNROLL
    for (int i = 0; i < states; ++i) {
      if (i > 0 || Cell::direct_hidden) state_gradient[i].store(step.carry[i][row] + unit);
    }
  }

  // The sequences' sums, in their order.
  RNNCELLS_OUT_OF_LINE void add_norm_sums() {
    const int64_t width = norm_parameters(), gate_rows = norm_.rows();
    T* total = norm_sums_.get();
    for (int64_t row = 1; row < size_.batch; ++row) {
      add_row(static_cast<const T*>(total) + row * width, width, total);
    }
    if (Cell::middle && !gates_apart_) {  // its scale and shift are rows of its gate's
      constexpr int gate = Cell::phase(Cell::phases - 1).gate_of_share[0];
      for (int64_t j = 0; j < size_.units; ++j) {
        total[gate * size_.units + j] += total[2 * gate_rows + j];
        total[gate_rows + gate * size_.units + j] += total[2 * gate_rows + size_.units + j];
      }
    }
    for (int i = 0; i < (Cell::middle ? 4 : 2); ++i) {
      if (call_.norm_gradient[i] == nullptr) continue;
      const int64_t begin = i < 2 ? i * gate_rows : 2 * gate_rows + (i - 2) * size_.units;
      narrow_row(static_cast<const T*>(total + begin), i < 2 ? gate_rows : size_.units,
                 call_.norm_gradient[i]);
    }
  }

  // What phase P's recurrent product passes back: share gradients x W_hh.
  template <int P>
  Factors<T> recurrent_factors(Rows<T> gradients, int64_t column) const {
    constexpr Phase phase = Cell::phase(P);
    const int64_t depth = phase.recurrent.count * size_.units;
    const T* weights = recurrent_weights_ +
                       packed_size<T>(phase.shares.first * size_.units, size_.outputs) +
                       column * depth;
    return {depth, gradients.base + phase.recurrent.first * size_.units, gradients.stride, 1,
            weights};
  }

  // With a projection: the gradient of h, of which W_hr passes some to each unit.
  RNNCELLS_OUT_OF_LINE void output_gradient(const Chunk& chunk, const Step& step) const {
    const Rows<T> out = output_gradient_rows(chunk, step.t, step.row);
    const bool given_back = varied_ && !step.final;
    if (given_back) {
      pass_back<0>(step.next_gradients, steps_.after(step.t), step.row, step.rows,
                   step.state_gradient);
    }
    const bool given = step.final && call_.last_gradient[0] != nullptr;
    OrderedRows<const S> last{nullptr, 0, nullptr};
    if (given) last = steps_.state_rows(call_.last_gradient[0], step.row, size_.outputs);
    for (int64_t row = 0; row < step.rows; ++row) {
      T* target = out[row];
      if (call_.y_gradient != nullptr) {
        widen_row(step.y_gradient[row], size_.outputs, target);
      } else {
        clear_row(target, size_.outputs);
      }
      if (given) add_row(last[row], size_.outputs, target);
      if (given_back) {
        add_row(static_cast<const T*>(step.state_gradient[row]), size_.outputs, target);
      }
    }
    if (step.final || varied_) return;
    for (int64_t column = 0; column < size_.outputs; column += widest) {
      const int64_t columns = smaller(widest, size_.outputs - column);
      multiply_panel<T>(ceil_divide(columns, lanes), step.rows,
                        recurrent_factors<0>(step.next_gradients, column), out.base + column,
                        out.stride, columns, true);
    }
  }

  template <int P>
  void run_phase(const Chunk& chunk, const Step& step, const Part& part) const {
    // The product that feeds this phase: of the phase after it, or of the next step's first phase,
    // or with a projection the projection's.
    constexpr int source = P == last_phase ? 0 : P + 1;
    const bool projection = P == last_phase && projected_;
    const bool none = P == last_phase && step.final && !projected_;
    const bool prepared = P == last_phase ? varied_ && !projected_ : masks_;
    if (P != last_phase && prepared) {
      pass_back<source>(step.gradients, step.t, step.row, step.rows, step.state_gradient);
    }
    const Rows<T> gradients = P == last_phase ? step.next_gradients : step.gradients;
    const int64_t panels = ceil_divide(padded_ / lanes, panel_vectors);
    const int64_t vectors = smaller(part.end(panels) * panel_vectors, padded_ / lanes);
    for (int64_t v0 = part.begin(panels) * panel_vectors; v0 < vectors; v0 += panel_vectors) {
      Factors<T> factors = no_factors<T>();
      if (projection) {
        const Rows<T> h = output_gradient_rows(chunk, step.t, step.row);
        factors = {size_.outputs, h.base, h.stride, 1,
                   projection_weights_ + v0 * lanes * size_.outputs};
      } else if (!none && !prepared) {
        factors = recurrent_factors<source>(gradients, v0 * lanes);
      }
      const Rows<const T> start{prepared ? step.state_gradient.base + v0 * lanes : zeros_.get(),
                                prepared ? step.state_gradient.stride : 0};
      const int64_t count = smaller(panel_vectors, vectors - v0);
      if (count == 4) run_panel<P, 4>(step, start, factors, v0 * lanes);
      if (count == 3) run_panel<P, 3>(step, start, factors, v0 * lanes);
      if (count == 2) run_panel<P, 2>(step, start, factors, v0 * lanes);
      if (count == 1) run_panel<P, 1>(step, start, factors, v0 * lanes);
    }
  }

  template <int P, int Count>
  void run_panel(const Step& step, const Rows<const T>& start, const Factors<T>& factors,
                 int64_t first_unit) const {
    alignas(64) T tile[tile_rows(Count) * Count * lanes];
    for_row_tiles(step.rows, tile_rows(Count), [&](int64_t first, int64_t height) {
      Factors<T> part = factors;
      part.a += first * factors.row_stride;
      tile_kernel<T, Count, Count, 0>(height)(start[first], start.stride, part, no_factors<T>(),
                                              tile, Count * lanes);
      for (int v = 0; v < Count; ++v) {
        const int64_t unit = first_unit + v * lanes;
        const int present = static_cast<int>(smaller(lanes, size_.units - unit));
        if (present == lanes) {
          run_cells<P, true>(step, first, height, unit, lanes, tile + v * lanes, Count);
        } else {
          run_cells<P, false>(step, first, height, unit, present, tile + v * lanes, Count);
        }
      }
    });
  }

  // As in the forward pass.
  template <int P, bool Full>
  RNNCELLS_INLINE void run_cells(const Step& step, int64_t first, int64_t height, int64_t unit,
                                 int present, const T* tile, int64_t count) const {
    if constexpr (Cell::open) {
      run_cell_apart<P, Full>(step, first, height, unit, present, tile, count);
    } else {
      run_cell<P, Full>(step, first, height, unit, present, tile, count);
    }
  }
  template <int P, bool Full>
  RNNCELLS_OUT_OF_LINE void run_cell_apart(const Step& step, int64_t first, int64_t height,
                                           int64_t unit, int present, const T* tile,
                                           int64_t count) const {
    run_cell<P, Full>(step, first, height, unit, present, tile, count);
  }

  // The cell's adjoint on one vector of units and the rows of a tile, `count` vectors wide.
  template <int P, bool Full>
  RNNCELLS_INLINE void run_cell(const Step& step, int64_t first, int64_t height, int64_t unit,
                                int present, const T* tile, int64_t count) const {
    constexpr Range own = Cell::phase(P).shares;
    constexpr int first_state = Cell::direct_hidden ? 0 : 1;
    const int64_t units = size_.units;
    V parameter[Cell::unit_parameters + 1];
    RNNCELLS_UNROLL
    for (int k = 0; k < Cell::unit_parameters; ++k) {
      parameter[k] = V::load(unit_parameters_ + k * padded_ + unit);
    }
    const Terms<V> terms{{call_.variant.activations}, parameter};
    for (int64_t m = 0; m < height; ++m, tile += count * lanes) {
      const int64_t row = first + m;
      V save[save_count], previous[states], next[states], state_gradient[states], gradient[shares];
      const V product = V::load(tile);
      const S* saved = step.saved[row] + unit;
      RNNCELLS_UNROLL
      for (int i = 0; i < Cell::saved; ++i) save[i] = load_lanes<Full>(saved + i * units, present);
      previous[0] = V(0);
      RNNCELLS_UNROLL
      for (int i = first_state; i < states; ++i) {
        previous[i] = load_lanes<Full>(step.previous[i][row] + unit, present);
      }
      RNNCELLS_UNROLL
      for (int i = 0; i < states; ++i) {
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
        if (projected_ || varied_) {
          state_gradient[0] = product;
        } else {
          const V outside = product + load_lanes<Full>(step.y_gradient[row] + unit, present);
          state_gradient[0] =
              Cell::direct_hidden || step.final ? outside + state_gradient[0] : outside;
        }
      }
      cell_backward<Cell, P>(terms, save, previous, next, product, state_gradient, gradient);
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

  // The gradients of the input's shares.
  Rows<T> input_share_rows(const Chunk& chunk, int64_t t, int64_t row) const {
    if (!gates_apart_) return gradient_rows(chunk, t, row);
    return {input_rows_ + (steps_.offset(t) - chunk.first_row + row) * width_, width_};
  }

  // dx = share gradients x W_ih, for the chunk's time steps.
  RNNCELLS_OUT_OF_LINE void input_gradient(const Chunk& chunk, int64_t begin, int64_t end,
                                           const Part& part) const {
    const int64_t steps = chunk.s1 - chunk.s0;
    const bool add = call_.add_to_x_gradient;
    if (end - begin == size_.batch && !steps_.padded()) {
      // The rows of all time steps follow each other.
      const int64_t rows = steps_.offset(chunk.first_time + steps) - chunk.first_row;
      const int64_t first = part.begin(rows);
      input_gradient_rows(input_share_rows(chunk, chunk.first_time, first), part.end(rows) - first,
                          call_.x_gradient + (chunk.first_row + first) * size_.inputs, add);
      return;
    }
    for (int64_t t = chunk.first_time; t < chunk.first_time + steps; ++t) {
      const int64_t rows = steps_.rows(t, begin, end);
      const OrderedRows<S> out =
          steps_.rows_of(call_.x_gradient, t, begin, size_.batch * size_.inputs, size_.inputs);
      S* together = gather(out, rows, size_.inputs, begin, add);
      input_gradient_rows(input_share_rows(chunk, t, begin), rows, together, add);
      scatter(together, rows, size_.inputs, out);
      for (int64_t row = rows; row < end - begin && steps_.padded() && !add; ++row) {
        clear_row(out[row], size_.inputs);
      }
    }
  }

  // Where a product can write the rows `out`: there, or, if they lie scattered, beside each other;
  // filled with what they hold where the product is added to it.
  S* gather(const OrderedRows<S>& out, int64_t rows, int64_t width, int64_t begin,
            bool fill) const {
    if (out.order == nullptr) return out.base;
    S* together = results_ + begin * result_width();
    for (int64_t row = 0; row < rows && fill; ++row) {
      copy_row(out[row], width, together + row * width);
    }
    return together;
  }
  void scatter(const S* together, int64_t rows, int64_t width, const OrderedRows<S>& out) const {
    if (out.order == nullptr) return;
    for (int64_t row = 0; row < rows; ++row) copy_row(together + row * width, width, out[row]);
  }

  int64_t result_width() const { return larger(size_.inputs, size_.outputs); }

  // `rows` rows into `out` [rows, I].
  RNNCELLS_OUT_OF_LINE void input_gradient_rows(const Rows<T>& gradients, int64_t rows, S* out,
                                                bool add) const {
    for (int64_t column = 0; column < size_.inputs; column += widest) {
      const int64_t columns = smaller(widest, size_.inputs - column);
      for_phases<Cell>([&](auto index) {
        constexpr int P = decltype(index)::value;
        constexpr Phase phase = Cell::phase(P);
        const int64_t depth = phase.input.count * size_.units;
        const Factors<T> factors{
            depth, gradients.base + phase.input.first * size_.units, gradients.stride, 1,
            input_weights_ + packed_size<T>(phase.shares.first * size_.units, size_.inputs) +
                column * depth};
        multiply_panel<T>(ceil_divide(columns, lanes), rows, factors, out + column, size_.inputs,
                          columns, add || P > 0);
      });
    }
  }

  // For the sequences in rows [first, last), whose first step t is.
  RNNCELLS_OUT_OF_LINE void initial_gradients(const Chunk& chunk, int64_t t, int64_t first,
                                              int64_t last) const {
    for (int i = 0; i < states && first < last; ++i) {
      if (call_.initial_gradient[i] == nullptr) continue;
      const int64_t width = state_width(i), rows = last - first;
      const OrderedRows<S> out = steps_.state_rows(call_.initial_gradient[i], first, width);
      if (i > 0 || Cell::direct_hidden) {
        const Rows<T> direct = carry(i, first);
        for (int64_t row = 0; row < rows; ++row) narrow_row(direct[row], width, out[row]);
      }
      if (i > 0) continue;
      const Rows<T> gradients = gradient_rows(chunk, t, first);
      if (varied_) {
        initial_hidden_gradient(gradients, t, first, rows, out);
        continue;
      }
      S* together = gather(out, rows, width, first, Cell::direct_hidden);
      for (int64_t column = 0; column < width; column += widest) {
        const int64_t columns = smaller(widest, width - column);
        multiply_panel<T>(ceil_divide(columns, lanes), rows,
                          recurrent_factors<0>(gradients, column), together + column, width,
                          columns, Cell::direct_hidden);
      }
      scatter(together, rows, width, out);
    }
  }

  // The same of h, with a variant.
  RNNCELLS_OUT_OF_LINE void initial_hidden_gradient(const Rows<T>& gradients, int64_t t,
                                                    int64_t first, int64_t rows,
                                                    const OrderedRows<S>& out) const {
    const Rows<T> back{state_gradients_ + first * space_width(), space_width()};
    pass_back<0>(gradients, t, first, rows, back);
    for (int64_t row = 0; row < rows; ++row) {
      if (!projected_) {
        add_row(static_cast<const T*>(carry(0, first)[row]), size_.outputs, back[row]);
      }
      narrow_row(static_cast<const T*>(back[row]), size_.outputs, out[row]);
    }
  }

  const BackwardCall<S>& call_;
  const Sizes size_;
  const TimeSteps steps_;
  const bool projected_;
  const bool masks_, zones_, varied_, normed_;  // see Variant
  const bool gates_apart_;                      // layer norm's mode
  const int made_slot_;                         // of the reserve, for what zoneout mixes
  const int slots_;                             // of what BPTT needs of a step
  const int64_t padded_;                        // units, filled up to whole vectors
  const int64_t width_;                         // of a row of share gradients
  const int64_t chunk_rows_;                    // at most, in one chunk
  const bool recomputes_;                       // there is something to recompute
  const int kept_slots_;                        // of the reserve
  const bool back_through_time_;  // whether any gradient goes through the recurrent weights
  Buffer<T> recurrent_weights_, input_weights_, projection_weights_, carry_, zeros_;
  Buffer<S> stored_zeros_;
  Buffer<T> gradients_, output_gradients_;
  Buffer<S> results_;  // of a step's rows, before they go where their order says
  // Of a variant, a row for each sequence: the gradient of what the cell made of h; the mask on h;
  // what stays of each state, and then of its gradient; the states before a step.
  Buffer<T> state_gradients_, mask_, stays_;
  const Buffer<S> anew_;
  // Of layer norm: the products of a step's rows, and space; one over their standard deviations; of
  // the chunk's rows the gradients of shares and of the input's product.
  const NormedShares<Cell, S> norm_;
  const Buffer<T> middle_, middle_rows_, normal_rows_, row_scales_, wide_rows_;
  const Buffer<S> masked_rows_;
  const Buffer<T> share_rows_, input_rows_;
  Buffer<T> norm_sums_;
  const Buffer<T> unit_parameters_;  // [K, padded]
  Buffer<T> unit_sums_;              // of their gradients, [B, K, H]
};

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
