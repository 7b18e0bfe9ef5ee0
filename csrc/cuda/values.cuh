// The value types that cells run on in a CUDA thread, and what the kernels know of a cell when
// compiling.
#pragma once

#include "cells/registry.h"
#include "cuda/primitives.cuh"

namespace rnncells {

// A float whose products and sums are fused where the cell says so, and nowhere else, and whose
// division is the hardware's reciprocal and a product. A cell never divides by more than 2^126 but
// where the quotient is to vanish.
struct Single {
  float v;
  Single() = default;
  template <class N>
  RNNCELLS_DEVICE explicit Single(N number) : v(static_cast<float>(number)) {}
};
template <>
struct ScalarOf<Single> {
  using type = float;
};

RNNCELLS_DEVICE Single operator+(Single a, Single b) { return Single(a.v + b.v); }
RNNCELLS_DEVICE Single operator-(Single a, Single b) { return Single(a.v - b.v); }
RNNCELLS_DEVICE Single operator*(Single a, Single b) { return Single(a.v * b.v); }
RNNCELLS_DEVICE Single operator/(Single a, Single b) { return Single(gpu::quick_divide(a.v, b.v)); }
RNNCELLS_DEVICE Single mul_add(Single a, Single b, Single c) {
  return Single(gpu::fused_multiply_add(a.v, b.v, c.v));
}
RNNCELLS_DEVICE Single neg_mul_add(Single a, Single b, Single c) {
  return Single(gpu::fused_multiply_add(-a.v, b.v, c.v));
}
RNNCELLS_DEVICE Single select_less(Single a, Single b, Single yes, Single no) {
  return a.v < b.v ? yes : no;
}
RNNCELLS_DEVICE Single at_most(Single x, Single limit) { return limit.v < x.v ? limit : x; }
RNNCELLS_DEVICE Single at_least(Single x, Single limit) { return x.v < limit.v ? limit : x; }
RNNCELLS_DEVICE Single power_of_two(Single shifted) { return Single(power_of_two(shifted.v)); }

namespace gpu {

RNNCELLS_DEVICE float number(Single value) { return value.v; }
RNNCELLS_DEVICE double number(double value) { return value; }

// What a cell computes values stored as T in.
template <class T>
struct ValueOf {
  using type = Single;
};
template <>
struct ValueOf<double> {
  using type = double;
};
template <class T>
using Value = typename ValueOf<T>::type;

template <class T, class N>
RNNCELLS_DEVICE T stored(N number) {
  T result;
  narrow(number, result);
  return result;
}

template <class Cell, int P>
struct CellPhase {
  static constexpr Phase phase = Cell::phase(P);
  static constexpr int shares = phase.shares.count;
  // Shares counted from the phase's first.
  static constexpr int input_first = phase.input.first - phase.shares.first;
  static constexpr int inputs = phase.input.count;
  static constexpr int recurrent_first = phase.recurrent.first - phase.shares.first;
  static constexpr int recurrents = phase.recurrent.count;
  static constexpr int gate(int share) { return phase.gate_of_share[share]; }
  // The gate of recurrent share r.
  RNNCELLS_DEVICE static int recurrent_gate(int r) {
    int result = gate(recurrent_first);
    RNNCELLS_UNROLL
    for (int i = 1; i < recurrents; ++i) {
      if (r == i) result = gate(recurrent_first + i);
    }
    return result;
  }
};

// Whether some gate keeps the two products apart, so that their gradients differ.
template <class Cell>
constexpr bool has_separate_shares() {
  bool separate = false;
  for (int p = 0; p < Cell::phases; ++p) {
    const Phase phase = Cell::phase(p);
    separate = separate || phase.input.first != phase.recurrent.first ||
               phase.input.count != phase.recurrent.count;
  }
  return separate;
}

template <int N>
constexpr int at_least_one() {
  return N > 0 ? N : 1;
}

}  // namespace gpu
}  // namespace rnncells
