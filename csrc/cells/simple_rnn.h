// SimpleRNN (Elman 1990): h' = f(W_ih x + b_ih + W_hh h + b_hh), f = tanh or ReLU, or, open, what
// is chosen.
#pragma once

#include "cells/activations.h"
#include "cells/cell.h"

namespace rnncells {

struct SimpleRnnBase : UsualCell {
  static constexpr int gates = 1, states = 1, saved = 0;
  static constexpr bool output_slope = true;
  static constexpr Phase phase(int) { return one_product(gates, saved); }
};

struct RnnTanh : SimpleRnnBase {
  static constexpr const char* name = "rnn_tanh";

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const V* share, const V*, V* next, V*) {
    next[0] = tanh(share[0]);
  }

  template <int P, class V>
  RNNCELLS_INLINE static void backward(const V*, const V*, const V* next, V, V* state_gradient,
                                       V* share_gradient) {
    share_gradient[0] = state_gradient[0] * tanh_slope(next[0]);
    state_gradient[0] = V(0);
  }
};

struct RnnRelu : SimpleRnnBase {
  static constexpr const char* name = "rnn_relu";

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const V* share, const V*, V* next, V*) {
    next[0] = relu(share[0]);
  }

  template <int P, class V>
  RNNCELLS_INLINE static void backward(const V*, const V*, const V* next, V, V* state_gradient,
                                       V* share_gradient) {
    // As in torch: a NaN output stops the gradient no more than a positive one does.
    share_gradient[0] = select_less(V(0), next[0], state_gradient[0],
                                    select_less(next[0], V(1), V(0), state_gradient[0]));
    state_gradient[0] = V(0);
  }
};

struct RnnOpen : UsualCell {
  static constexpr const char* name = "rnn_open";
  static constexpr int gates = 1, states = 1, saved = 1;
  static constexpr bool open = true, row_statistics = true;
  static constexpr Phase phase(int) { return one_product(gates, saved); }

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const Terms<V>& terms, const V* share, const V*, V* next,
                                      V* save) {
    next[0] = terms.activations.candidate(share[0]);
    save[0] = share[0];
  }

  template <int P, class V>
  RNNCELLS_INLINE static void backward(const Terms<V>& terms, const V* save, const V*, const V*, V,
                                       V* state_gradient, V* share_gradient) {
    const V h = terms.activations.candidate(save[0]);
    share_gradient[0] = state_gradient[0] * terms.activations.candidate_slope(save[0], h);
    state_gradient[0] = V(0);
  }
};

}  // namespace rnncells
