// The table of one instruction set: every cell of the registry, forward and backward.
#pragma once

#include "cells/registry.h"
#include "cpu/backward.h"
#include "cpu/backward_lanes.h"
#include "cpu/forward_lanes.h"
#include "cpu/forward_row.h"

namespace rnncells {
namespace RNNCELLS_ISA {

// Any: whether the lanes may be over the batch or along the depth, too.
template <class Cell, class S, bool Any>
void forward(const ForwardCall<S>& call) {
  if (call.sizes.batch == 0) return;
  if constexpr (Any) {
    if (call.regime == Regime::batch) return LaneForward<Cell, S>(call).run();
    if (call.regime == Regime::depth) return RowForward<Cell, S>(call).run();
  }
  if (call.reserve != nullptr && !call.recompute) {
    ForwardPass<Cell, S, true>(call).run();
  } else {
    ForwardPass<Cell, S, false>(call).run();
  }
}

template <class Cell, class S, bool Any>
void backward(const BackwardCall<S>& call) {
  if (call.sizes.batch == 0) return;
  if constexpr (Any) {
    if (call.regime == Regime::batch) return LaneBackward<Cell, S>(call).run();
  }
  BackwardPass<Cell, S>(call).run();
}

template <class Cell, class S>
int64_t packed_elements(const Sizes& sizes, bool projected) {
  return PackedWeights<Cell, S>(sizes, projected).elements();
}

template <class Cell, class S>
void pack(const Sizes& sizes, const Weights<S>& weights, void* packed) {
  PackedWeights<Cell, S>(sizes, weights.projection != nullptr)
      .pack(weights, static_cast<Compute<S>*>(packed));
}

template <class Cell, class S, bool Any>
constexpr LayerFunctions<S> functions() {
  return {forward<Cell, S, Any>, backward<Cell, S, Any>, packed_elements<Cell, S>, pack<Cell, S>};
}

// Plain: whether the lanes may be over other things than the units.
template <class Cell, bool Plain>
constexpr CellEngine entry() {
  constexpr bool Any = Plain && Cell::phases == 1;
  return {{Cell::name, Cell::gates, Cell::states, Cell::phases, reserve_slots<Cell>(),
           !Cell::direct_hidden, Cell::unit_parameters, Cell::open, Cell::middle, !Any,
           !has_recurrent_product<Cell>(), Cell::own_activations},
          functions<Cell, float, Any>(),
          functions<Cell, double, Any>(),
          functions<Cell, Float16, Any>(),
          functions<Cell, BFloat16, Any>()};
}

template <class... Cell, class... Other>
CellTable table(CellList<Cell...>, CellList<Other...>) {
  static constexpr CellEngine entries[] = {entry<Cell, true>()..., entry<Other, false>()...};
  return {entries, static_cast<int>(sizeof...(Cell) + sizeof...(Other))};
}

CellTable engine() { return table(AllCells(), OtherCells()); }

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
