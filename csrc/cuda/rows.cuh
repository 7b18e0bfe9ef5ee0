// Small kernels over the rows of a series, and over states.
#pragma once

#include "cuda/step.cuh"

namespace rnncells::gpu {

template <class T>
RNNCELLS_KERNEL(element_threads)
run_previous_outputs(RNNCELLS_PARAMETER(PreviousOutputs<T>) call) {
  const auto [place, column] = element_of(call.time.steps * call.time.batch, call.outputs);
  if (place < 0) return;
  const int64_t t = place / call.time.batch, b = place % call.time.batch;
  const Steps steps(call.time);
  const int64_t length = steps.length(b), before = steps.before(t);
  if (t >= length && steps.packed()) return;
  T value = stored<T>(Compute<T>(0));
  const bool begins_with = t < length && !starts_anew(call.varied, steps, t, b);
  if (begins_with && before >= 0 && before < length) {
    value = read(Global<const T>(call.y), steps.row(before, b) * call.y_stride + column);
  } else if (begins_with && call.initial != nullptr) {
    value = read(Global<const T>(call.initial), b * call.outputs + column);
  }
  if (call.varied.mask != nullptr) {
    value = stored<T>(widen(value) * mask_at(call.varied, b * call.outputs + column));
  }
  write(Global<T>(call.previous), steps.row(t, b) * call.outputs + column, value);
}

template <class T>
RNNCELLS_KERNEL(element_threads)
run_copy_rows(RNNCELLS_PARAMETER(CopyRows<T>) call) {
  const auto [row, column] = element_of(call.time.steps * call.time.batch, call.columns);
  if (row < 0) return;
  const int64_t t = row / call.time.batch, b = row % call.time.batch;
  T value = stored<T>(Compute<T>(0));
  if (call.from != nullptr && t < Steps(call.time).length(b)) {
    value = read(Global<const T>(call.from),
                 t * call.step_stride + b * call.row_stride + column * call.column_stride);
  }
  write(Global<T>(call.to), row * call.columns + column, value);
}

template <class T>
RNNCELLS_KERNEL(element_threads)
run_widen(RNNCELLS_PARAMETER(WidenValues<T>) call) {
  const int64_t i = element_of(call.count, 1).row;
  if (i < 0) return;
  const Compute<T> value =
      call.from == nullptr ? Compute<T>(0) : widen(read(Global<const T>(call.from), i));
  write(Global<Compute<T>>(call.to), i, value);
}

template <class T>
RNNCELLS_KERNEL(element_threads)
run_narrow_sum(RNNCELLS_PARAMETER(NarrowSum<T>) call) {
  const int64_t i = element_of(call.count, 1).row;
  if (i < 0) return;
  Compute<T> sum = read(Global<const Compute<T>>(call.a), i);
  if (call.b != nullptr) sum += read(Global<const Compute<T>>(call.b), i);
  write(Global<T>(call.sum), i, stored<T>(sum));
}

// Sums of columns, over the rows of each part: a block takes 32 columns of one part, a warp every
// eighth row.
constexpr int sum_columns = 32, sum_warps = 8;

template <class From, class To>
struct SumColumns {
  const From* rows;  // [count, columns]
  int64_t count, columns, part_rows;
  To* sums;  // [parts, columns]
};

template <class From, class To>
RNNCELLS_KERNEL(sum_columns* sum_warps)
run_sum_columns(RNNCELLS_PARAMETER(SumColumns<From, To>) call) {
  using C = Compute<From>;
  const int64_t tiles = ceil_divide(call.columns, sum_columns);
  const int64_t part = block_index() / tiles;
  const int lane = thread_index() % sum_columns, warp = thread_index() / sum_columns;
  const int64_t column = block_index() % tiles * sum_columns + lane;
  const int64_t end = smaller(call.count, (part + 1) * call.part_rows);
  SharedMemory memory;
  const Shared<C> sums = memory.take<C>(sum_columns * sum_warps);
  const Global<const From> rows(call.rows);
  C sum = 0;
  if (column < call.columns) {
    for (int64_t row = part * call.part_rows + warp; row < end; row += sum_warps) {
      sum += widen(read_once(rows, row * call.columns + column));
    }
  }
  write(sums, thread_index(), sum);
  block_barrier();
  if (warp > 0 || column >= call.columns) return;
  for (int w = 1; w < sum_warps; ++w) sum += read(sums, w * sum_columns + lane);
  write(Global<To>(call.sums), part * call.columns + column, stored<To>(sum));
}

}  // namespace rnncells::gpu
