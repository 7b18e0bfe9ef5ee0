// From the calls of calls.h to launches. Instantiated by the .cu files, and by the emulation.
#pragma once

#include <type_traits>

#include "cuda/persistent_backward.cuh"
#include "cuda/persistent_forward.cuh"
#include "cuda/rows.cuh"
#include "cuda/step_backward.cuh"

namespace rnncells::gpu {

constexpr const char* no_such_kernel = "this cell has no kernel of that kind";

// Calls body(cell's struct) for the cell at a place in the list.
template <class Body, class... Cell>
const char* with_cell(int place, const Body& body, CellList<Cell...>) {
  const char* result = no_such_kernel;
  int i = 0;
  (void)((i++ == place ? (result = body(Cell()), true) : false) || ...);
  return result;
}

inline LaunchShape persistent_shape(const PersistentPlan& plan) {
  LaunchShape shape{plan.groups * plan.ranks, plan.threads, plan.shared_bytes};
  shape.cluster = plan.exchange == Exchange::cluster ? plan.ranks : 1;
  shape.cooperative = plan.exchange == Exchange::grid;
  return shape;
}

template <class Cell, class T, class E, bool Backward, class Call>
const char* pack_weights(const Call& call, Stream stream) {
  const int64_t packed = packed_bytes(call.plan.product, call.operand, call.plan.ranks);
  const int64_t zeros = workspace_bytes(call.plan, call.operand) - packed;
  const PackWeights<T> pack{call.recurrent, call.plan,
                            call.units,     static_cast<uint32_t*>(call.workspace),
                            packed / 4,     zeros / 4};
  const int64_t threads = larger(packed / 16, zeros / 4);
  return launch(&run_pack_weights<Cell, T, E, Backward>, pack,
                {ceil_divide(threads, pack_threads), pack_threads}, stream);
}

// E: how the operand of the products is stored.
template <class T, class E>
const char* launch_forward(int cell, const PersistentForward<T>& call, Stream stream) {
  return with_cell(
      cell,
      [&](auto kind) -> const char* {
        using Cell = decltype(kind);
        if constexpr (Cell::phases > 1) {
          return no_such_kernel;
        } else {
          const char* wrong = pack_weights<Cell, T, E, false>(call, stream);
          if (wrong != nullptr) return wrong;
          return launch(&run_forward<Cell, T, E>, call, persistent_shape(call.plan), stream);
        }
      },
      AllCells());
}
template <class T, class E>
const char* launch_backward(int cell, const PersistentBackward<T>& call, Stream stream) {
  return with_cell(
      cell,
      [&](auto kind) -> const char* {
        using Cell = decltype(kind);
        if constexpr (Cell::phases > 1) {
          return no_such_kernel;
        } else {
          const char* wrong = pack_weights<Cell, T, E, true>(call, stream);
          if (wrong != nullptr) return wrong;
          return launch(&run_backward<Cell, T, E>, call, persistent_shape(call.plan), stream);
        }
      },
      AllCells());
}

inline LaunchShape element_shape(int64_t elements) {
  return {ceil_divide(elements, element_threads), element_threads};
}

template <class Cell, class T, bool IsVaried>
const char* launch_step_forward(const StepForward<T>& call, Stream stream) {
  const LaunchShape shape = element_shape(call.time.batch * call.units);
  if constexpr (Cell::phases > 1) {
    static_assert(Cell::phases == 2, "a third phase needs a line here");
    if (call.phase == 1) {
      return launch(&run_step_forward<Cell, T, 1, IsVaried>, call, shape, stream);
    }
  }
  return launch(&run_step_forward<Cell, T, 0, IsVaried>, call, shape, stream);
}
template <class Cell, class T, bool IsVaried>
const char* launch_step_backward(const StepBackward<T>& call, Stream stream) {
  const LaunchShape shape = element_shape(call.time.batch * call.units);
  if constexpr (Cell::phases > 1) {
    if (call.phase == 1) {
      return launch(&run_step_backward<Cell, T, 1, IsVaried>, call, shape, stream);
    }
  }
  return launch(&run_step_backward<Cell, T, 0, IsVaried>, call, shape, stream);
}

template <class T>
const char* step_forward(int cell, const StepForward<T>& call, Stream stream) {
  return with_cell(
      cell,
      [&](auto kind) -> const char* {
        using Cell = decltype(kind);
        return launch_step_forward<Cell, T, false>(call, stream);
      },
      AllCells());
}
template <class T>
const char* step_backward(int cell, const StepBackward<T>& call, Stream stream) {
  return with_cell(
      cell,
      [&](auto kind) -> const char* {
        using Cell = decltype(kind);
        return launch_step_backward<Cell, T, false>(call, stream);
      },
      AllCells());
}

// Of run_sum_columns, whose sums are of type C.
template <class C>
LaunchShape column_shape(int64_t columns, int64_t parts) {
  return {parts * ceil_divide(columns, sum_columns), sum_columns * sum_warps,
          sum_columns * sum_warps * int64_t{sizeof(C)}};
}

template <class T>
const char* sum_rows(const SumRows<T>& call, Stream stream) {
  using C = Compute<T>;
  const int64_t parts = sum_parts(call.count);
  const LaunchShape first = column_shape<C>(call.columns, parts);
  const LaunchShape second = column_shape<C>(call.columns, 1);
  const SumColumns<T, C> rows{call.rows, call.count, call.columns, ceil_divide(call.count, parts),
                              call.partial};
  const SumColumns<C, T> partial{call.partial, parts, call.columns, parts, call.sum};
  const char* wrong = launch(&run_sum_columns<T, C>, rows, first, stream);
  return wrong != nullptr ? wrong : launch(&run_sum_columns<C, T>, partial, second, stream);
}

template <class T>
const char* store_outputs(const StoreOutputs<T>& call, Stream stream) {
  return launch(&run_store_outputs<T>, call, element_shape(call.time.batch * call.outputs), stream);
}
template <class T>
const char* gather_output_gradient(const GatherOutputGradient<T>& call, Stream stream) {
  return launch(&run_gather_output_gradient<T>, call, element_shape(call.time.batch * call.outputs),
                stream);
}
template <class T>
const char* previous_outputs(const PreviousOutputs<T>& call, Stream stream) {
  return launch(&run_previous_outputs<T>, call,
                element_shape(call.time.steps * call.time.batch * call.outputs), stream);
}
template <class T>
const char* copy_rows(const CopyRows<T>& call, Stream stream) {
  return launch(&run_copy_rows<T>, call,
                element_shape(call.time.steps * call.time.batch * call.columns), stream);
}
template <class T>
const char* widen_values(const WidenValues<T>& call, Stream stream) {
  return launch(&run_widen<T>, call, element_shape(call.count), stream);
}
template <class T>
const char* narrow_sum(const NarrowSum<T>& call, Stream stream) {
  return launch(&run_narrow_sum<T>, call, element_shape(call.count), stream);
}

}  // namespace rnncells::gpu
