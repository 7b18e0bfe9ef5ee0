// What a variant does to one unit, in a kernel.
#pragma once

#include "cells/masks.h"
#include "cuda/elements.cuh"
#include "cuda/timeline.cuh"

namespace rnncells::gpu {

// Whether a sequence's states start anew before time step t. The mark of step t stands for the
// boundary between it and step t - 1, whoever walks over it.
template <class T>
RNNCELLS_DEVICE bool starts_anew(const Varied<T>& varied, const Steps& steps, int64_t t,
                                 int64_t sequence) {
  if (varied.resets == nullptr) return false;
  const int64_t mark = larger(t, steps.before(t));
  return mark < steps.length(sequence) &&
         read(Global<const bool>(varied.resets),
              mark * varied.resets_step_stride + sequence * varied.resets_batch_stride);
}

// The mask on a value that a recurrent product multiplies.
template <class T>
RNNCELLS_DEVICE Compute<T> mask_at(const Varied<T>& varied, int64_t place) {
  return varied.mask == nullptr ? Compute<T>(1)
                                : read(Global<const Compute<T>>(varied.mask), place);
}

// A state as the product of step t multiplies it; and what comes back through that product.
template <class T>
RNNCELLS_DEVICE T entering_value(const Varied<T>& varied, const Steps& steps, int64_t t,
                                 int64_t sequence, int64_t place, T state) {
  if (starts_anew(varied, steps, t, sequence)) return stored<T>(Compute<T>(0));
  if (varied.mask == nullptr) return state;
  return stored<T>(widen(state) * mask_at(varied, place));
}
template <class T>
RNNCELLS_DEVICE Compute<T> leaving_value(const Varied<T>& varied, const Steps& steps, int64_t t,
                                         int64_t sequence, int64_t place, Compute<T> gradient) {
  if (starts_anew(varied, steps, t, sequence)) return 0;
  return gradient * mask_at(varied, place);
}

// h before a step as the cell sees it: where no product multiplies it, the cell does, and so the
// mask is on what it sees.
template <class Cell, class T>
RNNCELLS_DEVICE Value<T> seen_hidden(const Varied<T>& varied, int64_t place, Value<T> hidden) {
  if constexpr (has_recurrent_product<Cell>()) {
    return hidden;
  } else {
    return Value<T>(widen(stored<T>(number(hidden) * mask_at(varied, place))));
  }
}

// How much of state n stays in step t: 0 or 1, or, where nothing is drawn, what is expected.
template <class T>
RNNCELLS_DEVICE Compute<T> staying_part(const Varied<T>& varied, int n, int64_t t, int64_t sequence,
                                        int64_t unit) {
  if (!(varied.zoneout[n] > 0) || varied.seed == nullptr) return varied.zoneout[n];
  const auto seed = static_cast<uint64_t>(read(Global<const int64_t>(varied.seed), 0));
  const uint32_t bits =
      draw_bits(seed, static_cast<uint32_t>(draw_zoneout + n), varied.stream, t, sequence, unit);
  return bits < varied.zoneout_threshold[n] ? 1 : 0;
}

// What an open cell is told.
template <class Cell, class T>
struct UnitTerms {
  using V = Value<T>;
  V parameter[at_least_one<Cell::unit_parameters>()];

  RNNCELLS_DEVICE UnitTerms(const Varied<T>& varied, int64_t units, int64_t unit) {
    RNNCELLS_UNROLL
    for (int k = 0; k < Cell::unit_parameters; ++k) {
      const int64_t place = k * units + unit;
      parameter[k] = varied.unit_parameters == nullptr
                         ? V(0)
                         : V(widen(read(Global<const T>(varied.unit_parameters), place)));
    }
  }
  RNNCELLS_DEVICE Terms<V> terms(const Varied<T>& varied) const {
    return {{varied.activations}, parameter};
  }
};

template <class T>
RNNCELLS_KERNEL(element_threads)
run_draw_mask(RNNCELLS_PARAMETER(DrawMask<T>) call) {
  const auto [b, column] = element_of(call.batch, call.columns);
  if (b < 0) return;
  const auto seed = static_cast<uint64_t>(read(Global<const int64_t>(call.seed), 0));
  const uint32_t bits = draw_bits(seed, draw_recurrent_dropout, call.stream, 0, b, column);
  write(Global<Compute<T>>(call.mask), b * call.columns + column,
        bits < call.threshold ? Compute<T>(0) : call.scale);
}

template <class T>
RNNCELLS_KERNEL(element_threads)
run_enter_first_step(RNNCELLS_PARAMETER(EnterFirstStep<T>) call) {
  const auto [b, column] = element_of(call.time.batch, call.outputs);
  if (b < 0) return;
  const Steps steps(call.time);
  const int64_t own = b * call.outputs + column;
  const T state = read(Global<const T>(call.hidden), own);
  write(Global<T>(call.entering), own,
        entering_value(call.varied, steps, steps.at(0), b, own, state));
}

template <class T>
RNNCELLS_KERNEL(element_threads)
run_leave_first_step(RNNCELLS_PARAMETER(LeaveFirstStep<T>) call) {
  const auto [b, column] = element_of(call.time.batch, call.outputs);
  if (b < 0) return;
  const Steps steps(call.time);
  const int64_t own = b * call.outputs + column;
  const Global<Compute<T>> gradient(call.gradient);
  write(gradient, own, leaving_value(call.varied, steps, steps.at(0), b, own, read(gradient, own)));
}

template <class T>
RNNCELLS_KERNEL(element_threads)
run_masked_operands(RNNCELLS_PARAMETER(MaskedOperands<T>) call) {
  const auto [place, unit] = element_of(call.time.steps * call.time.batch, call.units);
  if (place < 0) return;
  const int64_t t = place / call.time.batch, b = place % call.time.batch;
  const Steps steps(call.time);
  if (t >= steps.length(b) && steps.packed()) return;
  const int64_t row = steps.row(t, b);
  const Compute<T> value = widen(read(Global<const T>(call.operands), row * call.stride + unit));
  write(Global<T>(call.masked), row * call.units + unit,
        stored<T>(value * mask_at(call.varied, b * call.units + unit)));
}

}  // namespace rnncells::gpu
