// LSTM (Hochreiter and Schmidhuber 1997) with a forget gate (Gers, Schmidhuber and Cummins 2000):
// c' = f * c + i * g, h' = o * tanh(c'); i, f, o = sigmoid, g = tanh of their shares.
#pragma once

#include "cells/activations.h"
#include "cells/cell.h"

namespace rnncells {

struct Lstm {
  static constexpr const char* name = "lstm";
  static constexpr int gates = 4, states = 2, phases = 1, saved = 4;
  static constexpr int unit_parameters = 0;
  static constexpr bool row_statistics = false, direct_hidden = false;
  static constexpr bool output_slope = false;
  static constexpr Phase phase(int) { return {{0, 4}, {0, 4}, {0, 4}, {0, 4}, -1, {0, 1, 2, 3}}; }

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const V* share, const V* previous, V* next, V* save) {
    const V i = sigmoid(share[0]), f = sigmoid(share[1]), g = tanh(share[2]), o = sigmoid(share[3]);
    const V c = mul_add(f, previous[1], i * g);
    next[0] = o * tanh(c);
    next[1] = c;
    save[0] = i;
    save[1] = f;
    save[2] = g;
    save[3] = o;
  }

  template <int P, class V>
  RNNCELLS_INLINE static void backward(const V* save, const V* previous, const V* next, V,
                                       V* state_gradient, V* share_gradient) {
    const V i = save[0], f = save[1], g = save[2], o = save[3];
    const V squashed = tanh(next[1]);
    const V dh = state_gradient[0];
    const V dc = mul_add(dh * o, tanh_slope(squashed), state_gradient[1]);
    share_gradient[0] = dc * g * sigmoid_slope(i);
    share_gradient[1] = dc * previous[1] * sigmoid_slope(f);
    share_gradient[2] = dc * i * tanh_slope(g);
    share_gradient[3] = dh * squashed * sigmoid_slope(o);
    state_gradient[0] = V(0);
    state_gradient[1] = dc * f;
  }
};

}  // namespace rnncells
