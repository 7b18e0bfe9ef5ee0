// GRU (Cho et al. 2014) in the form of torch, cuDNN and Keras's reset_after: the reset gate acts on
// the recurrent product. r, z = sigmoid of their shares; n = tanh(W_in x + b_in + r * (W_hn h +
// b_hn)); h' = (1 - z) * n + z * h.
#pragma once

#include "cells/activations.h"
#include "cells/cell.h"

namespace rnncells {

struct Gru {
  static constexpr const char* name = "gru";
  static constexpr int gates = 3, states = 1, phases = 1, saved = 4;
  static constexpr int unit_parameters = 0;
  static constexpr bool row_statistics = false, direct_hidden = true;
  static constexpr bool output_slope = false;
  // Shares: the candidate's input share, r, z, the candidate's recurrent share.
  static constexpr Phase phase(int) { return {{0, 4}, {0, 3}, {1, 3}, {0, 4}, -1, {2, 0, 1, 2}}; }

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const V* share, const V* previous, V* next, V* save) {
    const V r = sigmoid(share[1]), z = sigmoid(share[2]);
    const V n = tanh(mul_add(r, share[3], share[0]));
    next[0] = mul_add(z, previous[0] - n, n);
    save[0] = n;
    save[1] = r;
    save[2] = z;
    save[3] = share[3];
  }

  template <int P, class V>
  RNNCELLS_INLINE static void backward(const V* save, const V* previous, const V*, V,
                                       V* state_gradient, V* share_gradient) {
    const V n = save[0], r = save[1], z = save[2], recurrent = save[3];
    const V dh = state_gradient[0];
    const V dn = dh * (V(1) - z) * tanh_slope(n);
    share_gradient[0] = dn;
    share_gradient[1] = dn * recurrent * sigmoid_slope(r);
    share_gradient[2] = dh * (previous[0] - n) * sigmoid_slope(z);
    share_gradient[3] = dn * r;
    state_gradient[0] = dh * z;
  }
};

}  // namespace rnncells
