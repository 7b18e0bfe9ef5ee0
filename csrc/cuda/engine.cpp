#include "cuda/engine.h"

#include <cstring>

#include "cells/registry.h"

namespace rnncells::gpu {
namespace {

template <class Cell>
constexpr CellTraits traits_of() {
  int recurrent = 0;
  bool separate = false;
  for (int p = 0; p < Cell::phases; ++p) {
    const Phase phase = Cell::phase(p);
    recurrent += phase.recurrent.count;
    separate =
        separate || (phase.recurrent.count > 0 && (phase.input.first != phase.recurrent.first ||
                                                   phase.input.count != phase.recurrent.count));
  }
  return {Cell::name,
          Cell::gates,
          Cell::states,
          Cell::phases,
          share_count<Cell>(),
          recurrent,
          reserve_slots<Cell>(),
          separate,
          !Cell::direct_hidden && Cell::phases == 1,
          Cell::unit_parameters,
          !has_recurrent_product<Cell>(),
          Cell::open,
          Cell::middle,
          Cell::phase(Cell::phases - 1).gate_of_share[0],
          Cell::own_activations};
}

// The gate of a phase's first recurrent share comes first.
template <class Cell>
constexpr PhaseTraits phase_of(int p) {
  const Phase phase = Cell::phase(p);
  const int first = phase.gate_of_share[phase.recurrent.first - phase.shares.first];
  return {first, phase.recurrent.count, phase.operand};
}

template <class... Cell>
PhaseTraits phase_at(int place, int phase, CellList<Cell...>) {
  PhaseTraits result{};
  int i = 0;
  (void)((i++ == place ? (result = phase_of<Cell>(phase), true) : false) || ...);
  return result;
}

constexpr auto every_cell() { return joined(AllCells(), OtherCells()); }

template <class... Cell>
const CellTraits* table(int& count, CellList<Cell...>) {
  static constexpr CellTraits traits[] = {traits_of<Cell>()...};
  count = sizeof...(Cell);
  return traits;
}

}  // namespace

int cell_count() {
  int count;
  table(count, every_cell());
  return count;
}

const CellTraits& cell_traits(int cell) {
  int count;
  return table(count, every_cell())[cell];
}

int cell_place(const char* name) {
  for (int cell = 0; cell < cell_count(); ++cell) {
    if (std::strcmp(name, cell_traits(cell).name) == 0) return cell;
  }
  return -1;
}

bool is_plain(int cell) { return cell < count_of(AllCells()); }

PhaseTraits phase_traits(int cell, int phase) { return phase_at(cell, phase, every_cell()); }

// Enough parts to fill the card, but no more than one block can add up.
int64_t sum_parts(int64_t count) {
  const int64_t parts = ceil_divide(count, 256);
  return parts < 1 ? 1 : smaller(parts, 1024);
}

template <>
const char* persistent_forward(int cell, const PersistentForward<float>& call, Stream stream) {
  return call.operand == Operand::singles ? launch_forward<float, float>(cell, call, stream)
                                          : launch_forward<float, TensorFloat>(cell, call, stream);
}
template <>
const char* persistent_backward(int cell, const PersistentBackward<float>& call, Stream stream) {
  return call.operand == Operand::singles ? launch_backward<float, float>(cell, call, stream)
                                          : launch_backward<float, TensorFloat>(cell, call, stream);
}

template <>
const char* persistent_forward(int cell, const PersistentForward<Float16>& call, Stream stream) {
  return launch_forward<Float16, Float16>(cell, call, stream);
}
template <>
const char* persistent_backward(int cell, const PersistentBackward<Float16>& call, Stream stream) {
  return launch_backward<Float16, Float16>(cell, call, stream);
}

template <>
const char* persistent_forward(int cell, const PersistentForward<BFloat16>& call, Stream stream) {
  return launch_forward<BFloat16, BFloat16>(cell, call, stream);
}
template <>
const char* persistent_backward(int cell, const PersistentBackward<BFloat16>& call, Stream stream) {
  return launch_backward<BFloat16, BFloat16>(cell, call, stream);
}

}  // namespace rnncells::gpu
