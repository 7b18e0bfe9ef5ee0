// How the engine lays a layer out over the lanes of a vector.
#pragma once

#include <string>

#include "cpu/engine.h"

namespace rnncells {

// The regime of a call, which `keeps` a reserve for a backward pass, or is one, or does not. It
// depends on nothing else: forward and backward agree on it, whatever the instruction set, the
// dtype and the number of threads.
Regime choose_regime(const CellFacts& cell, const Sizes& sizes, bool ragged, bool projected,
                     bool keeps);

// "units" or "batch" from now on wherever it can be had, or "auto". Throws std::invalid_argument
// for another name. Not between a forward pass and its backward pass: the reserve's layout differs.
void force_regime(const std::string& name);

// Takes the choice from the environment variable RNNCELLS_REGIME; called once.
void force_regime_from_environment();

const char* name_of(Regime regime);

}  // namespace rnncells
