// Compiles every cell, forward and adjoint, as code of a CUDA thread. Never run; see
// test_native.py.
#include "cells/registry.h"

namespace rnncells {

template <class Cell, class T, int P>
__device__ void run(const T* in, T* out) {
  T share[8], previous[Cell::states], next[Cell::states], save[8];
  T state_gradient[Cell::states], share_gradient[8];
  for (int i = 0; i < 8; ++i) share[i] = save[i] = share_gradient[i] = in[i];
  for (int i = 0; i < Cell::states; ++i) previous[i] = next[i] = state_gradient[i] = in[8 + i];
  Cell::template forward<P>(share, previous, next, save);
  Cell::template backward<P>(save, previous, next, in[16], state_gradient, share_gradient);
  for (int i = 0; i < 8; ++i) out[i] += save[i] + share_gradient[i];
  for (int i = 0; i < Cell::states; ++i) out[8 + i] += next[i] + state_gradient[i];
  if constexpr (P + 1 < Cell::phases) run<Cell, T, P + 1>(in, out);
}

template <class T, class... Cell>
__device__ void run_all(const T* in, T* out, CellList<Cell...>) {
  (run<Cell, T, 0>(in, out), ...);
}

__global__ void cells_in_float(const float* in, float* out) { run_all(in, out, AllCells()); }
__global__ void cells_in_double(const double* in, double* out) { run_all(in, out, AllCells()); }

}  // namespace rnncells
