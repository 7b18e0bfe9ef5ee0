// The calls of kernels that do one time step. Words and sizes as in calls.h.
#pragma once

#include "cuda/calls.h"

namespace rnncells::gpu {

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
  T* y;                            // [N, H]; null with a projection, or where nobody asked
  int64_t y_stride;
  T* computed;        // [B, H], what is projected; null without a projection
  Compute<T>* saved;  // [B, saved*H]: between the phases; null for cells of one phase
  T* operand;         // [B, H], for the next phase's product; null in the last phase
  T* reserve;         // [N, R*H], one slot more with a projection; null: nothing is kept
  // Of varied kernels:
  Varied<T> varied;
  T* entering;  // [B, P]: what the next step's product multiplies; null: the hidden state, or it is
                // StoreOutputs that fills it
  T* series[most_states];  // [N, H], each state besides the hidden one; null: nobody asked
  int64_t series_stride;   // between two rows
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
  T* y;                // [N, P]; null: nobody asked
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
  const T* series_gradient[most_states];  // of StepForward::series; null for zeros
  int64_t series_stride;
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

}  // namespace rnncells::gpu
