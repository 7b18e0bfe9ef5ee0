// Packed weights as one piece of memory: for each direction a cache line that names the instruction
// set they are laid out for, and then the elements, filled up to whole cache lines.
#pragma once

#include "cpu/engine.h"

namespace rnncells {

constexpr int64_t packed_head = 64;

// Of one direction.
template <class T>
int64_t packed_bytes(const CellEngine& engine, const Sizes& sizes, bool projected) {
  const int64_t elements = engine.functions<T>().packed_elements(sizes, projected);
  const int64_t bytes = elements * static_cast<int64_t>(sizeof(Compute<T>));
  return packed_head + (bytes + packed_head - 1) / packed_head * packed_head;
}

}  // namespace rnncells
