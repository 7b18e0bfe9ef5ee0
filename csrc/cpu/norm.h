// Layer norm on the shares of whole rows: Norm says of which. A cell that normalises something that
// it makes itself (the LSTM's c', the GRU's candidate) has a second phase for it, whose operand is
// a row to normalise.
#pragma once

#include "cpu/norm_rows.h"

namespace rnncells {
namespace RNNCELLS_ISA {

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

  // Of at most norm_block rows: W_ih x and W_hh h, and, once normalised, one over the standard
  // deviations of each one's gates.
  struct Block {
    Rows<T> input, recurrent;  // [G*H]
    Rows<T> scales;            // [2*G], the input's first
    int64_t count;
  };

  template <class XRows>
  void multiply(const XRows& x, int64_t x_row_stride, int64_t x_column_stride, const T* packed,
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

  // The products of some rows, normalised in place.
  RNNCELLS_OUT_OF_LINE void normalise(const Block& block) const {
    const int64_t units = size_.units, count = block.count;
    if (gates_apart_) {
      normalise_rows(block.input, count, rows_, block.scales);
      normalise_rows(block.recurrent, count, rows_, from(block.scales, gates));
      return;
    }
    for (int g = 0; g < gates; ++g) {
      for (int64_t row = 0; row < count; ++row) {
        add_biases(g, block.input[row] + g * units, block.recurrent[row] + g * units);
      }
      if (!sums(g)) continue;
      normalise_rows(from(block.input, g * units), count, units, from(block.scales, g));
    }
  }

  // The shares of a vector of units from a row of both products that was normalised.
  template <bool Full>
  RNNCELLS_INLINE void load(const T* input, const T* recurrent, int64_t unit, int present,
                            V* share) const {
    constexpr Phase phase = Cell::phase(0);
    RNNCELLS_UNROLL
    for (int k = 0; k < shares; ++k) {
      const int64_t at = phase.gate_of_share[k] * size_.units + unit;
      const auto of = [&](const T* values) { return load_lanes<Full>(values + at, present); };
      share[k] = V(0);
      if (gates_apart_) {
        if (has_input(k)) share[k] = mul_add(of(input), of(scale_of_input()), of(input_bias()));
        if (has_recurrent(k)) {
          share[k] =
              share[k] + mul_add(of(recurrent), of(scale_of_recurrent()), of(recurrent_bias()));
        }
      } else if (has_input(k) && has_recurrent(k)) {
        share[k] = mul_add(of(input), of(scale_of_input()), of(scale_of_recurrent()));
      } else {
        share[k] = has_input(k) ? of(input) : of(recurrent);
      }
    }
  }

  // From the gradients of some rows' shares to those of their two products, each [shares * H], of
  // which `input` may be the shares' own; and, added to `sums` [2 * G*H], to those of scales and
  // shifts. Space: [G*H].
  RNNCELLS_OUT_OF_LINE void adjoint(const Block& block, Rows<T> gradient, Rows<T> input,
                                    Rows<T> recurrent, Rows<T> space, Rows<T> sums) const {
    if (gates_apart_) {
      one_side<true>(block.input, block.scales, scale_of_input(), gradient, input, space, sums,
                     block.count);
      one_side<false>(block.recurrent, from(block.scales, gates), scale_of_recurrent(), gradient,
                      recurrent, space, from(sums, rows_), block.count);
      return;
    }
    constexpr Phase phase = Cell::phase(0);
    const int64_t units = size_.units;
    for (int k = 0; k < shares; ++k) {
      const int64_t at = phase.gate_of_share[k] * units, place = k * units;
      const bool normed = has_input(k) && has_recurrent(k);
      for (int64_t row = 0; row < block.count; ++row) {
        if (!normed) {
          copy_row(gradient[row] + place, units, recurrent[row] + place);
          continue;
        }
        add_sums(block.input[row] + at, gradient[row] + place, scale_of_input() + at,
                 recurrent[row] + place, sums[row] + at, sums[row] + rows_ + at);
      }
      if (!normed) continue;
      normalise_adjoint(from(recurrent, place), from(block.input, at),
                        from(block.scales, phase.gate_of_share[k]), block.count, units);
    }
  }

  // One share's gradient, scaled, and what it adds to its scale's and, if there is one, its
  // shift's.
  RNNCELLS_INLINE void add_sums(const T* normal, const T* gradient, const T* scale, T* scaled,
                                T* scale_sum, T* shift_sum) const {
    for_vectors<T>(size_.units, [&](int64_t j, int present, auto full) {
      constexpr bool whole = decltype(full)::value;
      const auto of = [&](const T* values) { return load_lanes<whole>(values + j, present); };
      const V value = of(gradient);
      store_lanes<whole>(mul_add(value, of(normal), of(scale_sum)), scale_sum + j, present);
      if (shift_sum != nullptr) {
        store_lanes<whole>(of(shift_sum) + value, shift_sum + j, present);
      }
      store_lanes<whole>(value * of(scale), scaled + j, present);
    });
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

  static Rows<T> from(Rows<T> rows, int64_t column) { return {rows.base + column, rows.stride}; }

  // One gate's products, each with its bias; where they meet, their sum in the input's place.
  RNNCELLS_INLINE void add_biases(int gate, T* input, T* recurrent) const {
    const int64_t at = gate * size_.units;
    for_vectors<T>(size_.units, [&](int64_t j, int present, auto full) {
      constexpr bool whole = decltype(full)::value;
      const auto of = [&](const T* values) { return load_lanes<whole>(values + j, present); };
      V first = of(input) + of(input_bias() + at);
      const V second = of(recurrent) + of(recurrent_bias() + at);
      if (sums(gate)) {
        first = first + second;
      } else {
        store_lanes<whole>(second, recurrent + j, present);
      }
      store_lanes<whole>(first, input + j, present);
    });
  }

  // The rows of one product: their shares' gradients, scaled and brought together by gates.
  template <bool Input>
  void one_side(Rows<T> normal, Rows<T> scale, const T* scales, Rows<T> gradient, Rows<T> out,
                Rows<T> space, Rows<T> sums, int64_t count) const {
    constexpr Phase phase = Cell::phase(0);
    const int64_t units = size_.units;
    const auto for_shares = [&](const auto& body) {
      for (int k = 0; k < shares; ++k) {
        if (Input ? has_input(k) : has_recurrent(k))
          body(phase.gate_of_share[k] * units, k * units);
      }
    };
    for (int64_t row = 0; row < count; ++row) {
      for_shares([&](int64_t at, int64_t place) {
        add_sums(normal[row] + at, gradient[row] + place, scales + at, space[row] + at,
                 sums[row] + at, nullptr);
      });
    }
    normalise_adjoint(space, normal, scale, count, rows_);
    for (int64_t row = 0; row < count; ++row) {
      for_shares([&](int64_t at, int64_t place) {
        copy_row(static_cast<const T*>(space[row]) + at, units, out[row] + place);
      });
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
