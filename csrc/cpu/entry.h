// The table of one instruction set: every cell of the registry, forward and backward.
#pragma once

#include "cells/registry.h"
#include "cpu/backward.h"
#include "cpu/forward.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class Cell, class S>
constexpr LayerFunctions<S> functions() {
  return {forward<Cell, S>, backward<Cell, S>};
}

template <class Cell>
constexpr CellEngine entry() {
  return {{Cell::name, Cell::gates, Cell::states, Cell::phases, reserve_slots<Cell>(),
           !Cell::direct_hidden},
          functions<Cell, float>(),
          functions<Cell, double>(),
          functions<Cell, Float16>(),
          functions<Cell, BFloat16>()};
}

template <class... Cell>
CellTable table(CellList<Cell...>) {
  static constexpr CellEngine entries[] = {entry<Cell>()...};
  return {entries, static_cast<int>(sizeof...(Cell))};
}

CellTable engine() { return table(AllCells()); }

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
