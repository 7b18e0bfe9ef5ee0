// What the CPU engine offers to the operators: plain structs, one table of functions for each
// instruction set. One call serves one direction of one layer.
//
// Sizes: T time steps, B sequences, I inputs, H units, P outputs (H without a projection), G gates;
// R reserve slots. Strides are in elements. Buffers come from the caller; nothing here knows torch.
//
// Series of time steps (x, y, the reserve, their gradients) have T*B rows. With row_counts, step t
// has row_counts[t] rows, those of the sequences that are so long, which are sorted, the longest
// first; N is the number of rows in all. The reserve is then packed: nothing lies between two
// steps. So are x and y, unless `order` is given: then they are padded, [T, B, ...], and so are
// their gradients, and row r of a step is that of sequence order[r], in the states too. What is
// padding is not read, and in the results it is zero.
//
// With the lanes along the depth x, the weights and the biases have unit strides along their last
// dimension; the backward pass is that of the lanes over the units.
//
// With the lanes over the batch, which needs neither row_counts
// nor a projection nor a second phase, the reserve is [T, groups of sequences, R*H, sequences of
// the group].
//
// With `recompute` the reserve has the states besides the output and no more, [T, B, (states-1)*H]
// or [N, (states-1)*H], and the backward pass runs the forward pass once more, a few time steps at
// a time. The lanes are then over the units, or, forward, along the depth.
//
// With a variant the lanes are over the units. Zoneout, which no projection allows, takes as many
// more slots of the reserve as the cell has states, for what the cell itself made of them.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cells/activation.h"
#include "cells/layer_norm.h"
#include "cpu/half.h"

namespace rnncells {

constexpr int max_states = 4;

// What stands side by side in the lanes of a vector: units of one sequence; sequences of the batch,
// for narrow layers, in groups of so many, whatever the width of a vector; or, for a step of few
// rows, the depth of a product.
enum class Regime { units, batch, depth };
constexpr int64_t lane_group = 16;

// Runs fn(begin, end, context) over [0, n) in pieces, on several threads.
struct Pool {
  using Body = void (*)(int64_t begin, int64_t end, void* context);
  void (*run)(int64_t n, Body body, void* context) = nullptr;
  int threads = 1;
  int64_t least_work = 0;       // multiply-adds below which one thread does it
  int64_t least_step_work = 0;  // the same of a time step whose units several threads share
};

struct Sizes {
  int64_t steps, batch, inputs, units, outputs;
};

// What a call does besides the plain recurrence; by default nothing.
struct Variant {
  Norm norm = Norm::none;                            // of an open cell
  ActivationChoice activations = usual_activations;  // of an open cell
  const bool* resets = nullptr;  // [T, B]: before which steps a sequence's states become zero
  int64_t resets_step_stride = 0, resets_batch_stride = 0;
  bool draws = false;  // dropout and zoneout are drawn; else the one is off, the other's
                       // expectation is taken
  uint64_t seed = 0;
  uint32_t stream = 0;              // which of the layer's directions draws
  double recurrent_dropout = 0;     // of what the recurrent products multiply: one mask a sequence
  double zoneout[max_states] = {};  // the probability that a unit's state stays, step by step
  int64_t first_time = 0;           // the time step, in resets and draws, of the call's first one
  bool whole_states = false;        // every state of every time step is asked for, not h alone
  bool last_only = false;  // y is not asked for: what keeps nothing has room for two time steps

  bool masks() const { return draws && recurrent_dropout > 0; }
  bool zones() const {
    for (const double rate : zoneout) {
      if (rate > 0) return true;
    }
    return false;
  }
  bool any() const {
    return resets != nullptr || masks() || zones() || norm != Norm::none || whole_states;
  }
};

// T: how the values are stored; see half.h for what they are computed in.
template <class T>
struct Weights {
  const T* input;  // W_ih [G*H, I]
  int64_t input_row_stride, input_column_stride;
  const T* recurrent;  // W_hh [G*H, P]; null where it is the cell's unit parameters
  int64_t recurrent_row_stride, recurrent_column_stride;
  const T* input_bias;  // b_ih [G*H], or null
  int64_t input_bias_stride;
  const T* recurrent_bias;  // b_hh [G*H], or null
  int64_t recurrent_bias_stride;
  const T* projection;  // W_hr [P, H], or null: the outputs are the cell's hidden state
  int64_t projection_row_stride, projection_column_stride;
  const T* unit_parameters;  // [K*H], of a cell that has K of them; or null for zeros
  int64_t unit_parameter_stride;
  // Of layer norm, contiguous. Norm::gates: the scales of W_ih x and of W_hh h [G*H];
  // preactivation: scale and shift [G*H]. Then, of a cell with a middle, its scale and shift [H].
  const T* norm[4];
};

template <class T>
struct ForwardCall {
  Sizes sizes;
  Regime regime;
  const int64_t* row_counts;  // [T], none above the one before it, the first B; null: all B
  const int64_t* order;       // [B], or null
  bool reverse;               // from the last time step to the first
  const T* x;                 // [T, B, I], or packed [N, I], which has no step stride
  int64_t x_step_stride, x_batch_stride, x_column_stride;
  const T* initial[max_states];  // [B, P], every other [B, H]; or null for zeros
  Weights<T> weights;
  T* y;  // [T, B, P] or packed [N, P]; or, see two_steps, [2, B, P]
  int64_t y_step_stride, y_batch_stride;
  bool two_steps;         // y has room for two time steps, the even and the odd one
  T* series[max_states];  // [T, B, H] or [N, H], each state besides h after every time step; or
                          // null: nobody asked
  int64_t series_step_stride, series_batch_stride;
  T* last[max_states];  // [B, P], every other [B, H]
  T* reserve;           // [T, B, R*H] or [N, R*H], R + 1 with a projection; null: nothing is kept
  bool recompute;
  const void* packed;  // the weights as LayerFunctions::pack left them; null: they are packed here
  Variant variant;
  Pool pool;
};

template <class T>
struct BackwardCall {
  Sizes sizes;
  Regime regime;                      // the forward call's
  const int64_t *row_counts, *order;  // as in the forward call
  bool reverse;
  const T* x;  // [T, B, I] or [N, I]
  int64_t x_step_stride, x_batch_stride, x_column_stride;
  const T* initial[max_states];  // [B, P], every other [B, H]; or null for zeros
  Weights<T> weights;
  const T* y;  // [T, B, P] or [N, P]
  int64_t y_step_stride, y_batch_stride;
  const T* reserve;  // [T, B, R*H] or [N, R*H], R + 1 with a projection
  bool recompute;
  const T* y_gradient;  // [T, B, P] or [N, P], unit stride along P; null for zeros
  int64_t y_gradient_step_stride, y_gradient_batch_stride;
  const T* last_gradient[max_states];    // [B, P], every other [B, H]; or null for zeros
  const T* series_gradient[max_states];  // of ForwardCall::series, unit stride along H; or null
  int64_t series_step_stride, series_batch_stride;
  // Results; a null pointer is a gradient that nobody asked for.
  T* x_gradient;  // [T, B, I] or [N, I], contiguous
  bool add_to_x_gradient;
  T* initial_gradient[max_states];  // [B, P], every other [B, H]
  T* input_weight_gradient;         // [G*H, I] contiguous
  T* recurrent_weight_gradient;     // [G*H, P] contiguous
  T* input_bias_gradient;           // [G*H]
  T* recurrent_bias_gradient;       // [G*H]
  T* projection_gradient;           // [P, H] contiguous
  T* unit_parameter_gradient;       // [K, H] contiguous
  T* norm_gradient[4];              // of Weights::norm
  Variant variant;                  // the forward call's
  Pool pool;
};

struct CellFacts {
  const char* name;
  int gates, states, phases, reserve_slots;
  bool projects;  // can have a projection: h flows into the next h by the product alone
  int unit_parameters;
  bool open;                         // it takes activations, and unit parameters where it has any
  bool middle;                       // it normalises a row of its own
  bool units_only = true;            // its lanes are over the units, whatever the sizes
  bool per_unit_recurrence = false;  // W_hh [G*H] are its unit parameters: there is no product
  ActivationChoice activations = usual_activations;  // its own, where it is open
};

template <class T>
struct LayerFunctions {
  void (*forward)(const ForwardCall<T>&);
  void (*backward)(const BackwardCall<T>&);
  // One direction's weights as `forward` reads them with the lanes over the units: how many
  // elements, of the type that is computed in, and these, on a cache line's boundary. Steps and
  // batch are of no account.
  int64_t (*packed_elements)(const Sizes&, bool projected);
  void (*pack)(const Sizes&, const Weights<T>&, void* packed);
};

struct CellEngine {
  CellFacts facts;
  LayerFunctions<float> for_float;
  LayerFunctions<double> for_double;
  LayerFunctions<Float16> for_float16;
  LayerFunctions<BFloat16> for_bfloat16;

  template <class T>
  const LayerFunctions<T>& functions() const {
    if constexpr (std::is_same_v<T, float>) return for_float;
    if constexpr (std::is_same_v<T, double>) return for_double;
    if constexpr (std::is_same_v<T, Float16>) return for_float16;
    if constexpr (std::is_same_v<T, BFloat16>) return for_bfloat16;
  }
};

struct CellTable {
  const CellEngine* begin_;
  int count;
  const CellEngine* begin() const { return begin_; }
  const CellEngine* end() const { return begin_ + count; }
};

// One for each instruction set; on a processor that is not x86-64 only the first.
namespace baseline {
CellTable engine();
}
namespace avx2 {
CellTable engine();
}
namespace avx512 {
CellTable engine();
}

}  // namespace rnncells
