// The weights of one direction as the forward pass reads them with its lanes over the units: biases
// and panels in one piece of memory. They are packed once a call, or, where the caller vouches that
// the weights stay as they are, once for many.
#pragma once

#include "cpu/layout.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class Cell, class S>
class PackedWeights {
  using T = Compute<S>;

 public:
  PackedWeights(const Sizes& sizes, bool projected)
      : size_(sizes), layout_(sizes.units), projected_(projected) {}

  // Where each part begins; the biases come first.
  int64_t input() const { return layout_.row(); }
  int64_t recurrent() const { return input() + layout_.row() * size_.inputs; }
  int64_t projection() const { return recurrent() + layout_.row() * depth(); }
  int64_t unit_parameters() const {
    return projection() + (projected_ ? packed_size<T>(size_.units, size_.outputs) : 0);
  }
  int64_t elements() const { return unit_parameters() + Cell::unit_parameters * layout_.padded(); }

  RNNCELLS_OUT_OF_LINE void pack(const Weights<S>& w, T* out) const {
    pack_biases<Cell>(w, size_.units, out);
    for_phases<Cell>([&](auto index) {
      constexpr int P = decltype(index)::value;
      using L = PhaseLayout<Cell, P>;
      pack_columns(L::phase, L::phase.input, L::unit_vectors, size_.units, w.input,
                   w.input_row_stride, w.input_column_stride, size_.inputs,
                   out + input() + layout_.phase_begin(P) * size_.inputs);
      if (depth() == 0) return;
      pack_columns(L::phase, L::phase.recurrent, L::unit_vectors, size_.units, w.recurrent,
                   w.recurrent_row_stride, w.recurrent_column_stride, size_.outputs,
                   out + recurrent() + layout_.phase_begin(P) * size_.outputs);
    });
    if (projected_) {
      pack_columns(projection_phase, projection_phase.shares, panel_vectors, size_.outputs,
                   w.projection, w.projection_row_stride, w.projection_column_stride, size_.units,
                   out + projection());
    }
    pack_unit_parameters<Cell>(w, size_.units, out + unit_parameters());
  }

 private:
  // Of the recurrent product.
  int64_t depth() const { return has_recurrent_product<Cell>() ? size_.outputs : 0; }

  const Sizes size_;
  const ShareLayout<Cell, T> layout_;
  const bool projected_;
};

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
