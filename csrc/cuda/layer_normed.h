// What BPTT of a direction with layer norm needs besides: both products of all time steps once
// more, and the gradients of the norms' values, and of biases that are shifts.
#pragma once

#include "cuda/layer_gradients.h"

namespace rnncells::gpu {

template <class T, class Library>
class NormedSteps {
  using C = Compute<T>;

 public:
  NormedSteps(Library& library, const LayerBackward<T>& layer, const ShareGradients<T>& shares)
      : library_(library), layer_(layer) {
    if (!layer.normed()) return;
    const int64_t columns = layer.columns();
    call_.norms = layer.norms;
    call_.biases = layer.biases;
    call_.input = multiplied(layer.x, layer.input_weight);
    call_.recurrent =
        multiplied(matrix<T>(shares.previous, layer.rows, layer.outputs), layer.recurrent_weight);
    call_.sums_width = (apart() ? 4 : 2) * columns + (own_middle() ? 2 * layer.units : 0);
    call_.middle_scale = own_middle() ? 4 * columns : middle_gate();
    call_.middle_shift = own_middle() ? 4 * columns + layer.units : columns + middle_gate();
    call_.sums = zeros_by_sequence<T>(library, layer.time.batch, call_.sums_width);
  }

  const char* launch(const StepBackward<T>& step) {
    call_.step = step;
    return normed_backward(layer_.cell, call_, library_.stream());
  }

  void finish() {
    if (!layer_.normed()) return;
    T* total = library_.template allocate<T>(call_.sums_width);
    check_call(
        add_sequences(call_.sums, layer_.time.batch, call_.sums_width, total, library_.stream()));
    const int64_t columns = layer_.columns(), units = layer_.units;
    const auto give = [&](int64_t first, int64_t count, T* to) {
      if (to != nullptr) copy_values<T>(library_, total + first, count, to);
    };
    for (int i = 0; i < 2; ++i) give(i * columns, columns, layer_.norm_gradient[i]);
    if (apart()) {
      give(2 * columns, columns, layer_.input_bias_gradient);
      give(3 * columns, columns, layer_.recurrent_bias_gradient);
    }
    if (own_middle()) {
      give(call_.middle_scale, units, layer_.norm_gradient[2]);
      give(call_.middle_shift, units, layer_.norm_gradient[3]);
    }
  }

 private:
  bool apart() const { return layer_.norms.norm == Norm::gates; }
  // Whether the middle's scale and shift are none of a gate's.
  bool own_middle() const { return layer_.traits().middle && apart(); }
  int64_t middle_gate() const {
    return layer_.traits().middle ? layer_.traits().middle_gate * layer_.units : 0;
  }

  // a w^T
  C* multiplied(const Matrix<const T>& a, const Matrix<const T>& w) const {
    C* out = library_.template allocate<C>(a.rows * w.rows);
    library_.product(a, w.transposed(), out)();
    return out;
  }

  Library& library_;
  const LayerBackward<T>& layer_;
  NormedBackward<T> call_{};
};

}  // namespace rnncells::gpu
