// The forward pass of one direction: input shares, then the loop over time.
//
// Each thread takes some of the sequences through all time steps, so that no barrier stands in the
// loop; where there are fewer sequences than threads, these share the units of each step. A step
// multiplies the hidden rows with one panel of weights, leaves the shares of a few rows and units
// in a tile in L1, and runs the cell on them. Sequences of unequal lengths are sorted, so that the
// rows of a step are the first ones; in the direction from the last step to the first they begin at
// different steps.
#pragma once

#include "cpu/norm.h"
#include "cpu/packed.h"
#include "cpu/team.h"
#include "cpu/variant.h"

namespace rnncells {
namespace RNNCELLS_ISA {

// Up to this many inputs their product is part of the loop: a buffer of input shares, written and
// read again, would cost more than the product itself.
constexpr int64_t widest_fused_input = 32;
// The input shares of the time steps that are computed at once stay in the second-level cache.
constexpr int64_t input_share_bytes = 256 * 1024;

// The first factor of a product, in the type that is computed in.
template <class T>
struct Operand {
  const T* base;
  int64_t row_stride, column_stride;
  RNNCELLS_INLINE const T* operator[](int64_t row) const { return base + row * row_stride; }
};

// Rows as an operand: as they are, or widened or brought together in `space` [rows, columns].
template <class S>
RNNCELLS_OUT_OF_LINE Operand<Compute<S>> as_operand(OrderedRows<const S> source,
                                                    int64_t column_stride, int64_t rows,
                                                    int64_t columns, Compute<S>* space) {
  if constexpr (!converts<S>) {
    if (source.order == nullptr) return {source.base, source.stride, column_stride};
  }
  for (int64_t row = 0; row < rows; ++row) {
    Compute<S>* target = space + row * columns;
    const S* values = source[row];
    if (column_stride == 1) {
      widen_values(values, columns, target);
    } else {
      for (int64_t j = 0; j < columns; ++j) target[j] = widen(values[j * column_stride]);
    }
  }
  return {space, columns, 1};
}

template <class Cell, class S, bool Keep>
class ForwardPass {
  using T = Compute<S>;
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;
  static constexpr int states = Cell::states;
  // Without a reserve the saved values have a place of their own only where a later phase reads
  // them.
  static constexpr bool saves = Keep || Cell::phases > 1;
  static constexpr int save_count = Cell::saved > 0 ? Cell::saved : 1;

 public:
  explicit ForwardPass(const ForwardCall<S>& call)
      : call_(call),
        size_(call.sizes),
        steps_(call.sizes, call.row_counts, call.order, call.reverse),
        layout_(call.sizes.units),
        normed_(call.variant.norm != Norm::none),
        fused_(normed_ || size_.inputs <= widest_fused_input),
        projected_(call.weights.projection != nullptr),
        gathers_(converts<S> || call.order != nullptr),
        masks_(call.variant.masks()),
        zones_(call.variant.zones()),
        made_slot_(reserve_slots<Cell>() + projected_),
        slots_(made_slot_ + (zones_ ? states : 0)),
        keeps_states_(!Keep && call.reserve != nullptr),
        norm_(call.weights, size_, call.variant.norm),
        middle_(Cell::middle ? 2 * layout_.padded() : 0),
        where_(size_, projected_),
        own_(call.packed == nullptr ? where_.elements() : 0),
        zeros_(layout_.padded()) {
    check_cell<Cell>();
    if (Cell::middle) {
      for (int i = 0; i < 2; ++i) {
        widen_row(call.weights.norm[2 + i], size_.units, middle_ + i * layout_.padded());
      }
    }
    zeros_.clear(layout_.padded());
    if (call.packed == nullptr) where_.pack(call.weights, own_.get());
    biases_ = call.packed == nullptr ? own_.get() : static_cast<const T*>(call.packed);
    input_weights_ = biases_ + where_.input();
    recurrent_weights_ = biases_ + where_.recurrent();
    projection_weights_ = biases_ + where_.projection();
    unit_parameters_ = biases_ + where_.unit_parameters();
  }

  void run() const {
    const int64_t work = steps_.offset(size_.steps) * row_work();
    if (shares_units(call_.pool, size_.batch, size_.batch * row_work()) && can_share_units()) {
      in_team(
          call_.pool, panel_count(), [this] { return Workspace(*this, 0, size_.batch); },
          [this](const Part& part, const Workspace& space) { run_rows(space, part); });
      return;
    }
    in_parallel_rows(steps_, call_.pool, work, [this](int64_t begin, int64_t end) {
      run_rows(Workspace(*this, begin, end - begin), Part());
    });
  }

 private:
  // What a thread needs for its sequences.
  struct Workspace {
    const int64_t begin, rows;
    const int64_t chunk;      // time steps whose input shares are computed at once
    const Buffer<S> rolling;  // without a reserve, the states besides h: each replaced by its
                              // successor
    const Buffer<S> saved, hidden, projected;
    const Buffer<T> shares, wide_x, wide_operand;
    // Of a variant: what the cell makes of each state, before zoneout; the states before a step,
    // with those that start anew; what a recurrent product multiplies, and the mask on it.
    const Buffer<S> made, anew, masked;
    const Buffer<T> mask, stays;
    const Buffer<T> input_rows, recurrent_rows, row_scales;  // of layer norm

    Workspace(const ForwardPass& pass, int64_t first, int64_t count)
        : begin(first),
          rows(count),
          chunk(pass.fused_ ? pass.size_.steps
                            : larger(1, smaller(pass.size_.steps,
                                                input_share_bytes / (rows * pass.layout_.row() *
                                                                     int64_t{sizeof(T)})))),
          rolling(Keep || pass.keeps_states_ ? 0 : (states - 1) * rows * pass.layout_.padded()),
          saved(saves && !Keep ? rows * Cell::saved * pass.layout_.padded() : 0),
          hidden(pass.projected_ && !Keep ? rows * pass.layout_.padded() : 0),
          projected(pass.projected_ && pass.steps_.padded() ? rows * pass.size_.outputs : 0),
          shares(pass.fused_ ? 0 : chunk * rows * pass.layout_.row()),
          wide_x(pass.gathers_ ? (pass.fused_ ? 1 : chunk) * rows * pass.size_.inputs : 0),
          wide_operand(pass.gathers_ ? rows * widest(pass) : 0),
          made(pass.zones_ && !Keep ? states * rows * pass.layout_.padded() : 0),
          anew(pass.call_.variant.resets != nullptr ? states * rows * widest(pass) : 0),
          masked(pass.masks_ ? rows * widest(pass) : 0),
          mask(pass.masks_ ? rows * widest(pass) : 0),
          stays(pass.zones_ ? pass.layout_.padded() : 0),
          input_rows(pass.normed_ ? rows * pass.norm_.rows() : 0),
          recurrent_rows(pass.normed_ ? rows * pass.norm_.rows() : 0),
          row_scales(pass.normed_ ? norm_block * (2 * Cell::gates + pass.layout_.padded()) : 0) {
      for (int64_t row = 0; row < rows && pass.masks_; ++row) {
        draw_recurrent_mask(pass.call_.variant, pass.steps_.sequence(begin + row),
                            pass.size_.outputs, mask + row * widest(pass));
      }
    }
    static int64_t widest(const ForwardPass& pass) {
      return larger(pass.size_.units, pass.size_.outputs);
    }
  };

  // Some rows of one time step: where their states come from and go to.
  struct Step {
    int64_t rows;
    OrderedRows<const S> previous[states];
    OrderedRows<S> next[states];
    Rows<S> saved;                // [rows, saved * saved_width]
    OrderedRows<S> made[states];  // what the cell computes: the states, but with a projection its
                                  // operand for h, and with zoneout what is then mixed
    Operand<T> x;                 // the input, or
    Rows<const T> shares;         // its shares (or the biases), in panels
    T* wide;                      // space for an operand,
    S* projected;                 // and for what the projection gives
    const Workspace* space;
    int64_t t, first;  // the step, and the first of these rows among the thread's
  };

  // Of a sequence in one step, in multiply-adds.
  int64_t row_work() const { return Cell::gates * size_.units * (size_.inputs + depth()); }
  // Of the recurrent product.
  int64_t depth() const { return has_recurrent_product<Cell>() ? size_.outputs : 0; }
  // Other cells and series would need more than one place at which all threads wait.
  bool can_share_units() const {
    return Cell::phases == 1 && !projected_ && !steps_.ragged() && !call_.variant.any();
  }
  int64_t panel_count() const {
    return ceil_divide(layout_.vectors, PhaseLayout<Cell, 0>::unit_vectors);
  }

  RNNCELLS_OUT_OF_LINE void run_rows(const Workspace& space, const Part& part) const {
    const int64_t begin = space.begin, end = begin + space.rows;
    for (int64_t s = 0; s < size_.steps; ++s) {
      if (!fused_ && s % space.chunk == 0) {
        input_shares(s, smaller(s + space.chunk, size_.steps), space, part);
      }
      const int64_t t = steps_.at(s), rows = steps_.rows(t, begin, end);
      const int64_t going_on = smaller(rows, steps_.rows(steps_.before(t), begin, end));
      const int64_t lasting = smaller(rows, steps_.rows(steps_.after(t), begin, end));
      run_step(s, 0, going_on, true, space, part);
      run_step(s, going_on, rows, false, space, part);
      part.wait();
      copy_last(t, lasting, rows, space, part);
      if (steps_.padded()) clear_padding(t, begin + rows, end);
    }
  }

  // The rows [first, last) of a thread, which all have, or lack, a step before this one.
  RNNCELLS_OUT_OF_LINE void run_step(int64_t s, int64_t first, int64_t last, bool going_on,
                                     const Workspace& space, const Part& part) const {
    if (first >= last) return;
    Step step = step_of(s, first, last, going_on, space);
    const OrderedRows<const S> before = step.previous[0];
    if constexpr (!has_recurrent_product<Cell>()) {
      if (masks_) step.previous[0] = masked(step, before);
    }
    if constexpr (Cell::row_statistics) {
      if (normed_) run_normed(step);
    }
    if constexpr (!Cell::middle) {
      if (!normed_) {
        for_phases<Cell>([&](auto index) { run_phase<decltype(index)::value>(step, part); });
      }
    }
    step.previous[0] = before;
    if (projected_) project(step);
    if (zones_) zone_out(step);
    if (call_.variant.whole_states) copy_states(step);
  }

  OrderedRows<S> series_rows(int i, int64_t t, int64_t row) const {
    return steps_.rows_of(call_.series[i], t, row, call_.series_step_stride,
                          call_.series_batch_stride);
  }
  RNNCELLS_OUT_OF_LINE void copy_states(const Step& step) const {
    for (int i = 1; i < states; ++i) {
      const OrderedRows<S> target = series_rows(i, step.t, step.space->begin + step.first);
      for (int64_t row = 0; row < step.rows; ++row) {
        copy_row(static_cast<const S*>(step.next[i][row]), size_.units, target[row]);
      }
    }
  }

  Rows<S> reserved(int64_t t, int64_t row, int64_t slot) const {
    return steps_.rows_of(call_.reserve + slot * size_.units, t, row, slots_ * size_.units);
  }
  // State i of a thread's row `first` and those after it.
  OrderedRows<S> state(int i, int64_t t, int64_t first, const Workspace& space) const {
    if (i == 0) {
      return steps_.output_rows(call_, t, space.begin + first);
    }
    if constexpr (Keep) return reserved(t, space.begin + first, Cell::saved + i - 1);
    if (keeps_states_) {
      return steps_.rows_of(call_.reserve + (i - 1) * size_.units, t, space.begin + first,
                            (states - 1) * size_.units);
    }
    return {space.rolling + ((i - 1) * space.rows + first) * layout_.padded(), layout_.padded(),
            nullptr};
  }
  int64_t state_width(int i) const { return i == 0 ? size_.outputs : size_.units; }

  RNNCELLS_OUT_OF_LINE Step step_of(int64_t s, int64_t first, int64_t last, bool going_on,
                                    const Workspace& space) const {
    const int64_t t = steps_.at(s), row = space.begin + first;
    Step step;
    step.rows = last - first;
    for (int i = 0; i < states; ++i) {
      step.next[i] = state(i, t, first, space);
      if (going_on) {
        const OrderedRows<S> before = state(i, steps_.before(t), first, space);
        step.previous[i] = before;
      } else if (call_.initial[i] != nullptr) {
        step.previous[i] = steps_.state_rows(call_.initial[i], row, state_width(i));
      } else {
        step.previous[i] = {zeros_.get(), 0, nullptr};
      }
    }
    step.space = &space;
    step.t = t;
    step.first = first;
    if (call_.variant.resets != nullptr) start_anew(step);
    const int64_t padded = layout_.padded();
    for (int i = 0; i < states; ++i) step.made[i] = step.next[i];
    if constexpr (Keep) {
      step.saved = reserved(t, row, 0);
      if (projected_) step.made[0] = reserved(t, row, made_slot_ - 1);
      for (int i = 0; i < states && zones_; ++i) step.made[i] = reserved(t, row, made_slot_ + i);
    } else {
      step.saved = {space.saved + first * Cell::saved * padded, Cell::saved * padded};
      if (projected_) step.made[0] = {space.hidden + first * padded, padded, nullptr};
      for (int i = 0; i < states && zones_; ++i) {
        step.made[i] = {space.made + (i * space.rows + first) * padded, padded, nullptr};
      }
    }
    step.wide = space.wide_operand.get();
    step.projected = space.projected.get();
    if (fused_) {
      step.x =
          as_operand<S>(steps_.rows_of(call_.x, t, row, call_.x_step_stride, call_.x_batch_stride),
                        call_.x_column_stride, step.rows, size_.inputs, space.wide_x.get());
      step.shares = {biases_, 0};
    } else {
      step.x = {nullptr, 0, 0};
      step.shares = {space.shares + ((s % space.chunk) * space.rows + first) * layout_.row(),
                     layout_.row()};
    }
    return step;
  }
  // Distance of two saved values of a unit.
  int64_t saved_width() const { return Keep ? size_.units : layout_.padded(); }

  // The shares of steps [from, to), [steps, rows, row of panels].
  RNNCELLS_OUT_OF_LINE void input_shares(int64_t from, int64_t to, const Workspace& space,
                                         const Part& part) const {
    const int64_t row = layout_.row(), block = space.rows * size_.inputs;
    const auto rows_at = [&](int64_t s) {
      return steps_.rows(steps_.at(s), space.begin, space.begin + space.rows);
    };
    const auto x_at = [&](int64_t s) {
      return steps_.rows_of(call_.x, steps_.at(s), space.begin, call_.x_step_stride,
                            call_.x_batch_stride);
    };
    const auto wide_at = [&](int64_t s) { return space.wide_x + (s - from) * block; };
    for (int64_t s = from; s < to && gathers_; ++s) {
      as_operand<S>(x_at(s), call_.x_column_stride, rows_at(s), size_.inputs, wide_at(s));
    }
    for_phases<Cell>([&](auto index) {
      constexpr int P = decltype(index)::value;
      using L = PhaseLayout<Cell, P>;
      for_panels<P>(part, [&](auto vectors, int64_t v0) {
        constexpr int width = L::shares * decltype(vectors)::value;
        constexpr int input_width = L::input_shares * decltype(vectors)::value;
        const int64_t panel = layout_.phase_begin(P) + v0 * L::shares * lanes;
        for (int64_t s = from; s < to; ++s) {
          Operand<T> x{wide_at(s), size_.inputs, 1};
          if constexpr (!converts<S>) {
            const OrderedRows<const S> source = x_at(s);
            if (!gathers_) x = {source.base, source.stride, call_.x_column_stride};
          }
          T* out = space.shares + (s - from) * space.rows * row + panel;
          for_row_tiles(rows_at(s), tile_rows(width), [&](int64_t first, int64_t count) {
            const Factors<T> factors{size_.inputs, x[first], x.row_stride, x.column_stride,
                                     input_panel<P>(v0)};
            tile_kernel<T, width, input_width, 0>(count)(biases_ + panel, 0, factors,
                                                         no_factors<T>(), out + first * row, row);
          });
        }
      });
    });
  }

  // Calls body(Index<vectors>(), first vector) for each panel of phase P that is the part's.
  template <int P, class Body>
  RNNCELLS_INLINE void for_panels(const Part& part, const Body& body) const {
    constexpr int most = PhaseLayout<Cell, P>::unit_vectors;
    const int64_t panels = ceil_divide(layout_.vectors, most);
    const int64_t end = smaller(part.end(panels) * most, layout_.vectors);
    int64_t v0 = part.begin(panels) * most;
    for (; v0 + most <= end; v0 += most) body(Index<most>(), v0);
    const int64_t left = end - v0;
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
    return recurrent_weights_ + layout_.phase_begin(P) * depth() +
           v0 * PhaseLayout<Cell, P>::recurrent_shares * lanes * depth();
  }

  template <int P>
  void run_phase(const Step& step, const Part& part) const {
    using L = PhaseLayout<Cell, P>;
    constexpr int operand_slot = L::phase.operand;
    OrderedRows<const S> source = step.previous[0];
    if constexpr (operand_slot >= 0) {
      source = {step.saved.base + operand_slot * saved_width(), step.saved.stride, nullptr};
    }
    Operand<T> operand{nullptr, 0, 0};
    if constexpr (has_recurrent_product<Cell>()) {
      if (masks_) source = masked(step, source);
      operand = as_operand<S>(source, 1, step.rows, size_.outputs, step.wide);
    }
    for_panels<P>(part, [&](auto vectors, int64_t v0) {
      constexpr int count = decltype(vectors)::value;
      constexpr int width = L::shares * count;
      alignas(64) T tile[tile_rows(width) * width * lanes];
      const int64_t panel = layout_.phase_begin(P) + v0 * L::shares * lanes;
      for_row_tiles(step.rows, tile_rows(width), [&](int64_t first, int64_t tile_height) {
        const Factors<T> input{fused_ ? size_.inputs : 0, step.x[first], step.x.row_stride,
                               step.x.column_stride, input_panel<P>(v0)};
        const Factors<T> recurrent{depth(), operand[first], operand.row_stride, 1,
                                   recurrent_panel<P>(v0)};
        tile_kernel<T, width, L::input_shares * count, L::recurrent_begin * count>(tile_height)(
            step.shares[first] + panel, step.shares.stride, input, recurrent, tile, width * lanes);
        for (int v = 0; v < count; ++v) {
          const int64_t unit = (v0 + v) * lanes;
          const int present = static_cast<int>(smaller(lanes, size_.units - unit));
          if (present == lanes) {
            run_cells<P, true>(step, first, tile_height, unit, lanes, tile + v * lanes, count);
          } else {
            run_cells<P, false>(step, first, tile_height, unit, present, tile + v * lanes, count);
          }
        }
      });
    });
  }

  // A step with layer norm: whole rows of both products, normalised, and then the cell.
  RNNCELLS_OUT_OF_LINE void run_normed(const Step& step) const {
    const Workspace& space = *step.space;
    OrderedRows<const S> source = step.previous[0];
    if (masks_) source = masked(step, source);
    const Operand<T> h = as_operand<S>(source, 1, step.rows, size_.outputs, step.wide);
    norm_.input_product(step.x.base, step.x.row_stride, step.x.column_stride, step.rows,
                        space.input_rows.get());
    norm_.recurrent_product(h.base, h.row_stride, step.rows, space.recurrent_rows.get());
    const int64_t width = norm_.rows(), padded = layout_.padded();
    const Rows<T> scales{space.row_scales.get(), 2 * Cell::gates};
    const Rows<T> middle{scales[norm_block], padded};
    for (int64_t first = 0; first < step.rows; first += norm_block) {
      const int64_t count = smaller(norm_block, step.rows - first);
      const Rows<T> input{space.input_rows + first * width, width};
      const Rows<T> recurrent{space.recurrent_rows + first * width, width};
      norm_.normalise({input, recurrent, scales, count});
      const auto run = [&](auto phase) {
        for (int64_t i = 0; i < count; ++i) {
          for_units([&](auto full, int64_t unit, int present) {
            run_normed_cell<decltype(phase)::value, decltype(full)::value>(
                step, first + i, unit, present, input[i], recurrent[i], middle[i]);
          });
        }
      };
      run(Index<0>());
      if constexpr (Cell::middle) {
        normalise_rows(middle, count, size_.units, scales);
        run(Index<1>());
      }
    }
  }
  // Calls body(Index<full>(), first unit, units) for each vector of units.
  template <class Body>
  RNNCELLS_INLINE void for_units(const Body& body) const {
    int64_t unit = 0;
    for (; unit + lanes <= size_.units; unit += lanes) body(Index<1>(), unit, lanes);
    if (unit < size_.units) body(Index<0>(), unit, static_cast<int>(size_.units - unit));
  }

  template <int P, bool Full>
  RNNCELLS_INLINE void run_normed_cell(const Step& step, int64_t row, int64_t unit, int present,
                                       const T* input, const T* recurrent, T* middle) const {
    constexpr Range filled = Cell::phase(P).saves;
    constexpr int first_state = Cell::direct_hidden ? 0 : 1;
    V share[PhaseLayout<Cell, 0>::shares], previous[states], next[states], save[save_count];
    V parameter[Cell::unit_parameters + 1];
    RNNCELLS_UNROLL
    for (int k = 0; k < Cell::unit_parameters; ++k) {
      parameter[k] = V::load(unit_parameters_ + k * layout_.padded() + unit);
    }
    if constexpr (P == 0) {
      norm_.template load<Full>(input, recurrent, unit, present, share);
    } else {
      share[0] = mul_add(load_lanes<Full>(middle + unit, present),
                         load_lanes<Full>(middle_ + unit, present),
                         load_lanes<Full>(middle_ + layout_.padded() + unit, present));
    }
    previous[0] = V(0);
    RNNCELLS_UNROLL
    for (int i = first_state; i < states; ++i) {
      previous[i] = load_lanes<Full>(step.previous[i][row] + unit, present);
    }
    S* saved = step.saved[row] + unit;
    RNNCELLS_UNROLL
    for (int i = 0; i < Cell::saved; ++i) {
      if (i < filled.first) save[i] = load_lanes<Full>(saved + i * saved_width(), present);
    }
    const Terms<V> terms{{call_.variant.activations}, parameter};
    cell_forward<Cell, P>(terms, share, previous, next, save);
    if constexpr (saves) {
      RNNCELLS_UNROLL
      for (int i = 0; i < Cell::saved; ++i) {
        if (filled.first > i || i >= filled.end()) continue;
        store_lanes<Full>(save[i], saved + i * saved_width(), present);
      }
    }
    if constexpr (P < Cell::phases - 1) {
      store_lanes<Full>(rounded<S>(save[Cell::phase(1).operand]), middle + unit, present);
    } else {
      RNNCELLS_UNROLL
      for (int i = 0; i < states; ++i) {
        store_lanes<Full>(next[i], step.made[i][row] + unit, present);
      }
    }
  }

  // An open cell's functions are calls anyhow: one copy of them serves tiles of every width.
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

  // The cell on one vector of units and the rows of a tile, `count` vectors of units wide.
  template <int P, bool Full>
  RNNCELLS_INLINE void run_cell(const Step& step, int64_t first, int64_t height, int64_t unit,
                                int present, const T* tile, int64_t count) const {
    using L = PhaseLayout<Cell, P>;
    constexpr Range filled = L::phase.saves;
    // With a projection h has another width than the units; a cell that allows one never looks.
    constexpr int first_state = Cell::direct_hidden ? 0 : 1;
    V parameter[Cell::unit_parameters + 1];
    RNNCELLS_UNROLL
    for (int k = 0; k < Cell::unit_parameters; ++k) {
      parameter[k] = V::load(unit_parameters_ + k * layout_.padded() + unit);
    }
    const Terms<V> terms{{call_.variant.activations}, parameter};
    for (int64_t m = 0; m < height; ++m, tile += L::shares * count * lanes) {
      V share[L::shares], previous[states], next[states], save[save_count];
      RNNCELLS_UNROLL
      for (int i = 0; i < L::shares; ++i) share[i] = V::load(tile + i * count * lanes);
      previous[0] = V(0);
      RNNCELLS_UNROLL
      for (int i = first_state; i < states; ++i) {
        previous[i] = load_lanes<Full>(step.previous[i][first + m] + unit, present);
      }
      S* saved = step.saved[first + m] + unit;
      RNNCELLS_UNROLL
      for (int i = 0; i < Cell::saved; ++i) {
        if (i < filled.first) save[i] = load_lanes<Full>(saved + i * saved_width(), present);
      }
      cell_forward<Cell, P>(terms, share, previous, next, save);
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
          store_lanes<Full>(next[i], step.made[i][first + m] + unit, present);
        }
      }
    }
  }

  // The states before the step, zero where they start anew.
  RNNCELLS_OUT_OF_LINE void start_anew(Step& step) const {
    const Workspace& space = *step.space;
    const auto anew = [&](int64_t row) {
      return starts_anew(call_.variant, steps_, step.t, space.begin + step.first + row);
    };
    bool some = false;
    for (int64_t row = 0; row < step.rows && !some; ++row) some = anew(row);
    if (!some) return;
    const int64_t width = Workspace::widest(*this);
    for (int i = 0; i < states; ++i) {
      const Rows<S> target{space.anew + (i * space.rows + step.first) * width, width};
      for (int64_t row = 0; row < step.rows; ++row) {
        if (anew(row)) {
          clear_row(target[row], state_width(i));
        } else {
          copy_row(step.previous[i][row], state_width(i), target[row]);
        }
      }
      step.previous[i] = {target.base, target.stride, nullptr};
    }
  }

  // What a recurrent product multiplies, under the mask of recurrent dropout.
  RNNCELLS_OUT_OF_LINE OrderedRows<const S> masked(const Step& step,
                                                   const OrderedRows<const S>& source) const {
    const Workspace& space = *step.space;
    const int64_t width = Workspace::widest(*this);
    S* out = space.masked + step.first * width;
    const T* mask = space.mask + step.first * width;
    for (int64_t row = 0; row < step.rows; ++row) {
      multiply_row(source[row], mask + row * width, size_.outputs, out + row * width);
    }
    return {out, width, nullptr};
  }

  // Each state a mixture of what it was and what the cell made of it.
  RNNCELLS_OUT_OF_LINE void zone_out(const Step& step) const {
    const Workspace& space = *step.space;
    for (int i = 0; i < states; ++i) {
      for (int64_t row = 0; row < step.rows; ++row) {
        if (!(call_.variant.zoneout[i] > 0)) {
          copy_row(static_cast<const S*>(step.made[i][row]), size_.units, step.next[i][row]);
          continue;
        }
        zoneout_row(call_.variant, i, call_.variant.first_time + step.t,
                    steps_.sequence(space.begin + step.first + row), size_.units,
                    space.stays.get());
        mix_row<S>(step.previous[i][row], step.made[i][row], space.stays.get(), size_.units,
                   step.next[i][row]);
      }
    }
  }

  // h = W_hr m, where m is the hidden state that the cell computed.
  RNNCELLS_OUT_OF_LINE void project(const Step& step) const {
    constexpr int64_t widest = panel_vectors * lanes;
    const Operand<T> hidden = as_operand<S>({step.made[0].base, step.made[0].stride, nullptr}, 1,
                                            step.rows, size_.units, step.wide);
    const bool scattered = step.next[0].order != nullptr;
    S* out = scattered ? step.projected : step.next[0].base;
    const int64_t stride = scattered ? size_.outputs : step.next[0].stride;
    for (int64_t column = 0; column < size_.outputs; column += widest) {
      const int64_t columns = smaller(widest, size_.outputs - column);
      const Factors<T> factors{size_.units, hidden.base, hidden.row_stride, 1,
                               projection_weights_ + column * size_.units};
      multiply_panel<T>(ceil_divide(columns, lanes), step.rows, factors, out + column, stride,
                        columns, false);
    }
    for (int64_t row = 0; row < step.rows && scattered; ++row) {
      copy_row(out + row * stride, size_.outputs, step.next[0][row]);
    }
  }

  // The states of a thread's rows [first, last), whose last step t is.
  RNNCELLS_OUT_OF_LINE void copy_last(int64_t t, int64_t first, int64_t last,
                                      const Workspace& space, const Part& part) const {
    constexpr int most = PhaseLayout<Cell, 0>::unit_vectors * lanes;
    for (int i = 0; i < states && first < last; ++i) {
      const int64_t width = state_width(i), panels = ceil_divide(width, most);
      const int64_t begin = part.begin(panels) * most;
      const int64_t count = smaller(part.end(panels) * most, width) - begin;
      const OrderedRows<S> source = state(i, t, first, space);
      const OrderedRows<S> target = steps_.state_rows(call_.last[i], space.begin + first, width);
      for (int64_t row = 0; row < last - first; ++row) {
        copy_row(source[row] + begin, count, target[row] + begin);
      }
    }
  }

  // What is seen of the rows [first, last), whose sequences have ended, or have not begun, at step
  // t.
  RNNCELLS_OUT_OF_LINE void clear_padding(int64_t t, int64_t first, int64_t last) const {
    const OrderedRows<S> y = steps_.output_rows(call_, t, first);
    for (int64_t row = 0; row < last - first; ++row) clear_row(y[row], size_.outputs);
    for (int i = 1; i < states && call_.variant.whole_states; ++i) {
      const OrderedRows<S> series = series_rows(i, t, first);
      for (int64_t row = 0; row < last - first; ++row) clear_row(series[row], size_.units);
    }
  }

  const ForwardCall<S>& call_;
  const Sizes size_;
  const TimeSteps steps_;
  const ShareLayout<Cell, T> layout_;
  const bool normed_, fused_, projected_;
  const bool gathers_;        // whether an operand is a copy of the rows that it is made of
  const bool masks_, zones_;  // see Variant
  const int made_slot_;       // of the reserve, for what zoneout mixes
  const int slots_;           // of the reserve
  const bool keeps_states_;   // those besides the output, and nothing else
  const NormedShares<Cell, S> norm_;
  const Buffer<T> middle_;  // the scale and the shift of what the cell normalises itself
  const PackedWeights<Cell, S> where_;
  const Buffer<T> own_;
  Buffer<S> zeros_;
  const T *biases_, *input_weights_, *recurrent_weights_, *projection_weights_, *unit_parameters_;
};

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
