// After the loop of BPTT: the gradients of x, the weights and the biases from those of the shares.
#pragma once

#include "cuda/layer.h"

namespace rnncells::gpu {

// What the loop writes.
template <class T>
struct ShareGradients {
  T *input, *recurrent;  // [N, G*H]: of x W_ih^T and of h W_hh^T; one where they are the same
  T* hidden;             // [N, P]: of what the projection gives; null without one
  bool separate;
  Varied<T> varied;  // with its mask
  T* previous;       // [N, P]: what h was before every step, as the products have it; null: nobody
                     // asked
};

template <class T, class Library>
T* previous_outputs_of(Library& library, const LayerBackward<T>& layer, const Varied<T>& varied) {
  T* previous = library.template allocate<T>(layer.rows * layer.outputs);
  check_call(previous_outputs(PreviousOutputs<T>{layer.time, layer.outputs, layer.y, layer.y_stride,
                                                 layer.initial[0], previous, varied},
                              library.stream()));
  return previous;
}

template <class T, class Library>
void recurrent_weight_gradient(Library& library, const LayerBackward<T>& layer,
                               const ShareGradients<T>& shares) {
  const int64_t units = layer.units, outputs = layer.outputs;
  const auto gradient = matrix<T>(shares.recurrent, layer.rows, layer.columns());
  const auto kept = matrix<T>(layer.reserve, layer.rows, layer.slots() * units);
  for (int p = 0; p < layer.traits().phases; ++p) {
    const PhaseTraits phase = phase_traits(layer.cell, p);
    if (phase.gates == 0) continue;
    auto factor = phase.operand < 0 ? matrix<T>(shares.previous, layer.rows, outputs)
                                    : kept.columns_from(phase.operand * units, units);
    if (phase.operand >= 0 && shares.varied.mask != nullptr) {
      T* masked = library.template allocate<T>(layer.rows * units);
      check_call(masked_operands(MaskedOperands<T>{layer.time, units, factor.data,
                                                   factor.row_stride, masked, shares.varied},
                                 library.stream()));
      factor = matrix<T>(masked, layer.rows, units);
    }
    const auto own = gradient.columns_from(phase.first_gate * units, phase.gates * units);
    T* out = layer.recurrent_weight_gradient + phase.first_gate * units * outputs;
    rounded_product<T>(library, own.transposed(), factor, out)();
  }
}

// The same sum for both biases where both have the same gradient.
template <class T, class Library>
void bias_gradients(Library& library, const LayerBackward<T>& layer,
                    const ShareGradients<T>& shares) {
  const int64_t columns = layer.columns();
  const auto sum = [&](const T* gradient, T* out) {
    Compute<T>* partial = library.template allocate<Compute<T>>(sum_parts(layer.rows) * columns);
    check_call(sum_rows(SumRows<T>{gradient, layer.rows, columns, partial, out}, library.stream()));
  };
  T *input = layer.input_bias_gradient, *recurrent = layer.recurrent_bias_gradient;
  if (input != nullptr) sum(shares.input, input);
  if (recurrent == nullptr) return;
  if (input != nullptr && !shares.separate) {
    copy_values<T>(library, input, columns, recurrent);
  } else {
    sum(shares.recurrent, recurrent);
  }
}

template <class T, class Library>
void run_products(Library& library, const LayerBackward<T>& layer,
                  const ShareGradients<T>& shares) {
  const auto input = matrix<T>(shares.input, layer.rows, layer.columns());
  if (layer.x_gradient != nullptr) {
    library.product(input, layer.input_weight, layer.x_gradient)();
  }
  if (layer.input_weight_gradient != nullptr) {
    rounded_product<T>(library, input.transposed(), layer.x, layer.input_weight_gradient)();
  }
  if (layer.recurrent_weight_gradient != nullptr) {
    recurrent_weight_gradient(library, layer, shares);
  }
  if (layer.projection_gradient != nullptr) {
    const auto hidden = matrix<T>(shares.hidden, layer.rows, layer.outputs);
    const auto computed =
        matrix<T>(layer.reserve, layer.rows, layer.slots() * layer.units)
            .columns_from(layer.traits().reserve_slots * layer.units, layer.units);
    rounded_product<T>(library, hidden.transposed(), computed, layer.projection_gradient)();
  }
  if (layer.norms.norm != Norm::gates) bias_gradients(library, layer, shares);
}

}  // namespace rnncells::gpu
