// What masks do to a value, and how they are drawn, for one unit of one sequence in one time step.
#pragma once

#include "cells/philox.h"

namespace rnncells {

// The 32 bits of one value: an event of some probability happens where they are below its
// threshold. `stream` is the layer's direction.
RNNCELLS_INLINE uint32_t draw_bits(uint64_t seed, uint32_t purpose, uint32_t stream, int64_t step,
                                   int64_t sequence, int64_t unit) {
  const int64_t counter = unit / draw_group * draw_counters + unit % draw_counters;
  const PhiloxBlocks<1> drawn =
      philox<1>(seed, static_cast<uint32_t>(counter), static_cast<uint32_t>(sequence),
                static_cast<uint32_t>(step), purpose + stream * 16);
  const auto word = static_cast<int>(unit / draw_counters % 4);
  // No index that only the run knows: the words belong in registers.
  const uint32_t low = word == 0 ? drawn.word[0][0] : drawn.word[1][0];
  const uint32_t high = word == 2 ? drawn.word[2][0] : drawn.word[3][0];
  return word < 2 ? low : high;
}

// What is left of a value that dropout of this rate does not drop.
RNNCELLS_INLINE double dropout_scale(double rate) { return 1 / (1 - rate); }

// Zoneout: `part` of what a state was, and the rest of what the cell made of it. A value of which
// nothing is taken cannot spoil the sum, not even a NaN.
template <class T>
RNNCELLS_INLINE T mix_states(T before, T made, T part) {
  const T kept = part == T(0) ? T(0) : part * before;
  const T fresh = part == T(1) ? T(0) : (T(1) - part) * made;
  return kept + fresh;
}

}  // namespace rnncells
