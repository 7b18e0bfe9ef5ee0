// What the CPU engine offers to the operators: plain structs, one table of functions for each
// instruction set. One call serves one direction of one layer.
//
// Sizes: T time steps, B sequences, I inputs, H units, G gates, S states; R reserve slots.
// Strides are in elements. Buffers come from the caller; nothing here knows torch.
#pragma once

#include <cstdint>

namespace rnncells {

constexpr int max_states = 4;

// Runs fn(begin, end, context) over [0, n) in pieces, on several threads.
struct Pool {
  using Body = void (*)(int64_t begin, int64_t end, void* context);
  void (*run)(int64_t n, Body body, void* context) = nullptr;
  int threads = 1;
  int64_t least_work = 0;  // multiply-adds below which one thread does it
};

struct Sizes {
  int64_t steps, batch, inputs, units;
};

template <class T>
struct Weights {
  const T* input;  // W_ih [G*H, I]
  int64_t input_row_stride, input_column_stride;
  const T* recurrent;  // W_hh [G*H, H]
  int64_t recurrent_row_stride, recurrent_column_stride;
  const T* input_bias;  // b_ih [G*H], or null
  int64_t input_bias_stride;
  const T* recurrent_bias;  // b_hh [G*H], or null
  int64_t recurrent_bias_stride;
};

template <class T>
struct ForwardCall {
  Sizes sizes;
  bool reverse;  // from the last time step to the first
  const T* x;    // [T, B, I]
  int64_t x_step_stride, x_batch_stride, x_column_stride;
  const T* initial[max_states];  // each [B, H], or null for zeros
  Weights<T> weights;
  T* y;  // [T, B, H], rows y_row_stride apart
  int64_t y_row_stride;
  T* last[max_states];  // each [B, H]
  T* reserve;           // [T, B, R*H], or null: nothing is kept
  Pool pool;
};

template <class T>
struct BackwardCall {
  Sizes sizes;
  bool reverse;
  const T* x;  // [T, B, I]
  int64_t x_step_stride, x_batch_stride, x_column_stride;
  const T* initial[max_states];  // each [B, H], or null for zeros
  Weights<T> weights;
  const T* y;  // [T, B, H], rows y_row_stride apart
  int64_t y_row_stride;
  const T* reserve;     // [T, B, R*H]
  const T* y_gradient;  // [T, B, H], unit stride along H, or null for zeros
  int64_t y_gradient_step_stride, y_gradient_batch_stride;
  const T* last_gradient[max_states];  // each [B, H], or null for zeros
  // Results; a null pointer is a gradient that nobody asked for.
  T* x_gradient;  // [T, B, I] contiguous
  bool add_to_x_gradient;
  T* initial_gradient[max_states];  // each [B, H]
  T* input_weight_gradient;         // [G*H, I] contiguous
  T* recurrent_weight_gradient;     // [G*H, H] contiguous
  T* input_bias_gradient;           // [G*H]
  T* recurrent_bias_gradient;       // [G*H]
  Pool pool;
};

struct CellFacts {
  const char* name;
  int gates, states, phases, reserve_slots;
};

struct CellEngine {
  CellFacts facts;
  void (*forward_float)(const ForwardCall<float>&);
  void (*forward_double)(const ForwardCall<double>&);
  void (*backward_float)(const BackwardCall<float>&);
  void (*backward_double)(const BackwardCall<double>&);

  void forward(const ForwardCall<float>& call) const { forward_float(call); }
  void forward(const ForwardCall<double>& call) const { forward_double(call); }
  void backward(const BackwardCall<float>& call) const { backward_float(call); }
  void backward(const BackwardCall<double>& call) const { backward_double(call); }
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
