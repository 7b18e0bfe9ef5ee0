// The adjoint of step.cuh.
#pragma once

#include "cuda/step.cuh"

namespace rnncells::gpu {

// What a step's adjoint looks at besides gradients.
template <class Cell, class T>
struct StepRecord {
  using V = Value<T>;
  V save[at_least_one<Cell::saved>()], previous[Cell::states], next[Cell::states];

  // As the cell saw it. `zones`: see Varied; `anew`: the states were zero before the step.
  RNNCELLS_DEVICE StepRecord(const StepBackward<T>& call, const Steps& steps, int64_t b,
                             int64_t unit, int64_t row, bool zones, bool anew) {
    const int64_t units = call.units, own = b * units + unit;
    const int64_t before = steps.before(call.step);
    const bool first = before < 0 || before >= steps.length(b);
    const int64_t row_before = first ? 0 : steps.row(before, b);
    const int made_slot = reserve_slots<Cell>() + call.projected;
    const int64_t width = (made_slot + (zones ? Cell::states : 0)) * units;
    const Global<const T> reserve(call.reserve), y(call.y);
    const auto slot = [&](int64_t r, int k) {
      return V(widen(read(reserve, r * width + k * units + unit)));
    };
    RNNCELLS_UNROLL
    for (int k = 0; k < Cell::saved; ++k) save[k] = slot(row, k);
    RNNCELLS_UNROLL
    for (int n = 1; n < Cell::states; ++n) {
      next[n] = slot(row, zones ? made_slot + n : Cell::saved + n - 1);
      previous[n] = anew    ? V(0)
                    : first ? V(initial_value<T>(call.initial, n, own))
                            : slot(row_before, Cell::saved + n - 1);
    }
    next[0] = previous[0] = V(0);
    if constexpr (Cell::output_slope) {
      next[0] = call.projected || zones ? slot(row, reserve_slots<Cell>())
                                        : V(widen(read(y, row * call.y_stride + unit)));
    }
    if constexpr (Cell::direct_hidden) {
      previous[0] = anew    ? V(0)
                    : first ? V(initial_value<T>(call.initial, 0, own))
                            : V(widen(read(y, row_before * call.y_stride + unit)));
    }
    previous[0] = seen_hidden<Cell>(call.varied, own, previous[0]);
  }
};

template <class T>
RNNCELLS_DEVICE Compute<T> y_gradient_at(const StepBackward<T>& call, const Steps& steps, int64_t b,
                                         int64_t unit) {
  if (call.y_gradient == nullptr) return 0;
  const int64_t place =
      steps.place(call.step, b, call.y_gradient_step_stride, call.y_gradient_row_stride);
  return widen(
      read(Global<const T>(call.y_gradient), place + unit * call.y_gradient_column_stride));
}

// What comes from outside to the states besides h after the step.
template <class Cell, class T>
RNNCELLS_DEVICE void add_series_gradients(const StepBackward<T>& call, int64_t row, int64_t unit,
                                          Value<T>* gradient) {
  RNNCELLS_UNROLL
  for (int n = 1; n < Cell::states; ++n) {
    if (call.series_gradient[n] == nullptr) continue;
    const Global<const T> series(call.series_gradient[n]);
    const Compute<T> outside = widen(read(series, row * call.series_stride + unit));
    gradient[n] = Value<T>(number(gradient[n]) + outside);
  }
}

// Writes the gradients of the phase's own shares.
template <class Cell, class T, int P>
RNNCELLS_DEVICE void keep_gradients(const StepBackward<T>& call, const Steps& steps, bool inside,
                                    int64_t b, int64_t unit, const Value<T>* gradient) {
  using F = CellPhase<Cell, P>;
  const int64_t units = call.units;
  const Global<T> input(call.input_gradient), recurrent(call.recurrent_gradient);
  const Global<T> step(call.step_gradient);
  const bool has_row = inside || !steps.packed();
  const int64_t row = has_row ? steps.row(call.step, b) : 0;
  RNNCELLS_UNROLL
  for (int k = 0; k < F::shares; ++k) {
    const T value = stored<T>(number(gradient[k]));
    const int64_t place = (row * Cell::gates + F::gate(k)) * units + unit;
    if (has_row && k < F::inputs) write(input, place, value);
    if (k < F::recurrent_first) continue;
    if (has_row && call.recurrent_gradient != nullptr) write(recurrent, place, value);
    const int64_t gate = F::gate(k) - F::gate(F::recurrent_first);
    write(step, (b * F::recurrents + gate) * units + unit, value);
  }
}

// What zoneout lets pass to the states before stands aside; the rest is that of what the cell made.
template <class Cell, class T>
RNNCELLS_DEVICE void part_gradients(const StepBackward<T>& call, int64_t b, int64_t unit,
                                    Value<T>* gradient, Compute<T>* passed) {
  RNNCELLS_UNROLL
  for (int n = 0; n < Cell::states; ++n) {
    const Compute<T> part = staying_part(call.varied, n, call.step, b, unit);
    const Compute<T> whole = number(gradient[n]);
    passed[n] = part * whole;
    gradient[n] = Value<T>((Compute<T>(1) - part) * whole);
  }
}

// Each sequence has sums of its own.
template <class Cell, class T>
RNNCELLS_DEVICE void add_unit_sums(const StepBackward<T>& call, int64_t b, int64_t unit,
                                   const StepRecord<Cell, T>& record, const Value<T>* gradient) {
  static_assert(Cell::unit_parameters == 0 || Cell::phases == 1, "all shares are known at once");
  if constexpr (Cell::unit_parameters > 0) {
    const Global<Compute<T>> sums(call.unit_sums);
    RNNCELLS_UNROLL
    for (int k = 0; k < Cell::unit_parameters; ++k) {
      const UnitParameter parameter = Cell::parameter(k);
      const int64_t place = (b * Cell::unit_parameters + k) * call.units + unit;
      const Value<T> state = (parameter.after ? record.next : record.previous)[parameter.state];
      write(sums, place,
            number(mul_add(gradient[parameter.share], state, Value<T>(read(sums, place)))));
    }
  }
}

// The gradients of the states before the step, but for what goes through its product: the first
// phase adds what zoneout let pass, and a reset lets nothing through. A cell that multiplies h
// itself saw it under the mask.
template <class Cell, class T, int P>
RNNCELLS_DEVICE void close_states(const StepBackward<T>& call, int64_t own, bool inside, bool anew,
                                  const Compute<T>* passed, Value<T>* carry) {
  constexpr bool last = P == Cell::phases - 1;
  RNNCELLS_UNROLL
  for (int n = 0; n < Cell::states; ++n) {
    Compute<T> added = passed[n];
    if (call.varied.zones && P > 0) write(Global<Compute<T>>(call.passed[n]), own, added);
    if constexpr (P > 0) continue;
    if (call.varied.zones && !last) added = read(Global<Compute<T>>(call.passed[n]), own);
    Compute<T> own_share = number(carry[n]);
    if (n == 0 && inside && !has_recurrent_product<Cell>()) own_share *= mask_at(call.varied, own);
    const Compute<T> whole = own_share + added;
    carry[n] = inside && anew ? Value<T>(0) : Value<T>(whole);
  }
}

template <class Cell, class T, int P, bool IsVaried>
RNNCELLS_KERNEL(element_threads)
run_step_backward(RNNCELLS_PARAMETER(StepBackward<T>) call) {
  using F = CellPhase<Cell, P>;
  using V = Value<T>;
  constexpr bool last = P == Cell::phases - 1;
  constexpr int shares = share_count<Cell>();
  const auto [b, unit] = element_of(call.time.batch, call.units);
  if (b < 0) return;
  const Steps steps(call.time);
  const int64_t units = call.units, own = b * units + unit;
  const bool inside = call.step < steps.length(b);
  const bool zones = IsVaried && call.varied.zones;
  const bool anew = IsVaried && starts_anew(call.varied, steps, call.step, b);
  Compute<T> arrived =
      call.product == nullptr ? Compute<T>(0) : read(Global<const Compute<T>>(call.product), own);
  if constexpr (IsVaried && last) {
    if (!call.projected && call.product != nullptr) {
      arrived = leaving_value(call.varied, steps, steps.after(call.step), b, own, arrived);
    }
  } else if constexpr (IsVaried) {
    arrived *= mask_at(call.varied, own);
  }
  V carry[Cell::states], gradient[shares];
  RNNCELLS_UNROLL
  for (int n = 0; n < Cell::states; ++n) {
    const bool kept = n > 0 || !call.projected;
    carry[n] = V(kept ? read(Global<Compute<T>>(call.carry[n]), own) : Compute<T>(0));
  }
  if (last) carry[0] = V(number(carry[0]) + arrived);
  RNNCELLS_UNROLL
  for (int k = 0; k < shares; ++k) gradient[k] = V(0);
  const Global<Compute<T>> partial(call.partial);
  Compute<T> passed[Cell::states];
  RNNCELLS_UNROLL
  for (int n = 0; n < Cell::states; ++n) passed[n] = 0;
  if (inside) {
    const int64_t row = steps.row(call.step, b);
    const StepRecord<Cell, T> record(call, steps, b, unit, row, zones, anew);
    if constexpr (last) {
      carry[0] = V(number(carry[0]) + y_gradient_at(call, steps, b, unit));
      if (IsVaried) add_series_gradients<Cell>(call, row, unit, carry);
      if (zones) part_gradients<Cell>(call, b, unit, carry, passed);
    } else {
      for (int k = 0; k < F::phase.shares.end(); ++k) {
        gradient[k] = V(read(partial, (b * shares + k) * units + unit));
      }
    }
    const UnitTerms<Cell, T> terms(call.varied, units, unit);
    cell_backward<Cell, P>(terms.terms(call.varied), record.save, record.previous, record.next,
                           V(arrived), carry, gradient);
    if (IsVaried && call.unit_sums != nullptr) {
      add_unit_sums<Cell>(call, b, unit, record, gradient);
    }
  }
  if constexpr (P > 0) {
    for (int k = 0; k < F::phase.shares.first; ++k) {
      write(partial, (b * shares + k) * units + unit, number(gradient[k]));
    }
  }
  keep_gradients<Cell, T, P>(call, steps, inside, b, unit, gradient + F::phase.shares.first);
  if constexpr (IsVaried) close_states<Cell, T, P>(call, own, inside, anew, passed, carry);
  RNNCELLS_UNROLL
  for (int n = 0; n < Cell::states; ++n) {
    if (n > 0 || !call.projected) {
      write(Global<Compute<T>>(call.carry[n]), own, number(carry[n]));
    }
  }
}

template <class T>
RNNCELLS_KERNEL(element_threads)
run_gather_output_gradient(RNNCELLS_PARAMETER(GatherOutputGradient<T>) call) {
  const auto [b, column] = element_of(call.time.batch, call.outputs);
  if (b < 0) return;
  const Steps steps(call.time);
  const int64_t own = b * call.outputs + column;
  const Global<Compute<T>> carry(call.carry);
  const bool inside = call.step < steps.length(b);
  Compute<T> total = read(carry, own);
  if (call.product != nullptr) {
    total += leaving_value(call.varied, steps, steps.after(call.step), b, own,
                           read(Global<const Compute<T>>(call.product), own));
  }
  if (inside && call.y_gradient != nullptr) {
    const int64_t place =
        steps.place(call.step, b, call.y_gradient_step_stride, call.y_gradient_row_stride);
    total += widen(
        read(Global<const T>(call.y_gradient), place + column * call.y_gradient_column_stride));
  }
  write(carry, own, inside ? Compute<T>(0) : total);
  const T value = stored<T>(inside ? total : Compute<T>(0));
  write(Global<T>(call.step_gradient), own, value);
  if (inside || !steps.packed()) {
    write(Global<T>(call.hidden_gradient), steps.row(call.step, b) * call.outputs + column, value);
  }
}

}  // namespace rnncells::gpu
