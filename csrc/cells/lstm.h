// LSTM (Hochreiter and Schmidhuber 1997) with a forget gate (Gers, Schmidhuber and Cummins 2000):
// c' = f * c + i * g, h' = o * tanh(c'); i, f, o = sigmoid, g = tanh of their shares.
// Open, it has peepholes (Gers and Schmidhuber 2000): i and f also see p * c, o sees p * c'.
// Coupled (Greff et al. 2017, CIFG), it has no input gate: i = 1 - f.
#pragma once

#include "cells/activations.h"
#include "cells/cell.h"

namespace rnncells {

template <bool Coupled>
struct LstmBase : UsualCell {
  static constexpr int gates = Coupled ? 3 : 4, states = 2, saved = gates;
  static constexpr Phase phase(int) { return one_product(gates, saved); }
  static constexpr int f = gates - 3, g = gates - 2, o = gates - 1;  // shares; i is the first
  // Of i and f on c, and of o on c'.
  static constexpr UnitParameter parameter(int k) {
    return k == gates - 2 ? UnitParameter{o, 1, true} : UnitParameter{k, 1, false};
  }

  // `peephole`: one value for i (unless coupled), f and o; or null.
  template <class A, class V>
  RNNCELLS_INLINE static void step(const A& a, const V* peephole, const V* share, const V* previous,
                                   V* next, V* save) {
    V sum[gates];
    RNNCELLS_UNROLL
    for (int k = 0; k < gates; ++k) sum[k] = share[k];
    if (peephole != nullptr) {
      RNNCELLS_UNROLL
      for (int k = 0; k <= f; ++k) sum[k] = mul_add(peephole[k], previous[1], sum[k]);
    }
    const V forget = a.gate(sum[f]), in = Coupled ? V(1) - forget : a.gate(sum[0]);
    const V fresh = a.candidate(sum[g]);
    const V c = mul_add(forget, previous[1], in * fresh);
    if (peephole != nullptr) sum[o] = mul_add(peephole[f + 1], c, sum[o]);
    const V out = a.gate(sum[o]);
    next[0] = out * a.candidate(c);
    next[1] = c;
    if (!Coupled) save[0] = a.keep(sum[0], in);
    save[f] = a.keep(sum[f], forget);
    save[g] = a.keep(sum[g], fresh);
    save[o] = a.keep(sum[o], out);
  }

  template <class A, class V>
  RNNCELLS_INLINE static void adjoint(const A& a, const V* peephole, const V* save,
                                      const V* previous, const V* next, V* state_gradient,
                                      V* share_gradient) {
    const V forget = a.kept_gate(save[f]), fresh = a.kept_candidate(save[g]);
    const V in = Coupled ? V(1) - forget : a.kept_gate(save[0]), out = a.kept_gate(save[o]);
    const V squashed = a.candidate(next[1]);
    const V dh = state_gradient[0];
    const V d_out = dh * squashed * a.gate_slope(save[o], out);
    V dc = mul_add(dh * out, a.candidate_slope(next[1], squashed), state_gradient[1]);
    if (peephole != nullptr) dc = mul_add(peephole[f + 1], d_out, dc);
    if (Coupled) {
      share_gradient[f] = dc * (previous[1] - fresh) * a.gate_slope(save[f], forget);
    } else {
      share_gradient[0] = dc * fresh * a.gate_slope(save[0], in);
      share_gradient[f] = dc * previous[1] * a.gate_slope(save[f], forget);
    }
    share_gradient[g] = dc * in * a.candidate_slope(save[g], fresh);
    share_gradient[o] = d_out;
    state_gradient[0] = V(0);
    state_gradient[1] = dc * forget;
    if (peephole != nullptr) {
      RNNCELLS_UNROLL
      for (int k = 0; k <= f; ++k) {
        state_gradient[1] = mul_add(peephole[k], share_gradient[k], state_gradient[1]);
      }
    }
  }
};

struct Lstm : LstmBase<false> {
  static constexpr const char* name = "lstm";

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const V* share, const V* previous, V* next, V* save) {
    step(OwnActivations(), static_cast<const V*>(nullptr), share, previous, next, save);
  }
  template <int P, class V>
  RNNCELLS_INLINE static void backward(const V* save, const V* previous, const V* next, V,
                                       V* state_gradient, V* share_gradient) {
    adjoint(OwnActivations(), static_cast<const V*>(nullptr), save, previous, next, state_gradient,
            share_gradient);
  }
};

template <bool Coupled>
struct LstmOpen : LstmBase<Coupled> {
  static constexpr const char* name = Coupled ? "lstm_coupled" : "lstm_open";
  static constexpr bool open = true, row_statistics = true;
  static constexpr int unit_parameters = Coupled ? 2 : 3;

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const Terms<V>& terms, const V* share, const V* previous,
                                      V* next, V* save) {
    LstmBase<Coupled>::step(terms.activations, terms.parameter, share, previous, next, save);
  }
  template <int P, class V>
  RNNCELLS_INLINE static void backward(const Terms<V>& terms, const V* save, const V* previous,
                                       const V* next, V, V* state_gradient, V* share_gradient) {
    LstmBase<Coupled>::adjoint(terms.activations, terms.parameter, save, previous, next,
                               state_gradient, share_gradient);
  }
};

// With layer norm on c' before the output activation (Ba, Kiros and Hinton 2016, (22)): its second
// phase has a row to normalise in place of a product.
struct LstmNormed : UsualCell {
  static constexpr const char* name = "lstm_normed";
  static constexpr int gates = 4, states = 2, phases = 2, saved = 5;
  static constexpr bool open = true, row_statistics = true, middle = true;
  // Saved: the arguments of i, f, g and o, and c'.
  static constexpr Phase phase(int p) {
    return p == 0 ? Phase{{0, 4}, {0, 4}, {0, 4}, {0, 5}, -1, {0, 1, 2, 3}}
                  : Phase{{4, 1}, {4, 0}, {5, 0}, {5, 0}, 4, {0}};
  }

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const Terms<V>& terms, const V* share, const V* previous,
                                      V* next, V* save) {
    const ChosenActivations& a = terms.activations;
    if constexpr (P == 0) {
      RNNCELLS_UNROLL
      for (int k = 0; k < 4; ++k) save[k] = share[k];
      save[4] = mul_add(a.gate(share[1]), previous[1], a.gate(share[0]) * a.candidate(share[2]));
    } else {
      next[0] = a.gate(save[3]) * a.candidate(share[0]);
      next[1] = save[4];
    }
  }

  template <int P, class V>
  RNNCELLS_INLINE static void backward(const Terms<V>& terms, const V* save, const V* previous,
                                       const V*, V operand, V* state_gradient, V* share_gradient) {
    const ChosenActivations& a = terms.activations;
    if constexpr (P == 1) {
      const V squashed = a.candidate(operand), out = a.gate(save[3]), dh = state_gradient[0];
      share_gradient[3] = dh * squashed * a.gate_slope(save[3], out);
      share_gradient[4] = dh * out * a.candidate_slope(operand, squashed);
      state_gradient[0] = V(0);
    } else {
      const V in = a.gate(save[0]), forget = a.gate(save[1]), fresh = a.candidate(save[2]);
      const V dc = operand + state_gradient[1];
      share_gradient[0] = dc * fresh * a.gate_slope(save[0], in);
      share_gradient[1] = dc * previous[1] * a.gate_slope(save[1], forget);
      share_gradient[2] = dc * in * a.candidate_slope(save[2], fresh);
      state_gradient[1] = dc * forget;
    }
  }
};

}  // namespace rnncells
