// From the calls of variants to launches. Instantiated by the .cu files, and by the emulation.
#pragma once

#include "cuda/launches.cuh"

namespace rnncells::gpu {

// Calls body(cell's struct) for a cell of either list.
template <class Body>
const char* with_any_cell(int place, const Body& body) {
  constexpr int plain = count_of(AllCells());
  if (place < plain) return with_cell(place, body, AllCells());
  return with_cell(place - plain, body, OtherCells());
}

template <class T>
const char* varied_forward(int cell, const StepForward<T>& call, Stream stream) {
  return with_any_cell(cell, [&](auto kind) -> const char* {
    using Cell = decltype(kind);
    if constexpr (Cell::middle) {
      return no_such_kernel;
    } else {
      return launch_step_forward<Cell, T, true>(call, stream);
    }
  });
}
template <class T>
const char* varied_backward(int cell, const StepBackward<T>& call, Stream stream) {
  return with_any_cell(cell, [&](auto kind) -> const char* {
    using Cell = decltype(kind);
    if constexpr (Cell::middle) {
      return no_such_kernel;
    } else {
      return launch_step_backward<Cell, T, true>(call, stream);
    }
  });
}

template <class T>
const char* draw_mask(const DrawMask<T>& call, Stream stream) {
  return launch(&run_draw_mask<T>, call, element_shape(call.batch * call.columns), stream);
}
template <class T>
const char* enter_first_step(const EnterFirstStep<T>& call, Stream stream) {
  return launch(&run_enter_first_step<T>, call, element_shape(call.time.batch * call.outputs),
                stream);
}
template <class T>
const char* leave_first_step(const LeaveFirstStep<T>& call, Stream stream) {
  return launch(&run_leave_first_step<T>, call, element_shape(call.time.batch * call.outputs),
                stream);
}
template <class T>
const char* masked_operands(const MaskedOperands<T>& call, Stream stream) {
  return launch(&run_masked_operands<T>, call,
                element_shape(call.time.steps * call.time.batch * call.units), stream);
}
template <class T>
const char* add_sequences(const Compute<T>* sums, int64_t batch, int64_t columns, T* total,
                          Stream stream) {
  const SumColumns<Compute<T>, T> rows{sums, batch, columns, batch, total};
  return launch(&run_sum_columns<Compute<T>, T>, rows, column_shape<Compute<T>>(columns, 1),
                stream);
}

}  // namespace rnncells::gpu
