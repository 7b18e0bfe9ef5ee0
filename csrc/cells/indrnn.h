// IndRNN (Li, Li, Cook, Zhu and Gao 2018): h' = f(W_ih x + b_ih + u * h + b_hh), f = ReLU, or what
// is chosen. W_hh is the vector u [H]: no unit sees another, and there is no recurrent product.
#pragma once

#include "cells/activations.h"
#include "cells/cell.h"

namespace rnncells {

struct IndRnn : UsualCell {
  static constexpr const char* name = "indrnn";
  static constexpr int gates = 1, states = 1, saved = 1, unit_parameters = 1;
  static constexpr bool direct_hidden = true, open = true;
  static constexpr ActivationChoice own_activations = {Activation::relu, Activation::sigmoid};
  static constexpr Phase phase(int) { return {{0, 1}, {0, 1}, {1, 0}, {0, 1}, -1, {0}}; }
  static constexpr UnitParameter parameter(int) { return {0, 0, false}; }

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const Terms<V>& terms, const V* share, const V* previous,
                                      V* next, V* save) {
    save[0] = mul_add(terms.parameter[0], previous[0], share[0]);
    next[0] = terms.activations.candidate(save[0]);
  }

  template <int P, class V>
  RNNCELLS_INLINE static void backward(const Terms<V>& terms, const V* save, const V*, const V*, V,
                                       V* state_gradient, V* share_gradient) {
    const V h = terms.activations.candidate(save[0]);
    share_gradient[0] = state_gradient[0] * terms.activations.candidate_slope(save[0], h);
    state_gradient[0] = share_gradient[0] * terms.parameter[0];
  }
};

}  // namespace rnncells
