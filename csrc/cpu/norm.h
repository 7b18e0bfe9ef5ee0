// Layer norm on the shares of whole rows: Norm says of which. A cell that normalises something that
// it makes itself (the LSTM's c', the GRU's candidate) has a second phase for it, whose operand is
// a row to normalise.
#pragma once

#include "cpu/layout.h"

namespace rnncells {
namespace RNNCELLS_ISA {

// The sum of a row, or of the products of two, in an order of its own.
template <class T>
RNNCELLS_OUT_OF_LINE T sum_row(const T* a, const T* b, int64_t n) {
  using V = Vec<T>;
  V sums[2] = {V(0), V(0)};
  for (int64_t j = 0, turn = 0; j < n; j += V::lanes, turn ^= 1) {
    const int left = static_cast<int>(smaller(V::lanes, n - j));
    const V first = V::load(a + j, left);
    sums[turn] =
        b == nullptr ? sums[turn] + first : mul_add(first, V::load(b + j, left), sums[turn]);
  }
  alignas(64) T lane[V::lanes];
  (sums[0] + sums[1]).store(lane);
  T total = T(0);
  for (int i = 0; i < V::lanes; ++i) total += lane[i];
  return total;
}

// Centres and scales a row in place; returns one over its standard deviation.
template <class T>
RNNCELLS_OUT_OF_LINE T normalise_row(T* row, int64_t n) {
  const T mean = sum_row<T>(row, nullptr, n) / static_cast<T>(n);
  for (int64_t j = 0; j < n; ++j) row[j] -= mean;
  const double variance = static_cast<double>(sum_row<T>(row, row, n)) / static_cast<double>(n);
  const T scale = static_cast<T>(1 / __builtin_sqrt(variance + norm_epsilon));
  for (int64_t j = 0; j < n; ++j) row[j] *= scale;
  return scale;
}

// From the gradient of a normalised row to that of the row, in place.
template <class T>
RNNCELLS_OUT_OF_LINE void normalise_adjoint(T* gradient, const T* normal, T scale, int64_t n) {
  const T mean = sum_row<T>(gradient, nullptr, n) / static_cast<T>(n);
  const T slope = sum_row<T>(gradient, normal, n) / static_cast<T>(n);
  for (int64_t j = 0; j < n; ++j) gradient[j] = scale * (gradient[j] - mean - normal[j] * slope);
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
    if (norm == Norm::none) return;
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
    for (int64_t j = 0; j < rows_; ++j) {
      row.input[j] += input_bias()[j];
      row.recurrent[j] += recurrent_bias()[j];
    }
    for (int g = 0; g < gates; ++g) {
      if (!sums(g)) continue;
      T *sum = row.input + g * units, *other = row.recurrent + g * units;
      for (int64_t j = 0; j < units; ++j) sum[j] += other[j];
      row.input_scale[g] = normalise_row(sum, units);
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
      for (int64_t j = 0; j < units; ++j) {
        const T value = gradient[place + j];
        sums[at + j] += value * normal[j];
        sums[rows_ + at + j] += value;
        recurrent[place + j] = value * scale_of_input()[at + j];
      }
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
      for (int64_t j = 0; j < units; ++j) {
        sums[at + j] += gradient[place + j] * normal[at + j];
        space[at + j] = gradient[place + j] * scales[at + j];
      }
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
