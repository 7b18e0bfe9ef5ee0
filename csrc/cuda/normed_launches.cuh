// From the calls of layer norm to launches.
#pragma once

#include "cuda/launches.cuh"
#include "cuda/normed_backward.cuh"

namespace rnncells::gpu {

template <class T>
LaunchShape row_shape(int64_t rows) {
  return {rows, row_threads, row_warps * int64_t{sizeof(Compute<T>)}};
}

template <class T>
const char* normed_forward(int cell, const NormedForward<T>& call, Stream stream) {
  const auto body = [&](auto kind) -> const char* {
    using Cell = decltype(kind);
    if constexpr (can_be_normed<Cell>()) {
      return launch(&run_normed_forward<Cell, T>, call, row_shape<T>(call.step.time.batch), stream);
    } else {
      return no_such_kernel;
    }
  };
  return with_cell(cell - count_of(AllCells()), body, OtherCells());
}
template <class T>
const char* normed_backward(int cell, const NormedBackward<T>& call, Stream stream) {
  const auto body = [&](auto kind) -> const char* {
    using Cell = decltype(kind);
    if constexpr (can_be_normed<Cell>()) {
      return launch(&run_normed_backward<Cell, T>, call, row_shape<T>(call.step.time.batch),
                    stream);
    } else {
      return no_such_kernel;
    }
  };
  return with_cell(cell - count_of(AllCells()), body, OtherCells());
}

}  // namespace rnncells::gpu
