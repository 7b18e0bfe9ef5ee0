// How a cell's shares lie in panels, and its weights packed so.
//
// A panel covers up to `unit_vectors` vectors of units; its columns are share-major: all vectors of
// the first share, then of the second. The panels of one phase follow each other, then those of the
// next phase; a row of biases or of input shares has the same order.
#pragma once

#include "cells/cell.h"
#include "cpu/engine.h"
#include "cpu/gemm.h"
#include "cpu/steps.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class Cell>
constexpr void check_cell() {
  static_assert(Cell::states >= 1 && Cell::states <= max_states, "too many states");
  static_assert(Cell::unit_parameters == 0 || Cell::open, "they come with Terms");
}

template <class Cell, int P>
struct PhaseLayout {
  static constexpr Phase phase = Cell::phase(P);
  static constexpr int shares = phase.shares.count;
  static constexpr int input_shares = phase.input.count;
  static constexpr int recurrent_shares = phase.recurrent.count;
  static_assert(shares >= 1 && shares <= panel_vectors, "a phase has one to four shares");
  static_assert(phase.input.first == phase.shares.first, "input shares come first");
  static_assert(phase.recurrent.end() == phase.shares.end(), "recurrent shares come last");
  // First recurrent share, counted within the phase.
  static constexpr int recurrent_begin = phase.recurrent.first - phase.shares.first;
  static constexpr int unit_vectors = panel_vectors / shares;
};

template <int I>
struct Index {
  static constexpr int value = I;
};

// Calls body(Index<P>()) for P = 0 .. phases-1, or the other way round.
template <class Cell, int P = 0, class Body>
RNNCELLS_INLINE void for_phases(const Body& body) {
  if constexpr (P < Cell::phases) {
    body(Index<P>());
    for_phases<Cell, P + 1>(body);
  }
}
template <class Cell, int P = Cell::phases - 1, class Body>
RNNCELLS_INLINE void for_phases_backward(const Body& body) {
  if constexpr (P >= 0) {
    body(Index<P>());
    for_phases_backward<Cell, P - 1>(body);
  }
}

template <class Cell, class T>
struct ShareLayout {
  static constexpr int lanes = Vec<T>::lanes;
  int64_t units, vectors;  // vectors: enough for all units

  RNNCELLS_INLINE explicit ShareLayout(int64_t h) : units(h), vectors(ceil_divide(h, lanes)) {}

  RNNCELLS_INLINE int64_t padded() const { return vectors * lanes; }
  // Elements in a row with all shares of all phases, and where phase p begins in it.
  RNNCELLS_INLINE int64_t row() const { return share_count<Cell>() * padded(); }
  RNNCELLS_INLINE int64_t phase_begin(int p) const {
    return Cell::phase(p).shares.first * padded();
  }
};

// The rows of a weight that feed `range`, as panels [depth][vectors * range.count * lanes]: column
// (share, unit) of the panel is row gate(share) * H + unit of the weight. Calls with the range of
// the inputs, or of the recurrent product.
template <class S>
RNNCELLS_OUT_OF_LINE void pack_columns(const Phase& phase, Range range, int64_t unit_vectors,
                                       int64_t units, const S* weight, int64_t row_stride,
                                       int64_t column_stride, int64_t depth, Compute<S>* packed) {
  using T = Compute<S>;
  constexpr int lanes = Vec<T>::lanes;
  const int64_t vectors = ceil_divide(units, lanes);
  for (int64_t v0 = 0; v0 < vectors; v0 += unit_vectors) {
    const int64_t count = smaller(unit_vectors, vectors - v0);
    const int64_t width = count * range.count * lanes;
    for (int share = 0; share < range.count; ++share) {
      const int gate = phase.gate_of_share[range.first + share - phase.shares.first];
      for (int64_t v = 0; v < count; ++v) {
        const int64_t unit = (v0 + v) * lanes;
        const int64_t present = smaller(lanes, units - unit);
        const S* source = weight + (gate * units + unit) * row_stride;
        T* target = packed + (share * count + v) * lanes;
        for (int64_t k = 0; k < depth; ++k, target += width, source += column_stride) {
          if (present == lanes) {
            for (int lane = 0; lane < lanes; ++lane)
              target[lane] = widen(source[lane * row_stride]);
          } else {
            for (int lane = 0; lane < lanes; ++lane) {
              target[lane] = lane < present ? widen(source[lane * row_stride]) : T(0);
            }
          }
        }
      }
    }
    packed += depth * width;
  }
}

// The biases of all shares, in the order of a row of shares.
template <class Cell, class S>
RNNCELLS_OUT_OF_LINE void pack_biases(const Weights<S>& weights, int64_t units,
                                      Compute<S>* packed) {
  using T = Compute<S>;
  constexpr int lanes = Vec<T>::lanes;
  const ShareLayout<Cell, T> layout(units);
  for_phases<Cell>([&](auto index) {
    constexpr int P = decltype(index)::value;
    using L = PhaseLayout<Cell, P>;
    T* row = packed + layout.phase_begin(P);
    for (int64_t v0 = 0; v0 < layout.vectors; v0 += L::unit_vectors) {
      const int64_t count = smaller(L::unit_vectors, layout.vectors - v0);
      for (int share = 0; share < L::shares; ++share) {
        const int gate = L::phase.gate_of_share[share];
        for (int64_t j = 0; j < count * lanes; ++j) {
          const int64_t unit = v0 * lanes + j, index = gate * units + unit;
          T bias = T(0);
          if (unit < units && share < L::input_shares && weights.input_bias != nullptr) {
            bias += widen(weights.input_bias[index * weights.input_bias_stride]);
          }
          if (unit < units && share >= L::recurrent_begin && weights.recurrent_bias != nullptr) {
            bias += widen(weights.recurrent_bias[index * weights.recurrent_bias_stride]);
          }
          *row++ = bias;
        }
      }
    }
  });
}

// The learned values per unit, [K, units filled up to whole vectors].
template <class Cell, class S>
RNNCELLS_INLINE void pack_unit_parameters(const Weights<S>& weights, int64_t units,
                                          Compute<S>* packed) {
  const int64_t padded = ShareLayout<Cell, Compute<S>>(units).padded();
  for (int k = 0; k < Cell::unit_parameters; ++k) {
    Compute<S>* row = packed + k * padded;
    for (int64_t j = 0; j < padded; ++j) {
      const bool given = weights.unit_parameters != nullptr && j < units;
      row[j] = given ? widen(weights.unit_parameters[k * units + j]) : Compute<S>(0);
    }
  }
}

// The rows of a weight that belong to `range`, in the order of the shares, as panels over its
// columns: the second factor of (gradients of the shares) x weight. Panels have panel_vectors
// vectors, the last one as many as are left.
template <class S>
RNNCELLS_OUT_OF_LINE void pack_transposed(const Phase& phase, Range range, int64_t units,
                                          const S* weight, int64_t row_stride,
                                          int64_t column_stride, int64_t columns,
                                          Compute<S>* packed) {
  constexpr int64_t lanes = Vec<Compute<S>>::lanes, widest = panel_vectors * lanes;
  for (int64_t column = 0; column < columns; column += widest) {
    const int64_t present = smaller(widest, columns - column);
    const int64_t width = ceil_divide(present, lanes) * lanes;
    for (int share = range.first; share < range.end(); ++share) {
      const int64_t gate = phase.gate_of_share[share - phase.shares.first];
      const auto row_at = [&](int64_t k) { return weight + (gate * units + k) * row_stride; };
      pack_rows<S>(row_at, units, column, present, column_stride, width, packed);
      packed += units * width;
    }
  }
}

// What pack_columns and pack_transposed make of a projection, whose P rows are one gate's.
constexpr Phase projection_phase = {{0, 1}, {0, 1}, {0, 1}, {0, 0}, -1, {0}};

// Elements of `depth` rows of panels over `columns` columns.
template <class T>
RNNCELLS_INLINE int64_t packed_size(int64_t depth, int64_t columns) {
  return depth * ceil_divide(columns, Vec<T>::lanes) * Vec<T>::lanes;
}

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
