// GRU (Cho et al. 2014) in the form of torch, cuDNN and Keras's reset_after: the reset gate acts on
// the recurrent product. r, z = sigmoid of their shares; n = tanh(W_in x + b_in + r * (W_hn h +
// b_hn)); h' = (1 - z) * n + z * h. And in the paper's form, reset before the product: n =
// tanh(W_in x + b_in + W_hn (r * h) + b_hn), which takes two phases.
#pragma once

#include "cells/activations.h"
#include "cells/cell.h"

namespace rnncells {

struct GruBase : UsualCell {
  static constexpr int gates = 3, states = 1, saved = 4;
  static constexpr bool direct_hidden = true;
};

struct GruResetAfter : GruBase {
  // Shares: the candidate's input share, r, z, the candidate's recurrent share.
  static constexpr Phase phase(int) { return {{0, 4}, {0, 3}, {1, 3}, {0, 4}, -1, {2, 0, 1, 2}}; }

  template <class A, class V>
  RNNCELLS_INLINE static void step(const A& a, const V* share, const V* previous, V* next,
                                   V* save) {
    const V r = a.gate(share[1]), z = a.gate(share[2]);
    const V argument = mul_add(r, share[3], share[0]), n = a.candidate(argument);
    next[0] = mul_add(z, previous[0] - n, n);
    save[0] = a.keep(argument, n);
    save[1] = a.keep(share[1], r);
    save[2] = a.keep(share[2], z);
    save[3] = share[3];
  }

  template <class A, class V>
  RNNCELLS_INLINE static void adjoint(const A& a, const V* save, const V* previous,
                                      V* state_gradient, V* share_gradient) {
    const V n = a.kept_candidate(save[0]), r = a.kept_gate(save[1]), z = a.kept_gate(save[2]);
    const V recurrent = save[3], dh = state_gradient[0];
    const V dn = dh * (V(1) - z) * a.candidate_slope(save[0], n);
    share_gradient[0] = dn;
    share_gradient[1] = dn * recurrent * a.gate_slope(save[1], r);
    share_gradient[2] = dh * (previous[0] - n) * a.gate_slope(save[2], z);
    share_gradient[3] = dn * r;
    state_gradient[0] = dh * z;
  }
};

struct Gru : GruResetAfter {
  static constexpr const char* name = "gru";

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const V* share, const V* previous, V* next, V* save) {
    step(OwnActivations(), share, previous, next, save);
  }
  template <int P, class V>
  RNNCELLS_INLINE static void backward(const V* save, const V* previous, const V*, V,
                                       V* state_gradient, V* share_gradient) {
    adjoint(OwnActivations(), save, previous, state_gradient, share_gradient);
  }
};

struct GruOpen : GruResetAfter {
  static constexpr const char* name = "gru_open";
  static constexpr bool open = true, row_statistics = true;

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const Terms<V>& terms, const V* share, const V* previous,
                                      V* next, V* save) {
    step(terms.activations, share, previous, next, save);
  }
  template <int P, class V>
  RNNCELLS_INLINE static void backward(const Terms<V>& terms, const V* save, const V* previous,
                                       const V*, V, V* state_gradient, V* share_gradient) {
    adjoint(terms.activations, save, previous, state_gradient, share_gradient);
  }
};

struct GruResetBefore : GruBase {
  static constexpr const char* name = "gru_reset_before";
  static constexpr bool open = true;
  static constexpr int phases = 2;
  // Shares: r, z; the candidate. Saved: r, z, the operand r * h, n; all but the operand as kept.
  static constexpr Phase phase(int p) {
    return p == 0 ? Phase{{0, 2}, {0, 2}, {0, 2}, {0, 3}, -1, {0, 1}}
                  : Phase{{2, 1}, {2, 1}, {2, 1}, {3, 1}, 2, {2}};
  }

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const Terms<V>& terms, const V* share, const V* previous,
                                      V* next, V* save) {
    const ChosenActivations& a = terms.activations;
    if constexpr (P == 0) {
      save[0] = share[0];
      save[1] = share[1];
      save[2] = a.gate(share[0]) * previous[0];
    } else {
      const V z = a.gate(save[1]), n = a.candidate(share[0]);
      save[3] = share[0];
      next[0] = mul_add(z, previous[0] - n, n);
    }
  }

  template <int P, class V>
  RNNCELLS_INLINE static void backward(const Terms<V>& terms, const V* save, const V* previous,
                                       const V*, V operand_gradient, V* state_gradient,
                                       V* share_gradient) {
    const ChosenActivations& a = terms.activations;
    if constexpr (P == 1) {
      const V z = a.gate(save[1]), n = a.candidate(save[3]), dh = state_gradient[0];
      share_gradient[2] = dh * (V(1) - z) * a.candidate_slope(save[3], n);
      share_gradient[1] = dh * (previous[0] - n) * a.gate_slope(save[1], z);
      share_gradient[0] = V(0);  // phase 0 fills it
      state_gradient[0] = dh * z;
    } else {
      const V r = a.gate(save[0]);
      share_gradient[0] = operand_gradient * previous[0] * a.gate_slope(save[0], r);
      state_gradient[0] = mul_add(operand_gradient, r, state_gradient[0]);
    }
  }
};

// With layer norm on what the candidate's activation takes: its second phase has a row to normalise
// in place of a product.
struct GruNormed : GruBase {
  static constexpr const char* name = "gru_normed";
  static constexpr int phases = 2;
  static constexpr bool open = true, row_statistics = true, middle = true;
  // Saved: the arguments of r and z, the candidate's recurrent share, and what is normalised.
  static constexpr Phase phase(int p) {
    return p == 0 ? Phase{{0, 4}, {0, 3}, {1, 3}, {0, 4}, -1, {2, 0, 1, 2}}
                  : Phase{{4, 1}, {4, 0}, {5, 0}, {4, 0}, 3, {2}};
  }

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const Terms<V>& terms, const V* share, const V* previous,
                                      V* next, V* save) {
    const ChosenActivations& a = terms.activations;
    if constexpr (P == 0) {
      RNNCELLS_UNROLL
      for (int k = 0; k < 3; ++k) save[k] = share[k + 1];
      save[3] = mul_add(a.gate(share[1]), share[3], share[0]);
    } else {
      const V n = a.candidate(share[0]);
      next[0] = mul_add(a.gate(save[1]), previous[0] - n, n);
    }
  }

  template <int P, class V>
  RNNCELLS_INLINE static void backward(const Terms<V>& terms, const V* save, const V* previous,
                                       const V*, V operand, V* state_gradient, V* share_gradient) {
    const ChosenActivations& a = terms.activations;
    if constexpr (P == 1) {
      const V n = a.candidate(operand), z = a.gate(save[1]), dh = state_gradient[0];
      share_gradient[2] = dh * (previous[0] - n) * a.gate_slope(save[1], z);
      share_gradient[4] = dh * (V(1) - z) * a.candidate_slope(operand, n);
      state_gradient[0] = dh * z;
    } else {
      const V r = a.gate(save[0]);
      share_gradient[0] = operand;
      share_gradient[1] = operand * save[2] * a.gate_slope(save[0], r);
      share_gradient[3] = operand * r;
    }
  }
};

}  // namespace rnncells
