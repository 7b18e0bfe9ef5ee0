// Sigmoid, tanh, ReLU, exp and log1p for scalars and for vectors of any width.
//
// A value type V is float, double, or a class with the same arithmetic and with the primitives
// `mul_add`, `neg_mul_add`, `select_less`, `at_least`, `at_most` and `power_of_two`, found by
// its namespace. V(c) makes a constant. Where a product and a sum are fused is written
// out, so that every instance of a cell (training, inference, any tile) computes the same bits.
// Accuracy: 2 to 3 units in the last place. NaN flows; infinities give the limits, exactly.
#pragma once

#include <cstdint>
#include <cstring>

#include "cells/activation.h"
#include "cells/host_device.h"

namespace rnncells {

// The scalar behind a value type; vectors specialise it.
template <class V>
struct ScalarOf {
  using type = V;
};

// exp(r) = 1 + r + r^2 q(r) for |r| <= ln(2)/2; q interpolates at Chebyshev nodes. Relative error
// of exp(r) - 1: 2.4e-8 in float, 5.5e-19 in double.
template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr int terms = 5;
  // Adding it rounds to an integer, which then sits in the lowest bits of the sum.
  static constexpr float rounder = 12582912.0f;
  // ln(2) in two parts; the first has enough trailing zeros for an exact product with the integer.
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float log2_e = 1.44269504f;
  // Beyond these exp is 0 or infinite, and 2^n still has a representation (0 and infinity
  // included).
  static constexpr float lowest = -87.9f, highest = 88.9f;
  RNNCELLS_INLINE static constexpr float q(int i) {
    constexpr float values[terms] = {0.5f, 0.16666576846f, 0.041666554438f, 0.0083632029716f,
                                     0.0013926213466f};
    return values[i];
  }
};

template <>
struct ExpConstants<double> {
  static constexpr int terms = 11;
  static constexpr double rounder = 6755399441055744.0;
  static constexpr double ln2_high = 0.693147180369123816490, ln2_low = 1.90821492927058770002e-10;
  static constexpr double log2_e = 1.4426950408889634074;
  static constexpr double lowest = -708.7, highest = 709.9;
  RNNCELLS_INLINE static constexpr double q(int i) {
    constexpr double values[terms] = {0.5,
                                      0.16666666666666671008,
                                      0.041666666666666669767,
                                      0.0083333333333261120526,
                                      0.0013888888888883731828,
                                      0.00019841269874901259234,
                                      0.000024801587325605322782,
                                      2.7557255297969644392e-6,
                                      2.7557273570102139673e-7,
                                      2.5105259538448493419e-8,
                                      2.0914717341716375952e-9};
    return values[i];
  }
};

// log(1 + x) = 2 s (1 + s^2 q(s^2)) for s = x / (2 + x), where x is from 0 to 1; q interpolates at
// Chebyshev nodes. Relative error: 3.9e-10 in float, 1.4e-19 in double.
template <class T>
struct LogConstants;

template <>
struct LogConstants<float> {
  static constexpr int terms = 5;
  RNNCELLS_INLINE static constexpr float q(int i) {
    constexpr float values[terms] = {0.333333336603f, 0.199998531660f, 0.142961789972f,
                                     0.108532879004f, 0.116121646120f};
    return values[i];
  }
};

template <>
struct LogConstants<double> {
  static constexpr int terms = 11;
  RNNCELLS_INLINE static constexpr double q(int i) {
    constexpr double values[terms] = {
        0.33333333333333333443,  0.19999999999999761253,  0.14285714285800049646,
        0.11111111099118385279,  0.090909099489813571913, 0.076922719824302746434,
        0.066675893157246279183, 0.0586713953065159873,   0.05422589197440007411,
        0.037460718977753836504, 0.078152889004614252231};
    return values[i];
  }
};

// a * b + c and c - a * b, fused where the machine can
RNNCELLS_INLINE float mul_add(float a, float b, float c) { return a * b + c; }
RNNCELLS_INLINE double mul_add(double a, double b, double c) { return a * b + c; }
RNNCELLS_INLINE float neg_mul_add(float a, float b, float c) { return c - a * b; }
RNNCELLS_INLINE double neg_mul_add(double a, double b, double c) { return c - a * b; }

// a < b ? yes : no
RNNCELLS_INLINE float select_less(float a, float b, float yes, float no) {
  return a < b ? yes : no;
}
RNNCELLS_INLINE double select_less(double a, double b, double yes, double no) {
  return a < b ? yes : no;
}

// The value, or the limit that it passes; a NaN stays.
RNNCELLS_INLINE float at_most(float x, float limit) { return limit < x ? limit : x; }
RNNCELLS_INLINE double at_most(double x, double limit) { return limit < x ? limit : x; }
RNNCELLS_INLINE float at_least(float x, float limit) { return x < limit ? limit : x; }
RNNCELLS_INLINE double at_least(double x, double limit) { return x < limit ? limit : x; }

// 2^n from `rounder + n`: the integer is moved from the lowest bits to the exponent's place.
RNNCELLS_INLINE float power_of_two(float shifted) {
  uint32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + 0x3f800000u;
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}
RNNCELLS_INLINE double power_of_two(double shifted) {
  uint64_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 52) + 0x3ff0000000000000ull;
  double result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

// exp(x) = scale * (1 + small): the parts from which exp and exp - 1 are both had without loss.
template <class V>
struct ExpParts {
  V scale, small;
};

template <class V>
RNNCELLS_INLINE ExpParts<V> exp_parts(V x) {
  using C = ExpConstants<typename ScalarOf<V>::type>;
  const V shifted = mul_add(x, V(C::log2_e), V(C::rounder));
  const V n = shifted - V(C::rounder);
  const V r = neg_mul_add(n, V(C::ln2_low), neg_mul_add(n, V(C::ln2_high), x));
  V q = V(C::q(C::terms - 1));
  RNNCELLS_UNROLL
  for (int i = C::terms - 2; i >= 0; --i) q = mul_add(q, r, V(C::q(i)));
  return {power_of_two(shifted), mul_add(r * r, q, r)};
}

// exp(x) for x <= 0; what lies below the smallest normal number is 0.
template <class V>
RNNCELLS_INLINE V exp(V x) {
  const ExpParts<V> e = exp_parts(at_least(x, V(ExpConstants<typename ScalarOf<V>::type>::lowest)));
  return mul_add(e.scale, e.small, e.scale);
}

// log(1 + x) for 0 <= x <= 1
template <class V>
RNNCELLS_INLINE V log1p(V x) {
  using C = LogConstants<typename ScalarOf<V>::type>;
  const V s = x / (x + V(2)), square = s * s;
  V q = V(C::q(C::terms - 1));
  RNNCELLS_UNROLL
  for (int i = C::terms - 2; i >= 0; --i) q = mul_add(q, square, V(C::q(i)));
  const V twice = s + s;
  return mul_add(twice * square, q, twice);
}

// 1 / (1 + exp(-x))
template <class V>
RNNCELLS_INLINE V sigmoid(V x) {
  using C = ExpConstants<typename ScalarOf<V>::type>;
  const V y = at_least(at_most(V(0) - x, V(C::highest)), V(C::lowest));
  const ExpParts<V> e = exp_parts(y);
  return V(1) / mul_add(e.scale, V(1) + e.small, V(1));
}

// (exp(2x) - 1) / (exp(2x) + 1), by way of exp(2x) - 1 so that small x keep all their digits
template <class V>
RNNCELLS_INLINE V tanh(V x) {
  // tanh is 1 to the last bit of a double from 19.1 on
  const V y = at_least(at_most(x + x, V(40)), V(-40));
  const ExpParts<V> e = exp_parts(y);
  const V expm1 = mul_add(e.scale, e.small, e.scale - V(1));
  return expm1 / (expm1 + V(2));
}

template <class V>
RNNCELLS_INLINE V relu(V x) {
  return select_less(x, V(0), V(0), x);
}

// The derivatives, from the activated value.
template <class V>
RNNCELLS_INLINE V sigmoid_slope(V y) {
  return neg_mul_add(y, y, y);
}
template <class V>
RNNCELLS_INLINE V tanh_slope(V y) {
  return neg_mul_add(y, y, V(1));
}

template <class V>
RNNCELLS_INLINE V magnitude(V x) {
  return select_less(x, V(0), V(0) - x, x);
}

// Out of line, as is the next: inlined wherever a cell has one, the engine would take twice as long
// to compile.
template <class V>
RNNCELLS_ONE_COPY V activate(Activation activation, V x) {
  using T = typename ScalarOf<V>::type;
  switch (activation) {
    case Activation::tanh:
      return tanh(x);
    case Activation::relu:
      return relu(x);
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::hard_sigmoid:  // x / 6 + 1/2, from 0 to 1
      return at_least(at_most(mul_add(x, V(T(1) / T(6)), V(T(0.5))), V(1)), V(0));
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::softsign:
      return x / (V(1) + magnitude(x));
    default:
      return x;
  }
}

// Its derivative, from the argument and the value.
template <class V>
RNNCELLS_ONE_COPY V activation_slope(Activation activation, V x, V y) {
  using T = typename ScalarOf<V>::type;
  switch (activation) {
    case Activation::tanh:
      return tanh_slope(y);
    case Activation::relu:  // as in torch: a NaN stops the gradient no more than a positive value
      return select_less(V(0), y, V(1), select_less(y, V(1), V(0), V(1)));
    case Activation::sigmoid:
      return sigmoid_slope(y);
    case Activation::hard_sigmoid:
      return select_less(magnitude(x), V(3), V(T(1) / T(6)), V(0));
    case Activation::silu: {
      const V s = sigmoid(x);
      return mul_add(y, V(1) - s, s);
    }
    case Activation::softsign: {
      const V rest = V(1) - magnitude(y);
      return rest * rest;
    }
    default:
      return V(1);
  }
}

// The activations of a cell as its paper has them. BPTT keeps the activated values.
struct OwnActivations {
  template <class V>
  RNNCELLS_INLINE V gate(V x) const {
    return sigmoid(x);
  }
  template <class V>
  RNNCELLS_INLINE V candidate(V x) const {
    return tanh(x);
  }
  template <class V>
  RNNCELLS_INLINE V keep(V, V y) const {
    return y;
  }
  template <class V>
  RNNCELLS_INLINE V kept_gate(V kept) const {
    return kept;
  }
  template <class V>
  RNNCELLS_INLINE V kept_candidate(V kept) const {
    return kept;
  }
  template <class V>
  RNNCELLS_INLINE V gate_slope(V, V y) const {
    return sigmoid_slope(y);
  }
  template <class V>
  RNNCELLS_INLINE V candidate_slope(V, V y) const {
    return tanh_slope(y);
  }
};

// Others, chosen at run time. BPTT keeps the arguments, as some derivatives are not had from the
// values.
struct ChosenActivations {
  ActivationChoice choice;

  template <class V>
  RNNCELLS_INLINE V gate(V x) const {
    return activate(choice.of_gate, x);
  }
  template <class V>
  RNNCELLS_INLINE V candidate(V x) const {
    return activate(choice.of_candidate, x);
  }
  template <class V>
  RNNCELLS_INLINE V keep(V x, V) const {
    return x;
  }
  template <class V>
  RNNCELLS_INLINE V kept_gate(V kept) const {
    return gate(kept);
  }
  template <class V>
  RNNCELLS_INLINE V kept_candidate(V kept) const {
    return candidate(kept);
  }
  template <class V>
  RNNCELLS_INLINE V gate_slope(V x, V y) const {
    return activation_slope(choice.of_gate, x, y);
  }
  template <class V>
  RNNCELLS_INLINE V candidate_slope(V x, V y) const {
    return activation_slope(choice.of_candidate, x, y);
  }
};

}  // namespace rnncells
