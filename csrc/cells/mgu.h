// Minimal gated unit (Zhou, Wu, Zhang and Zhou 2016): f = sigmoid(W_f x + U_f h), n = tanh(W_n x +
// U_n (f * h)), h' = (1 - f) * h + f * n. The candidate's product needs f: two phases.
#pragma once

#include "cells/activations.h"
#include "cells/cell.h"

namespace rnncells {

struct Mgu : UsualCell {
  static constexpr const char* name = "mgu";
  static constexpr int gates = 2, states = 1, phases = 2, saved = 3;
  static constexpr bool direct_hidden = true;
  // Saved: f, the operand f * h, n.
  static constexpr Phase phase(int p) {
    return p == 0 ? Phase{{0, 1}, {0, 1}, {0, 1}, {0, 2}, -1, {0}}
                  : Phase{{1, 1}, {1, 1}, {1, 1}, {2, 1}, 1, {1}};
  }

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const V* share, const V* previous, V* next, V* save) {
    if constexpr (P == 0) {
      save[0] = sigmoid(share[0]);
      save[1] = save[0] * previous[0];
    } else {
      save[2] = tanh(share[0]);
      next[0] = mul_add(save[0], save[2] - previous[0], previous[0]);
    }
  }

  template <int P, class V>
  RNNCELLS_INLINE static void backward(const V* save, const V* previous, const V*,
                                       V operand_gradient, V* state_gradient, V* share_gradient) {
    const V f = save[0], n = save[2];
    if constexpr (P == 1) {
      const V dh = state_gradient[0];
      share_gradient[1] = dh * f * tanh_slope(n);
      share_gradient[0] = dh * (n - previous[0]);  // not yet through the sigmoid: phase 0 does it
      state_gradient[0] = dh * (V(1) - f);
    } else {
      share_gradient[0] =
          mul_add(operand_gradient, previous[0], share_gradient[0]) * sigmoid_slope(f);
      state_gradient[0] = mul_add(operand_gradient, f, state_gradient[0]);
    }
  }
};

}  // namespace rnncells
