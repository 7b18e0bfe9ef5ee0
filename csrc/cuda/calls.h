// What the CUDA engine's functions are told: plain structs. Here what they have in common, and the
// calls of the persistent kernels; those of one time step are in step_calls.h, those over rows in
// row_calls.h.
//
// Every pointer is to memory of the device, buffers come from the caller, strides are in elements.
//
// Sizes: T time steps, B sequences, H units, P outputs (H without a projection), G gates, R reserve
// slots; N rows in all, T*B unless the series are packed. Compute<S> is float for the 16-bit types,
// and what values are accumulated in.
#pragma once

#include <cstdint>

#include "cpu/half.h"
#include "cuda/plan.h"
#include "cuda/varied.h"

namespace rnncells::gpu {

// Which time steps and rows there are. Row `row(t, b)` of a series is offsets[t] + b, or t*B + b
// where there are no offsets. A sequence's time steps from lengths[b] on are padding: not read, and
// zero in the results; a packed series has none.
struct Timeline {
  int64_t steps, batch;
  const int64_t* lengths;  // [B], or null: all T
  const int64_t* offsets;  // [T], the rows of all steps before; null unless packed
  bool reverse;            // from the last time step to the first
};

template <class T>
struct RecurrentWeights {
  const T* weight;  // W_hh [G*H, H]
  int64_t row_stride, column_stride;
};

template <class T>
struct Biases {
  const T* input;  // b_ih [G*H], or null
  int64_t input_stride;
  const T* recurrent;  // b_hh [G*H], or null
  int64_t recurrent_stride;
};

// Cells by their place in AllCells; those of one phase, without a projection; not for double.
template <class T>
struct PersistentForward {
  Timeline time;
  int64_t units;
  PersistentPlan plan;
  Operand operand;          // singles or tensor_floats for float, sixteen_bits for the others
  const Compute<T>* input;  // [N, G*H]
  RecurrentWeights<T> recurrent;
  Biases<T> biases;
  const T* initial[most_states];  // [B, H]; or null for zeros
  T* y;                           // [N, H]; null: nobody asked
  int64_t y_stride;               // between two rows
  T* last[most_states];           // [B, H]
  T* reserve;                     // [N, R*H]; null: nothing is kept
  void* workspace;                // workspace_bytes(plan, operand), 16 bytes aligned
};

template <class T>
struct PersistentBackward {
  Timeline time;
  int64_t units;
  PersistentPlan plan;  // of a backward problem
  Operand operand;
  RecurrentWeights<T> recurrent;
  const T* initial[most_states];  // [B, H]; or null for zeros
  const T* y;                     // [N, H]
  int64_t y_stride;
  const T* reserve;     // [N, R*H]
  const T* y_gradient;  // [T, B, H], or [N, H] if packed; null for zeros
  int64_t y_gradient_step_stride, y_gradient_row_stride, y_gradient_column_stride;
  const T* last_gradient[most_states];  // [B, H]; or null for zeros
  // Results. The two gradients of shares are of x W_ih^T and of h W_hh^T; the second is null where
  // has_separate_gradients() is false: the first is both.
  T* input_gradient;                 // [N, G*H]
  T* recurrent_gradient;             // [N, G*H]
  T* initial_gradient[most_states];  // [B, H]; null: nobody asked
  void* workspace;                   // as in the forward call
};

}  // namespace rnncells::gpu
