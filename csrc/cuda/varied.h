// What the kernels are told of a variant: plain structs, words and sizes as in calls.h.
// cells/masks.h says what masks are, cpu/engine.h (Variant) in which order things happen.
#pragma once

#include <cstdint>

#include "cells/activation.h"
#include "cells/layer_norm.h"
#include "cpu/half.h"

namespace rnncells::gpu {

constexpr int most_states = 4;

// One direction's.
template <class T>
struct Varied {
  ActivationChoice activations;     // of an open cell
  const T* unit_parameters;         // [K, H], or null for zeros
  const int64_t* seed;              // one, which is read where it is; null: nothing is drawn
  uint32_t stream;                  // which of the layer's directions draws
  bool zones;                       // the reserve then has a slot more for each state
  Compute<T> zoneout[most_states];  // the probability that a unit's state stays,
  uint32_t zoneout_threshold[most_states];  // as draws have it
  const Compute<T>* mask;  // [B, P], on what the recurrent products multiply; or null
  const bool* resets;      // [T, B], before which steps the states become zero; or null
  int64_t resets_step_stride, resets_batch_stride;

  // Whether a recurrent product multiplies something else than the states as they are.
  bool changes_operand() const { return mask != nullptr || resets != nullptr; }
};

// Layer norm's values. Norm::gates: the scales of W_ih x and of W_hh h [G*H], whose shifts are the
// biases; preactivation: scale and shift [G*H]. Then, of a cell with a middle, its scale and shift
// [H].
template <class T>
struct RowNorms {
  Norm norm;
  const T* values[4];
};

// Dropout's mask on h, for all time steps: 0 or `scale`.
template <class T>
struct DrawMask {
  const int64_t* seed;
  uint32_t stream, threshold;
  int64_t batch, columns;
  Compute<T> scale;
  Compute<T>* mask;  // [B, columns]
};

// Where an event happens.
struct DrawEvents {
  const int64_t* seed;
  uint32_t purpose, stream, threshold;
  int64_t steps, batch, columns;
  bool* events;  // [T, B, columns]
};

}  // namespace rnncells::gpu
