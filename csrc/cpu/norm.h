// Layer norm on the shares of whole rows: Norm says of which. A cell that normalises something that
// it makes itself (the LSTM's c', the GRU's candidate) has a second phase for it, whose operand is
// a row to normalise.
#pragma once

#include "cpu/layout.h"

namespace rnncells {
namespace RNNCELLS_ISA {

// The sum over a vector's lanes, halves first: fewer steps one after another than lane by lane.
template <class T>
RNNCELLS_INLINE T sum_lanes(Vec<T> v) {
  alignas(64) T lane[Vec<T>::lanes];
  v.store(lane);
  RNNCELLS_UNROLL
  for (int half = Vec<T>::lanes / 2; half > 0; half /= 2) {
    RNNCELLS_UNROLL
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

// Calls body(first, present, Index<full>()) for each vector of a row of n.
template <class T, class Body>
RNNCELLS_INLINE void for_vectors(int64_t n, const Body& body) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) body(j, lanes, Index<1>());
  if (j < n) body(j, static_cast<int>(n - j), Index<0>());
}

// Centres and scales a row in place; returns one over its standard deviation.
template <class T>
RNNCELLS_OUT_OF_LINE T normalise_row(T* row, int64_t n) {
  using V = Vec<T>;
  V sum(0), squares(0);
  for_vectors<T>(n, [&](int64_t j, int present, auto full) {
    sum = sum + load_lanes<decltype(full)::value>(row + j, present);
  });
  const T mean = sum_lanes<T>(sum) / static_cast<T>(n);
  for_vectors<T>(n, [&](int64_t j, int present, auto full) {
    constexpr bool whole = decltype(full)::value;
    V centred = load_lanes<whole>(row + j, present) - V(mean);
    store_lanes<whole>(centred, row + j, present);
    if (!whole) centred = load_lanes<whole>(row + j, present);  // nothing behind the row's end
    squares = mul_add(centred, centred, squares);
  });
  const double variance = static_cast<double>(sum_lanes<T>(squares)) / static_cast<double>(n);
  const T scale = static_cast<T>(1 / __builtin_sqrt(variance + norm_epsilon));
  for_vectors<T>(n, [&](int64_t j, int present, auto full) {
    constexpr bool whole = decltype(full)::value;
    store_lanes<whole>(load_lanes<whole>(row + j, present) * V(scale), row + j, present);
  });
  return scale;
}

// From the gradient of a normalised row to that of the row, in place.
template <class T>
RNNCELLS_OUT_OF_LINE void normalise_adjoint(T* gradient, const T* normal, T scale, int64_t n) {
  using V = Vec<T>;
  V sum(0), products(0);
  for_vectors<T>(n, [&](int64_t j, int present, auto full) {
    constexpr bool whole = decltype(full)::value;
    const V value = load_lanes<whole>(gradient + j, present);
    sum = sum + value;
    products = mul_add(value, load_lanes<whole>(normal + j, present), products);
  });
  const T mean = sum_lanes<T>(sum) / static_cast<T>(n);
  const T slope = sum_lanes<T>(products) / static_cast<T>(n);
  for_vectors<T>(n, [&](int64_t j, int present, auto full) {
    constexpr bool whole = decltype(full)::value;
    const V value = load_lanes<whole>(gradient + j, present) - V(mean);
    const V other = load_lanes<whole>(normal + j, present) * V(slope);
    store_lanes<whole>((value - other) * V(scale), gradient + j, present);
  });
}

// One direction's weights as a normed layer takes them, and what it does to rows.
template <class Cell, class S>
class NormedShares {
  using T = Compute<S>;
  using V = Vec<T>;
  static constexpr int64_t widest = panel_vectors * V::lanes;
  static constexpr int gates = Cell::gates;

 public:
  static constexpr int shares = Cell::phase(0).shares.count;

  NormedShares(const Weights<S>& w, const Sizes& size, Norm norm)
      : size_(size),
        gates_apart_(norm == Norm::gates),
        rows_(gates * size.units),
        input_(norm == Norm::none ? 0 : packed_size<T>(size.inputs, rows_)),
        recurrent_(norm == Norm::none ? 0 : packed_size<T>(size.outputs, rows_)),
        scales_(norm == Norm::none ? 0 : 4 * rows_) {
    if (!Cell::row_statistics || norm == Norm::none) return;
    pack_columns(projection_phase, projection_phase.shares, panel_vectors, rows_, w.input,
                 w.input_row_stride, w.input_column_stride, size.inputs, input_.get());
    pack_columns(projection_phase, projection_phase.shares, panel_vectors, rows_, w.recurrent,
                 w.recurrent_row_stride, w.recurrent_column_stride, size.outputs, recurrent_.get());
    for (int64_t j = 0; j < rows_; ++j) {
      scale_of_input()[j] = widen(w.norm[0][j]);
      scale_of_recurrent()[j] = widen(w.norm[1][j]);
      input_bias()[j] =
          w.input_bias == nullptr ? T(0) : widen(w.input_bias[j * w.input_bias_stride]);
      recurrent_bias()[j] =
          w.recurrent_bias == nullptr ? T(0) : widen(w.recurrent_bias[j * w.recurrent_bias_stride]);
    }
  }

  int64_t rows() const { return rows_; }
  bool gates_apart() const { return gates_apart_; }

  // Of one row: W_ih x and W_hh h, and, once normalised, one over the standard deviations.
  struct Row {
    T *input, *recurrent;              // [G*H]
    T *input_scale, *recurrent_scale;  // [G]
  };

  template <class Rows>
  void multiply(const Rows& x, int64_t x_row_stride, int64_t x_column_stride, const T* packed,
                int64_t depth, int64_t count, T* out) const {
    for (int64_t column = 0; column < rows_; column += widest) {
      const int64_t columns = smaller(widest, rows_ - column);
      const Factors<T> factors{depth, x, x_row_stride, x_column_stride, packed + column * depth};
      multiply_panel<T>(ceil_divide(columns, V::lanes), count, factors, out + column, rows_,
                        columns, false);
    }
  }
  void input_product(const T* x, int64_t row_stride, int64_t column_stride, int64_t count,
                     T* out) const {
    multiply(x, row_stride, column_stride, input_.get(), size_.inputs, count, out);
  }
  void recurrent_product(const T* h, int64_t row_stride, int64_t count, T* out) const {
    multiply(h, row_stride, 1, recurrent_.get(), size_.outputs, count, out);
  }

  // The products of a row, normalised in place.
  RNNCELLS_OUT_OF_LINE void normalise(const Row& row) const {
    const int64_t units = size_.units;
    if (gates_apart_) {
      row.input_scale[0] = normalise_row(row.input, rows_);
      row.recurrent_scale[0] = normalise_row(row.recurrent, rows_);
      return;
    }
    for (int g = 0; g < gates; ++g) {
      T *sum = row.input + g * units, *other = row.recurrent + g * units;
      for_vectors<T>(units, [&](int64_t j, int present, auto full) {
        constexpr bool whole = decltype(full)::value;
        const auto of = [&](const T* values) { return load_lanes<whole>(values + j, present); };
        V input = of(sum) + of(input_bias() + g * units);
        const V recurrent = of(other) + of(recurrent_bias() + g * units);
        if (sums(g)) {
          input = input + recurrent;
        } else {
          store_lanes<whole>(recurrent, other + j, present);
        }
        store_lanes<whole>(input, sum + j, present);
      });
      if (sums(g)) row.input_scale[g] = normalise_row(sum, units);
    }
  }

  // The shares of a vector of units from a row that was normalised.
  template <bool Full>
  RNNCELLS_INLINE void load(const Row& row, int64_t unit, int present, V* share) const {
    constexpr Phase phase = Cell::phase(0);
    RNNCELLS_UNROLL
    for (int k = 0; k < shares; ++k) {
      const int64_t at = phase.gate_of_share[k] * size_.units + unit;
      const auto of = [&](const T* values) { return load_lanes<Full>(values + at, present); };
      share[k] = V(0);
      if (gates_apart_) {
        if (has_input(k)) share[k] = mul_add(of(row.input), of(scale_of_input()), of(input_bias()));
        if (has_recurrent(k)) {
          share[k] =
              share[k] + mul_add(of(row.recurrent), of(scale_of_recurrent()), of(recurrent_bias()));
        }
      } else if (has_input(k) && has_recurrent(k)) {
        share[k] = mul_add(of(row.input), of(scale_of_input()), of(scale_of_recurrent()));
      } else {
        share[k] = has_input(k) ? of(row.input) : of(row.recurrent);
      }
    }
  }

  // From the gradients of a row's shares to those of its two products, each [shares * H], of which
  // `input` may be the shares' own; and, added to `sums` [2 * G*H], to those of scales and shifts.
  RNNCELLS_OUT_OF_LINE void adjoint(const Row& row, const T* gradient, T* input, T* recurrent,
                                    T* space, T* sums) const {
    if (gates_apart_) {
      one_side<true>(row.input, row.input_scale[0], scale_of_input(), gradient, input, space, sums);
      one_side<false>(row.recurrent, row.recurrent_scale[0], scale_of_recurrent(), gradient,
                      recurrent, space, sums + rows_);
      return;
    }
    constexpr Phase phase = Cell::phase(0);
    const int64_t units = size_.units;
    for (int k = 0; k < shares; ++k) {
      const int64_t at = phase.gate_of_share[k] * units, place = k * units;
      copy_row(gradient + place, units, recurrent + place);
      if (!(has_input(k) && has_recurrent(k))) continue;
      const T* normal = row.input + at;
      for_vectors<T>(units, [&](int64_t j, int present, auto full) {
        constexpr bool whole = decltype(full)::value;
        const auto of = [&](const T* values) { return load_lanes<whole>(values + j, present); };
        const V value = of(gradient + place);
        T *scales = sums + at + j, *shifts = scales + rows_;
        store_lanes<whole>(mul_add(value, of(normal), of(sums + at)), scales, present);
        store_lanes<whole>(of(sums + rows_ + at) + value, shifts, present);
        store_lanes<whole>(value * of(scale_of_input() + at), recurrent + place + j, present);
      });
      normalise_adjoint(recurrent + place, normal, row.input_scale[phase.gate_of_share[k]], units);
    }
  }

 private:
  static constexpr bool has_input(int k) {
    return k >= Cell::phase(0).input.first && k < Cell::phase(0).input.end();
  }
  static constexpr bool has_recurrent(int k) {
    return k >= Cell::phase(0).recurrent.first && k < Cell::phase(0).recurrent.end();
  }
  // Whether the two products of a gate meet in one share.
  static constexpr bool sums(int gate) {
    for (int k = 0; k < shares; ++k) {
      if (Cell::phase(0).gate_of_share[k] == gate && has_input(k) && has_recurrent(k)) return true;
    }
    return false;
  }

  // The row of one product: its shares' gradients, scaled and brought together by gates.
  template <bool Input>
  void one_side(const T* normal, T scale, const T* scales, const T* gradient, T* out, T* space,
                T* sums) const {
    constexpr Phase phase = Cell::phase(0);
    const int64_t units = size_.units;
    for (int k = 0; k < shares; ++k) {
      if (!(Input ? has_input(k) : has_recurrent(k))) continue;
      const int64_t at = phase.gate_of_share[k] * units, place = k * units;
      for_vectors<T>(units, [&](int64_t j, int present, auto full) {
        constexpr bool whole = decltype(full)::value;
        const auto of = [&](const T* values) { return load_lanes<whole>(values + j, present); };
        const V value = of(gradient + place);
        store_lanes<whole>(mul_add(value, of(normal + at), of(sums + at)), sums + at + j, present);
        store_lanes<whole>(value * of(scales + at), space + at + j, present);
      });
    }
    normalise_adjoint(space, normal, scale, rows_);
    for (int k = 0; k < shares; ++k) {
      if (!(Input ? has_input(k) : has_recurrent(k))) continue;
      copy_row(static_cast<const T*>(space) + phase.gate_of_share[k] * units, units,
               out + k * units);
    }
  }

  T* scale_of_input() const { return scales_ + 0; }
  T* scale_of_recurrent() const { return scales_ + rows_; }  // the shift, where there is one norm
  T* input_bias() const { return scales_ + 2 * rows_; }
  T* recurrent_bias() const { return scales_ + 3 * rows_; }

  const Sizes size_;
  const bool gates_apart_;
  const int64_t rows_;  // G*H
  const Buffer<T> input_, recurrent_, scales_;
};

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
