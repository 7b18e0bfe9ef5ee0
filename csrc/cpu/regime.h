// How the engine lays a layer out over the lanes of a vector.
#pragma once

#include <string>

#include "cpu/engine.h"

namespace rnncells {

// Of no more rows, time steps times sequences, the weights are read as they are.
constexpr int64_t streamed_rows = 8;

// What besides the sizes tells how a call can run.
struct CallFacts {
  bool ragged, projected;
  bool keeps;              // a reserve for the backward pass; or it is one
  bool rowwise;            // that reserve has a row for each row of x
  bool unit_strides;       // of x, the weights and the biases along their last dimension
  bool backward = false;   // it is a backward pass
  bool recompute = false;  // the reserve holds the states besides the output alone
  bool packed = false;     // the weights were packed before
  bool varied = false;     // it has a variant
};

// The regime of a call. The reserve's layout, where one is kept, depends on the cell, the sizes and
// their kind alone: forward and backward agree on it, whatever the instruction set, the dtype and
// the number of threads.
Regime choose_regime(const CellFacts& cell, const Sizes& sizes, const CallFacts& call);

// "units", "batch" or "depth" from now on wherever it can be had, or "auto". Throws
// std::invalid_argument for another name. Not between a forward pass and its backward pass: the
// reserve's layout differs.
void force_regime(const std::string& name);

// Takes the choice from the environment variable RNNCELLS_REGIME; called once.
void force_regime_from_environment();

const char* name_of(Regime regime);

}  // namespace rnncells
