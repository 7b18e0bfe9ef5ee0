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

// The states that the cell made of those before, mixed with them.
template <class Cell, class T>
RNNCELLS_DEVICE void zone_out(const StepForward<T>& call, int64_t b, int64_t unit,
                              const Value<T>* previous, Value<T>* next) {
  RNNCELLS_UNROLL
  for (int n = 0; n < Cell::states; ++n) {
    const Compute<T> part = staying_part(call.varied, n, call.step, b, unit);
    next[n] = Value<T>(mix_states(number(previous[n]), number(next[n]), part));
  }
}

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
  const bool projected = call.computed != nullptr, keeps = call.reserve != nullptr;
  const bool zones = IsVaried && call.varied.zones;
  const int made_slot = reserve_slots<Cell>() + projected;
  const int64_t slots = made_slot + (zones ? Cell::states : 0);
  const Global<T> reserve(call.reserve), y(call.y), operand(call.operand);
  const Global<T> computed(call.computed), hidden(call.hidden);
  if (call.step >= steps.length(b)) {
    if constexpr (!last) write(operand, own, stored<T>(Compute<T>(0)));
    if (last && projected) write(computed, own, stored<T>(Compute<T>(0)));
    if (!last || steps.packed()) return;
    const int64_t row = steps.row(call.step, b);
    if (!projected) write(y, row * call.y_stride + unit, stored<T>(Compute<T>(0)));
    for (int64_t k = 0; keeps && k < slots; ++k) {
      write(reserve, (row * slots + k) * units + unit, stored<T>(Compute<T>(0)));
    }
    return;
  }
  const int64_t row = steps.row(call.step, b);
  const Global<const Compute<T>> input(call.input), product(call.product);
  const Global<const T> input_bias(call.biases.input), recurrent_bias(call.biases.recurrent);
  V share[F::shares], previous[Cell::states], next[Cell::states], save[saved];
  RNNCELLS_UNROLL
  for (int k = 0; k < F::shares; ++k) {
    const int64_t place = F::gate(k) * units + unit;
    Compute<T> sum = 0;
    if (k < F::inputs) {
      sum += read_once(input, row * Cell::gates * units + place);
      if (call.biases.input != nullptr) {
        sum += widen(read(input_bias, place * call.biases.input_stride));
      }
    }
    if (k >= F::recurrent_first) {
      const int64_t gate = F::gate(k) - F::gate(F::recurrent_first);
      sum += read_once(product, (b * F::recurrents + gate) * units + unit);
      if (call.biases.recurrent != nullptr) {
        sum += widen(read(recurrent_bias, place * call.biases.recurrent_stride));
      }
    }
    share[k] = V(sum);
  }
  const bool anew = IsVaried && starts_anew(call.varied, steps, call.step, b);
  const bool reads_hidden = (Cell::direct_hidden || zones) && !anew;
  previous[0] = V(reads_hidden ? widen(read(hidden, own)) : Compute<T>(0));
  RNNCELLS_UNROLL
  for (int n = 1; n < Cell::states; ++n) {
    previous[n] = anew ? V(0) : V(read(Global<Compute<T>>(call.state[n]), own));
  }
  const Global<Compute<T>> between(call.saved);
  if constexpr (P > 0) {
    for (int k = 0; k < F::phase.saves.first; ++k) {
      save[k] = V(read(between, (b * Cell::saved + k) * units + unit));
    }
  }
  const UnitTerms<Cell, T> terms(call.varied, units, unit);
  cell_forward<Cell, P>(terms.terms(call.varied), share, previous, next, save);
  if constexpr (!last) {
    for (int k = 0; k < F::phase.saves.end(); ++k) {
      write(between, (b * Cell::saved + k) * units + unit, number(save[k]));
    }
    T multiplied = stored<T>(number(save[Cell::phase(P + 1).operand]));
    if (IsVaried) multiplied = stored<T>(widen(multiplied) * mask_at(call.varied, own));
    write(operand, own, multiplied);
  } else {
    if (zones && keeps) {
      const int64_t place = (row * slots + made_slot) * units + unit;
      for (int n = 0; n < Cell::states; ++n) {
        write(reserve, place + n * units, stored<T>(number(next[n])));
      }
    }
    if (zones) zone_out<Cell>(call, b, unit, previous, next);
    const T h = stored<T>(number(next[0]));
    if (projected) {
      write(computed, own, h);
    } else {
      write(hidden, own, h);
      write(y, row * call.y_stride + unit, h);
      if (IsVaried && call.entering != nullptr) {
        write(Global<T>(call.entering), own,
              entering_value(call.varied, steps, steps.after(call.step), b, own, h));
      }
    }
    RNNCELLS_UNROLL
    for (int n = 1; n < Cell::states; ++n) {
      write(Global<Compute<T>>(call.state[n]), own, number(next[n]));
    }
    if (!keeps) return;
    const int64_t place = row * slots * units + unit;
    RNNCELLS_UNROLL
    for (int k = 0; k < Cell::saved; ++k) {
      write(reserve, place + k * units, stored<T>(number(save[k])));
    }
    RNNCELLS_UNROLL
    for (int n = 1; n < Cell::states; ++n) {
      write(reserve, place + (Cell::saved + n - 1) * units, stored<T>(number(next[n])));
    }
    if (projected) write(reserve, place + reserve_slots<Cell>() * units, h);
  }
}

template <class T>
RNNCELLS_KERNEL(element_threads)
run_store_outputs(RNNCELLS_PARAMETER(StoreOutputs<T>) call) {
  const auto [b, column] = element_of(call.time.batch, call.outputs);
  if (b < 0) return;
  const Steps steps(call.time);
  const bool inside = call.step < steps.length(b);
  if (!inside && steps.packed()) return;
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
  write(Global<T>(call.y), steps.row(call.step, b) * call.y_stride + column, h);
}

}  // namespace rnncells::gpu
