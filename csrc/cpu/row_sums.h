// Sums and products of whole rows, one copy of each for all cells: inlined where they are used,
// they would be most of what there is to compile.
#pragma once

#include "cpu/storage.h"

namespace rnncells {
namespace RNNCELLS_ISA {

// out += a
template <class S>
RNNCELLS_OUT_OF_LINE void add_row(const S* a, int64_t n, Compute<S>* out) {
  for (int64_t j = 0; j < n; ++j) out[j] += widen(a[j]);
}

// out += a * b
template <class S>
RNNCELLS_OUT_OF_LINE void add_product_row(const Compute<S>* a, const S* b, int64_t n,
                                          Compute<S>* out) {
  for (int64_t j = 0; j < n; ++j) out[j] += a[j] * widen(b[j]);
}

// out *= a
template <class T>
RNNCELLS_OUT_OF_LINE void scale_row(const T* a, int64_t n, T* out) {
  for (int64_t j = 0; j < n; ++j) out[j] *= a[j];
}

// Splits a row into `part` of it, which takes the row's place in `part`, and the rest, in `row`.
template <class T>
RNNCELLS_OUT_OF_LINE void split_row(int64_t n, T* row, T* part) {
  for (int64_t j = 0; j < n; ++j) {
    const T whole = row[j];
    row[j] = (T(1) - part[j]) * whole;
    part[j] *= whole;
  }
}

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
