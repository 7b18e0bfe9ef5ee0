// What a cell declares. A cell is a struct without state; the engines know cells by this alone.
//
// The words:
// - A *gate* is a block of H rows in W_ih and W_hh, in the order of the parameters.
// - A *share* is a pre-activation of one unit: W_ih x, W_hh h, or their sum, biases included. Most
//   cells have one share a gate. Where a gate keeps the two products apart (the reset gate of a GRU
//   acts on one of them only), it has two. Shares fed by the input are a range, and so are shares
//   fed by the recurrent product, so that each is one contiguous operand of a matrix product.
// - *Saved* values are what BPTT needs of a time step besides the states.
// - A *phase* is one recurrent product with the pointwise part that follows it. Phase 0 multiplies
//   the hidden state; a later phase multiplies an operand that the phase before it saved.
//
// struct Cell {
//   static constexpr const char* name;
//   static constexpr int gates, states;   // state 0 is the hidden state, which is the output
//   static constexpr int phases;
//   static constexpr int unit_parameters; // learned values per unit besides the biases
//   static constexpr bool row_statistics; // needs mean and variance over a row (layer norm)
//   static constexpr bool direct_hidden;  // h flows into the next h also past the product
//   static constexpr bool output_slope;   // backward looks at the next h
//   static constexpr bool open;           // it takes Terms: activations, learned values per unit
//   static constexpr bool middle;         // of an open cell: its second phase normalises a row
//   static constexpr int saved;
//   static constexpr Phase phase(int p);
//
//   template <int P, class V> static void forward(const V* share, const V* previous, V* next,
//                                                 V* save);
//   template <int P, class V> static void backward(const V* save, const V* previous, const V* next,
//                                                  V operand_gradient, V* state_gradient,
//                                                  V* share_gradient);
// };
//
// An open cell's functions take `const Terms<V>& terms` before all else.
// UnitParameter parameter(int k), where unit_parameters is not 0, says where a learned value per
// unit comes in: a share is `share = product + value * state`.
//
// Where a cell has a `middle`, its second phase has one share, the operand normalised, and no
// product; backward<1> gets that share as `operand_gradient`.
//
// forward<P>: share holds the phase's own shares; `previous` and `next` all states; save all saved
// values, of which the phase fills its own. Only the last phase fills `next`. The previous hidden
// state is there only where direct_hidden says that it is used: with a projection it has another
// width.
// backward<P> runs for the last phase first. `state_gradient` holds the gradients of all next
// states when the last phase starts, and of all previous states, as far as they do not go through a
// product, when phase 0 ends. share_gradient holds all shares of the cell: a later phase may leave
// a partial gradient in the shares of an earlier one. `operand_gradient` is the gradient of the
// operand that this phase saved for the next one, and means nothing in the last phase. `next` holds
// all next states.
#pragma once

#include "cells/activations.h"

namespace rnncells {

// What an open cell is told: its activations, and its learned values of the units in V.
template <class V>
struct Terms {
  ChosenActivations activations;
  const V* parameter;
};

struct UnitParameter {
  int share, state;
  bool after;  // the state after the step, or else the one before it
};

struct Range {
  int first, count;
  constexpr int end() const { return first + count; }
};

struct Phase {
  Range shares;          // all shares of the phase
  Range input;           // those fed by W_ih x
  Range recurrent;       // those fed by W_hh and the phase's operand
  Range saves;           // the saved values that the phase fills
  int operand;           // saved value that the phase multiplies; -1: the hidden state
  int gate_of_share[8];  // by share, counted from shares.first
};

template <class Cell>
constexpr int share_count() {
  return Cell::phase(Cell::phases - 1).shares.end();
}

// Whether a cell normalises a row that it makes itself.
template <class Cell>
constexpr bool has_middle() {
  if constexpr (Cell::open) return Cell::middle;
  return false;
}

// A step of a cell, open or not.
template <class Cell, int P, class V>
RNNCELLS_INLINE void cell_forward(const Terms<V>& terms, const V* share, const V* previous, V* next,
                                  V* save) {
  if constexpr (Cell::open) {
    Cell::template forward<P>(terms, share, previous, next, save);
  } else {
    Cell::template forward<P>(share, previous, next, save);
  }
}
template <class Cell, int P, class V>
RNNCELLS_INLINE void cell_backward(const Terms<V>& terms, const V* save, const V* previous,
                                   const V* next, V operand_gradient, V* state_gradient,
                                   V* share_gradient) {
  if constexpr (Cell::open) {
    Cell::template backward<P>(terms, save, previous, next, operand_gradient, state_gradient,
                               share_gradient);
  } else {
    Cell::template backward<P>(save, previous, next, operand_gradient, state_gradient,
                               share_gradient);
  }
}

// Values per unit and time step in the reserve: what is saved, and the states that are not the
// output.
template <class Cell>
constexpr int reserve_slots() {
  return Cell::saved + Cell::states - 1;
}

}  // namespace rnncells
