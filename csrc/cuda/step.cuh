// One phase of one time step, unit by unit: the products are a library's. Any cell, type and size,
// and, where IsVaried, any variant but layer norm, whose rows are in normed.cuh.
#pragma once

#include "cuda/varied.cuh"

namespace rnncells::gpu {

// The state n that a step began with.
template <class T>
RNNCELLS_DEVICE Compute<T> initial_value(const T* const* initial, int n, int64_t place) {
  return initial[n] == nullptr ? Compute<T>(0) : widen(read(Global<const T>(initial[n]), place));
}

template <class T>
RNNCELLS_DEVICE Compute<T> bias_at(const T* bias, int64_t place, int64_t stride) {
  return bias == nullptr ? Compute<T>(0) : widen(read(Global<const T>(bias), place * stride));
}

// The states of one unit around a step.
template <class Cell, class T, bool IsVaried>
class UnitStates {
  using V = Value<T>;

 public:
  RNNCELLS_DEVICE UnitStates(const StepForward<T>& call, const Steps& steps, int64_t sequence,
                             int64_t unit)
      : call_(call),
        steps_(steps),
        b_(sequence),
        unit_(unit),
        own_(sequence * call.units + unit),
        projected_(call.computed != nullptr),
        zones_(IsVaried && call.varied.zones) {}

  // Those before it, as the cell sees them.
  RNNCELLS_DEVICE void read_previous(V* previous) const {
    const bool anew = IsVaried && starts_anew(call_.varied, steps_, call_.step, b_);
    const bool reads_hidden = (Cell::direct_hidden || zones_) && !anew;
    previous[0] = V(reads_hidden ? widen(read(Global<T>(call_.hidden), own_)) : Compute<T>(0));
    RNNCELLS_UNROLL
    for (int n = 1; n < Cell::states; ++n) {
      previous[n] = anew ? V(0) : V(read(Global<Compute<T>>(call_.state[n]), own_));
    }
  }

  // After the last phase: those after it, y and the reserve. `next` is what the cell made.
  RNNCELLS_DEVICE void keep(const V* previous, V* next, const V* save) const {
    const int64_t row = steps_.row(call_.step, b_);
    const Global<T> reserve(call_.reserve);
    const int64_t place = row * slots() * call_.units + unit_;
    const auto reserved = [&](int slot, V value) {
      write(reserve, place + slot * call_.units, stored<T>(number(value)));
    };
    if (zones_) {
      RNNCELLS_UNROLL
      for (int n = 0; n < Cell::states; ++n) {
        if (keeps()) reserved(made_slot() + n, next[n]);
        const Compute<T> part = staying_part(call_.varied, n, call_.step, b_, unit_);
        next[n] = V(mix_states(number(previous[n]), number(next[n]), part));
      }
    }
    keep_hidden(row, stored<T>(number(next[0])));
    RNNCELLS_UNROLL
    for (int n = 1; n < Cell::states; ++n) {
      write(Global<Compute<T>>(call_.state[n]), own_, number(next[n]));
      keep_series(n, row, stored<T>(number(next[n])));
    }
    if (!keeps()) return;
    RNNCELLS_UNROLL
    for (int k = 0; k < Cell::saved; ++k) reserved(k, save[k]);
    RNNCELLS_UNROLL
    for (int n = 1; n < Cell::states; ++n) reserved(Cell::saved + n - 1, next[n]);
    if (projected_) reserved(reserve_slots<Cell>(), next[0]);
  }

  // Behind a sequence's end.
  RNNCELLS_DEVICE void clear_padding() const {
    const T zero = stored<T>(Compute<T>(0));
    if (projected_) write(Global<T>(call_.computed), own_, zero);
    if (steps_.packed()) return;
    const int64_t row = steps_.row(call_.step, b_);
    if (!projected_) keep_output(row, zero);
    RNNCELLS_UNROLL
    for (int n = 1; n < Cell::states; ++n) keep_series(n, row, zero);
    for (int64_t k = 0; keeps() && k < slots(); ++k) {
      write(Global<T>(call_.reserve), (row * slots() + k) * call_.units + unit_, zero);
    }
  }

 private:
  RNNCELLS_DEVICE bool keeps() const { return call_.reserve != nullptr; }
  RNNCELLS_DEVICE int made_slot() const { return reserve_slots<Cell>() + projected_; }
  RNNCELLS_DEVICE int64_t slots() const { return made_slot() + (zones_ ? Cell::states : 0); }

  RNNCELLS_DEVICE void keep_output(int64_t row, T h) const {
    if (call_.y != nullptr) write(Global<T>(call_.y), row * call_.y_stride + unit_, h);
  }
  RNNCELLS_DEVICE void keep_series(int n, int64_t row, T state) const {
    if (!IsVaried || call_.series[n] == nullptr) return;
    write(Global<T>(call_.series[n]), row * call_.series_stride + unit_, state);
  }

  RNNCELLS_DEVICE void keep_hidden(int64_t row, T h) const {
    if (projected_) {
      write(Global<T>(call_.computed), own_, h);
      return;
    }
    write(Global<T>(call_.hidden), own_, h);
    keep_output(row, h);
    if (IsVaried && call_.entering != nullptr) {
      write(Global<T>(call_.entering), own_,
            entering_value(call_.varied, steps_, steps_.after(call_.step), b_, own_, h));
    }
  }

  const StepForward<T>& call_;
  const Steps& steps_;
  const int64_t b_, unit_, own_;
  const bool projected_, zones_;
};

template <class Cell, class T, int P, bool IsVaried>
RNNCELLS_KERNEL(element_threads)
run_step_forward(RNNCELLS_PARAMETER(StepForward<T>) call) {
  using F = CellPhase<Cell, P>;
  using V = Value<T>;
  constexpr int saved = at_least_one<Cell::saved>();
  constexpr bool last = P == Cell::phases - 1;
  const auto [b, unit] = element_of(call.time.batch, call.units);
  if (b < 0) return;
  const Steps steps(call.time);
  const int64_t units = call.units, own = b * units + unit;
  const UnitStates<Cell, T, IsVaried> states(call, steps, b, unit);
  const Global<T> operand(call.operand);
  if (call.step >= steps.length(b)) {
    if constexpr (last) {
      states.clear_padding();
    } else {
      write(operand, own, stored<T>(Compute<T>(0)));
    }
    return;
  }
  const int64_t row = steps.row(call.step, b);
  const Global<const Compute<T>> input(call.input), product(call.product);
  V share[F::shares], previous[Cell::states], seen[Cell::states], next[Cell::states], save[saved];
  RNNCELLS_UNROLL
  for (int k = 0; k < F::shares; ++k) {
    const int64_t place = F::gate(k) * units + unit;
    Compute<T> sum = 0;
    if (k < F::inputs) {
      sum += read_once(input, row * Cell::gates * units + place);
      sum += bias_at<T>(call.biases.input, place, call.biases.input_stride);
    }
    if (k >= F::recurrent_first) {
      const int64_t gate = F::gate(k) - F::gate(F::recurrent_first);
      sum += read_once(product, (b * F::recurrents + gate) * units + unit);
    }
    if (k >= F::recurrent_first || !has_recurrent_product<Cell>()) {
      sum += bias_at<T>(call.biases.recurrent, place, call.biases.recurrent_stride);
    }
    share[k] = V(sum);
  }
  states.read_previous(previous);
  RNNCELLS_UNROLL
  for (int n = 0; n < Cell::states; ++n) seen[n] = previous[n];
  seen[0] = seen_hidden<Cell>(call.varied, own, previous[0]);
  if constexpr (Cell::saved == 0) save[0] = V(0);
  const Global<Compute<T>> between(call.saved);
  if constexpr (P > 0) {
    for (int k = 0; k < F::phase.saves.first; ++k) {
      save[k] = V(read(between, (b * Cell::saved + k) * units + unit));
    }
  }
  const UnitTerms<Cell, T> terms(call.varied, units, unit);
  cell_forward<Cell, P>(terms.terms(call.varied), share, seen, next, save);
  if constexpr (!last) {
    for (int k = 0; k < F::phase.saves.end(); ++k) {
      write(between, (b * Cell::saved + k) * units + unit, number(save[k]));
    }
    T multiplied = stored<T>(number(save[Cell::phase(P + 1).operand]));
    if (IsVaried) multiplied = stored<T>(widen(multiplied) * mask_at(call.varied, own));
    write(operand, own, multiplied);
  } else {
    states.keep(previous, next, save);
  }
}

template <class T>
RNNCELLS_KERNEL(element_threads)
run_store_outputs(RNNCELLS_PARAMETER(StoreOutputs<T>) call) {
  const auto [b, column] = element_of(call.time.batch, call.outputs);
  if (b < 0) return;
  const Steps steps(call.time);
  const bool inside = call.step < steps.length(b);
  if (!inside && (steps.packed() || call.y == nullptr)) return;
  T h = stored<T>(Compute<T>(0));
  if (inside) {
    h = read(Global<const T>(call.projected), b * call.outputs + column);
    const int64_t own = b * call.outputs + column;
    write(Global<T>(call.hidden), own, h);
    if (call.entering != nullptr) {
      write(Global<T>(call.entering), own,
            entering_value(call.varied, steps, steps.after(call.step), b, own, h));
    }
  }
  if (call.y == nullptr) return;
  write(Global<T>(call.y), steps.row(call.step, b) * call.y_stride + column, h);
}

}  // namespace rnncells::gpu
