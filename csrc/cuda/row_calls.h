// The calls of small kernels over the rows of a series, and over states. Words and sizes as in
// calls.h.
#pragma once

#include "cuda/calls.h"

namespace rnncells::gpu {

// The hidden state before every step, as the second factor of dW_hh.
template <class T>
struct PreviousOutputs {
  Timeline time;
  int64_t outputs;
  const T* y;  // [N, P]
  int64_t y_stride;
  const T* initial;  // [B, P], or null for zeros
  T* previous;       // [N, P]; zero in padding
  Varied<T> varied;
};

// The same of what a later phase multiplies.
template <class T>
struct MaskedOperands {
  Timeline time;
  int64_t units;
  const T* operands;  // [N, H]
  int64_t stride;
  T* masked;  // [N, H]
  Varied<T> varied;
};

// A series with zeros for its padding.
template <class T>
struct CopyRows {
  Timeline time;
  int64_t columns;
  const T* from;  // [T, B, columns]; null for zeros
  int64_t step_stride, row_stride, column_stride;
  T* to;  // [N, columns]
};

// States between T and Compute<T>.
template <class T>
struct WidenValues {
  const T* from;  // null for zeros
  Compute<T>* to;
  int64_t count;
};
template <class T>
struct NarrowSum {
  const Compute<T>*a, *b;  // b may be null, for zeros
  T* sum;
  int64_t count;
};

// The sum over all rows, in a fixed order, in two passes.
template <class T>
struct SumRows {
  const T* rows;  // [N, columns], contiguous
  int64_t count, columns;
  Compute<T>* partial;  // [sum_parts(count), columns]
  T* sum;               // [columns]
};
// Values of the host, which travel with the launches: nobody waits, and a CUDA graph keeps them.
struct BringValues {
  static constexpr int64_t most = 480;  // a launch takes 4 KB of arguments
  int64_t count;
  int64_t* to;
  int64_t values[most];
};
// Lengths that only the device knows, none below 1 or above the number of time steps.
struct ClampLengths {
  const int64_t* from;
  int64_t stride, count, steps;
  int64_t* to;
};

}  // namespace rnncells::gpu
