// The table of one instruction set: every cell of the registry, forward and backward.
#pragma once

#include "cells/registry.h"
#include "cpu/backward.h"
#include "cpu/backward_lanes.h"
#include "cpu/forward_lanes.h"
#include "cpu/forward_row.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class Cell, class S>
void forward(const ForwardCall<S>& call) {
  if (call.sizes.batch == 0) return;
  if constexpr (Cell::phases == 1 && !Cell::open) {
    if (call.regime == Regime::batch) return LaneForward<Cell, S>(call).run();
    if (call.regime == Regime::depth) return RowForward<Cell, S>(call).run();
  }
  if (call.reserve != nullptr && !call.recompute) {
    ForwardPass<Cell, S, true>(call).run();
  } else {
    ForwardPass<Cell, S, false>(call).run();
  }
}

template <class Cell, class S>
void backward(const BackwardCall<S>& call) {
  if (call.sizes.batch == 0) return;
  if constexpr (Cell::phases == 1 && !Cell::open) {
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

template <class Cell, class S>
constexpr LayerFunctions<S> functions() {
  return {forward<Cell, S>, backward<Cell, S>, packed_elements<Cell, S>, pack<Cell, S>};
}

template <class Cell>
constexpr CellEngine entry() {
  return {{Cell::name, Cell::gates, Cell::states, Cell::phases, reserve_slots<Cell>(),
           !Cell::direct_hidden, Cell::unit_parameters, Cell::open, has_middle<Cell>()},
          functions<Cell, float>(),
          functions<Cell, double>(),
          functions<Cell, Float16>(),
          functions<Cell, BFloat16>()};
}

template <class... Cell, class... Open>
CellTable table(CellList<Cell...>, CellList<Open...>) {
  static constexpr CellEngine entries[] = {entry<Cell>()..., entry<Open>()...};
  return {entries, static_cast<int>(sizeof...(Cell) + sizeof...(Open))};
}

CellTable engine() { return table(AllCells(), OpenCells()); }

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
