// sLSTM (Beck et al. 2024, xLSTM), with one head: exponential input gate, and m, which keeps the
// exponentials from overflowing. m' = max(log f + m, i~), i = exp(i~ - m'), f = exp(log f + m -
// m'), c' = f * c + i * z, n' = f * n + i, h' = o * c' / n'; log f = log sigmoid(f~), z = tanh(z~),
// o = sigmoid(o~). Where n is 0, nothing was memorised yet: f = 0 and m' = i~.
#pragma once

#include "cells/activations.h"
#include "cells/cell.h"

namespace rnncells {

struct Slstm : UsualCell {
  static constexpr const char* name = "slstm";
  static constexpr int gates = 4, states = 4, saved = 4;
  // Shares: i~, f~, z~, o~. Saved: i~ - (log f + m), of which the larger one is m'; the slope of
  // log sigmoid at f~; z; o.
  static constexpr Phase phase(int) { return one_product(gates, saved); }

  // One of i and f is 1, and the other exp(-|lead|).
  template <class V>
  struct Gates {
    V i, f;
    RNNCELLS_INLINE explicit Gates(V lead) {
      const V less = exp(V(0) - magnitude(lead)), one = unless_nan(less, V(1));
      i = select_less(lead, V(0), less, one);
      f = select_less(V(0), lead, less, one);
    }
  };
  // `value`; or NaN where a number in [0, 1] is none.
  template <class V>
  RNNCELLS_INLINE static V unless_nan(V number, V value) {
    return select_less(number, V(2), value, number);
  }

  template <int P, class V>
  RNNCELLS_INLINE static void forward(const V* share, const V* previous, V* next, V* save) {
    const V x = share[1], t = exp(V(0) - magnitude(x));
    const V kept = at_most(x, V(0)) - log1p(t) + previous[3];
    // exp(-1024) is 0; and a NaN flows.
    const V n = previous[2], alone = V(1024) + (share[0] - share[0]);
    save[0] = select_less(V(0), magnitude(n), share[0] - kept, alone);
    save[1] = select_less(x, V(0), V(1), t) / (V(1) + t);
    save[2] = tanh(share[2]);
    save[3] = sigmoid(share[3]);
    const Gates<V> gate(save[0]);
    next[1] = mul_add(gate.f, previous[1], gate.i * save[2]);
    next[2] = mul_add(gate.f, n, gate.i);
    next[3] = unless_nan(gate.i * gate.f, select_less(save[0], V(0), kept, share[0]));
    next[0] = save[3] * next[1] / next[2];
  }

  template <int P, class V>
  RNNCELLS_INLINE static void backward(const V* save, const V* previous, const V* next, V,
                                       V* state_gradient, V* share_gradient) {
    const Gates<V> gate(save[0]);
    const V z = save[2], o = save[3], dh = state_gradient[0], one_over = V(1) / next[2];
    const V mean = next[1] * one_over, scaled = dh * o * one_over;
    const V dc = state_gradient[1] + scaled, dn = neg_mul_add(scaled, mean, state_gradient[2]);
    const V by_input = gate.i * mul_add(dc, z, dn);
    const V by_memory = gate.f * mul_add(dc, previous[1], dn * previous[2]);
    // m' is the larger one's, and of two alike half of each, as in torch.
    const V half = V(0.5f);
    const V memory = select_less(save[0], V(0), V(1), select_less(V(0), save[0], V(0), half));
    const V input = V(1) - memory, dm = state_gradient[3];
    const V of_memory = input * by_memory + memory * (dm - by_input);
    share_gradient[0] = memory * by_input + input * (dm - by_memory);
    share_gradient[1] = of_memory * save[1];
    share_gradient[2] = dc * gate.i * tanh_slope(z);
    share_gradient[3] = dh * mean * sigmoid_slope(o);
    state_gradient[0] = V(0);
    state_gradient[1] = dc * gate.f;
    state_gradient[2] = dn * gate.f;
    state_gradient[3] = of_memory;
  }
};

}  // namespace rnncells
