// What the CUDA engine's functions are told: plain structs.
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
  T* y;                           // [N, H]
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

// One phase of one time step. The hidden state that the library multiplied is `hidden`, or for a
// later phase `operand`.
template <class T>
struct StepForward {
  Timeline time;
  int64_t units;
  int64_t step;  // the time step
  int phase;
  const Compute<T>* input;    // [N, G*H]
  const Compute<T>* product;  // [B, phase's recurrent gates * H], without the biases
  Biases<T> biases;
  // Changed by the last phase, of the sequences that have this step:
  T* hidden;                       // [B, H], state 0; unused with a projection
  Compute<T>* state[most_states];  // [B, H], every other state; [0] is not looked at
  T* y;                            // [N, H]; null with a projection
  int64_t y_stride;
  T* computed;        // [B, H], what is projected; null without a projection
  Compute<T>* saved;  // [B, saved*H]: between the phases; null for cells of one phase
  T* operand;         // [B, H], for the next phase's product; null in the last phase
  T* reserve;         // [N, R*H], one slot more with a projection; null: nothing is kept
  // Of varied kernels:
  Varied<T> varied;
  T* entering;  // [B, P]: what the next step's product multiplies; null: the hidden state, or it is
                // StoreOutputs that fills it
};

// One time step with layer norm, all phases at once: the library multiplied all of W_hh.
template <class T>
struct NormedForward {
  StepForward<T> step;
  RowNorms<T> norms;
};

// With a projection: what the library computed becomes y and the hidden state.
template <class T>
struct StoreOutputs {
  Timeline time;
  int64_t outputs;
  int64_t step;
  const T* projected;  // [B, P]
  T* hidden;           // [B, P]
  T* y;                // [N, P]
  int64_t y_stride;
  Varied<T> varied;
  T* entering;  // as in StepForward
};

// What the first step's product multiplies.
template <class T>
struct EnterFirstStep {
  Timeline time;
  int64_t outputs;
  const T* hidden;  // [B, P]
  Varied<T> varied;
  T* entering;  // [B, P]
};

// One phase of one time step, the last one first.
template <class T>
struct StepBackward {
  Timeline time;
  int64_t units;
  int64_t step;
  int phase;
  bool projected;
  // The last phase: the gradient that came by the library's product, of the hidden state by way of
  // the step that was walked before, or of `computed` with a projection; null for zeros. An earlier
  // phase: that of its operand.
  const Compute<T>* product;      // [B, H]
  const T* initial[most_states];  // [B, H]; or null for zeros
  const T* y;                     // [N, H]; not looked at with a projection
  int64_t y_stride;
  const T* reserve;     // [N, R*H]
  const T* y_gradient;  // as in PersistentBackward; null for zeros, and with a projection
  int64_t y_gradient_step_stride, y_gradient_row_stride, y_gradient_column_stride;
  // Changed: gradients of the states as far as they do not go through a product, [B, H]; with a
  // projection [0] is not looked at.
  Compute<T>* carry[most_states];
  Compute<T>* partial;    // [B, shares*H]: between the phases; null for cells of one phase
  T* input_gradient;      // [N, G*H]
  T* recurrent_gradient;  // [N, G*H], or null: as in PersistentBackward
  T* step_gradient;       // [B, phase's recurrent gates * H]: what the library multiplies
  // Of varied kernels:
  Varied<T> varied;
  Compute<T>* passed[most_states];  // [B, H]: what zoneout lets pass, between the phases; null for
                                    // cells of one phase
  Compute<T>* unit_sums;  // [B, K*H], changed: the gradients of unit_parameters; null: nobody asked
};

// One time step with layer norm, all phases at once. Of each sequence `sums` has a row: the
// gradients of the norms' values, then, where gates are apart, of both biases [G*H]; those of the
// middle begin at middle_scale and middle_shift.
template <class T>
struct NormedBackward {
  StepBackward<T> step;
  RowNorms<T> norms;
  Biases<T> biases;
  const Compute<T>*input, *recurrent;  // [N, G*H]: both products, of all time steps, without biases
  Compute<T>* sums;                    // [B, sums_width], changed
  int64_t sums_width, middle_scale, middle_shift;
};

// With a projection: the whole gradient of h, from y's, the product's and the states' own.
template <class T>
struct GatherOutputGradient {
  Timeline time;
  int64_t outputs;
  int64_t step;
  const Compute<T>* product;  // [B, P], or null for zeros
  const T* y_gradient;        // [T, B, P] or [N, P]; null for zeros
  int64_t y_gradient_step_stride, y_gradient_row_stride, y_gradient_column_stride;
  Compute<T>* carry;   // [B, P]: that of the last state; zero after the sequence's last step
  T* hidden_gradient;  // [N, P]; zero in padding
  T* step_gradient;    // [B, P]: the rows of this step
  Varied<T> varied;
};

// What the first step's product passed back, without what a mask or a reset kept from it.
template <class T>
struct LeaveFirstStep {
  Timeline time;
  int64_t outputs;
  Varied<T> varied;
  Compute<T>* gradient;  // [B, P], changed
};

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
