// A variant as the operators' argument has it: "recurrent_dropout=0.25;zoneout=0.1,0.05", and for
// an open cell "activation=relu;recurrent_activation=hard_sigmoid".
#pragma once

#include <string>

#include "cpu/engine.h"

namespace rnncells {

// What belongs to one call, its seed and its resets, is not in the text. Throws
// std::invalid_argument for what it or the cell does not know, and for a rate outside [0, 1).
Variant read_variant(const std::string& text, const CellFacts& cell);

}  // namespace rnncells
