// One direction of a layer, as the operators give it to layer_forward.h and layer_backward.h.
// Pointers are to memory of the device; sizes and words are those of calls.h.
#pragma once

#include "cells/masks.h"
#include "cuda/choose.h"
#include "cuda/library.h"

namespace rnncells::gpu {

// What both ways have in common.
template <class T>
struct LayerCall {
  int cell;  // see cell_traits
  Choice choice;
  Timeline time;
  int64_t rows, inputs, units, outputs;            // N, I, H, P
  Matrix<const T> x;                               // [N, I]; backward: with zeros for the padding
  Matrix<const T> input_weight, recurrent_weight;  // [G*H, I], [G*H, P]; or see multiplies()
  Matrix<const T> projection;                      // [P, H]; no data: there is none
  Biases<T> biases;
  const T* initial[most_states];  // [B, P], every other [B, H]; or null for zeros
  // Of a variant; is_varied also for a cell that has varied kernels alone.
  bool is_varied;
  Varied<T> varied;          // without a mask, which run_forward and run_backward draw
  double recurrent_dropout;  // its rate; 0 without a seed
  RowNorms<T> norms;

  // Whether W_hh h is a product. Else W_hh [G*H] is the cell's unit parameters.
  bool multiplies() const { return !traits().per_unit_recurrence; }
  bool normed() const { return norms.norm != Norm::none; }
  bool projected() const { return projection.data != nullptr; }
  int64_t width(int state) const { return state == 0 ? outputs : units; }
  const CellTraits& traits() const { return cell_traits(cell); }
  int64_t columns() const { return traits().gates * units; }
  int64_t slots() const {
    return traits().reserve_slots + projected() + (varied.zones ? traits().states : 0);
  }
  RecurrentWeights<T> recurrent() const {
    return {recurrent_weight.data, recurrent_weight.row_stride, recurrent_weight.column_stride};
  }
  Matrix<const T> phase_weight(const PhaseTraits& phase) const {
    return recurrent_weight.rows_from(phase.first_gate * units, phase.gates * units);
  }
};

template <class T>
struct LayerForward : LayerCall<T> {
  T* y;  // [N, P]; null: nobody asked
  int64_t y_stride;
  T* last[most_states];    // [B, P], every other [B, H]
  T* series[most_states];  // of a varied layer: [N, H], each state besides h after every time step;
  int64_t series_stride;   // null: nobody asked
  T* reserve;              // [N, R*H], one slot more with a projection; null: nothing is kept
};

template <class T>
struct LayerBackward : LayerCall<T> {
  const T* y;
  int64_t y_stride;
  const T* reserve;
  const T* y_gradient;  // [T, B, P], or [N, P] if packed; null for zeros
  int64_t y_gradient_step_stride, y_gradient_row_stride, y_gradient_column_stride;
  const T* last_gradient[most_states];  // as `last`; or null for zeros
  const T* series_gradient[most_states];
  int64_t series_stride;
  // Results; null: nobody asked.
  T* initial_gradient[most_states];
  Compute<T>* x_gradient;                            // [N, I]: this direction's share
  T* input_weight_gradient;                          // [G*H, I]
  T* recurrent_weight_gradient;                      // [G*H, P]
  T *input_bias_gradient, *recurrent_bias_gradient;  // [G*H]
  T* projection_gradient;                            // [P, H]
  T* unit_parameter_gradient;                        // [K, H]
  T* norm_gradient[4];                               // of RowNorms::values
};

// A copy of `count` values; zeros where there is nothing to copy.
template <class T, class Library>
void copy_values(Library& library, const T* from, int64_t count, T* to) {
  const Timeline once{1, 1, nullptr, nullptr, false};
  check_call(copy_rows(CopyRows<T>{once, count, from, count, count, 1, to}, library.stream()));
}

// x [T, B, I], or packed [N, I], as a matrix of its rows: where it lies, unless the strides forbid
// that, or `clean` wants zeros in place of its padding.
template <class T, class Library>
Matrix<const T> rows_of_input(Library& library, const Timeline& time, int64_t rows, int64_t inputs,
                              const T* x, int64_t step_stride, int64_t row_stride,
                              int64_t column_stride, bool clean) {
  const bool padded = time.lengths != nullptr && time.offsets == nullptr;
  const bool regular =
      time.offsets != nullptr || time.steps == 1 || step_stride == time.batch * row_stride;
  if (regular && !(padded && clean)) return {x, rows, inputs, row_stride, column_stride};
  T* copy = library.template allocate<T>(rows * inputs);
  check_call(copy_rows(CopyRows<T>{time, inputs, x, step_stride, row_stride, column_stride, copy},
                       library.stream()));
  return matrix<T>(copy, rows, inputs);
}

// Sums of each sequence, [B, columns], to begin with.
template <class T, class Library>
Compute<T>* zeros_by_sequence(Library& library, int64_t batch, int64_t columns) {
  Compute<T>* sums = library.template allocate<Compute<T>>(batch * columns);
  check_call(widen_values(WidenValues<T>{nullptr, sums, batch * columns}, library.stream()));
  return sums;
}

// The call's variant, with the mask of its recurrent dropout.
template <class T, class Library>
Varied<T> with_mask(Library& library, const LayerCall<T>& layer) {
  Varied<T> varied = layer.varied;
  if (layer.recurrent_dropout > 0) {
    const int64_t batch = layer.time.batch, columns = layer.outputs;
    auto* mask = library.template allocate<Compute<T>>(batch * columns);
    const auto scale = static_cast<Compute<T>>(dropout_scale(layer.recurrent_dropout));
    check_call(
        draw_mask(DrawMask<T>{varied.seed, varied.stream, draw_threshold(layer.recurrent_dropout),
                              batch, columns, scale, mask},
                  library.stream()));
    varied.mask = mask;
  }
  return varied;
}

template <class T, class Library>
void* workspace(Library& library, const Choice& choice) {
  return library.template allocate<char>(workspace_bytes(choice.plan, choice.operand));
}

}  // namespace rnncells::gpu
