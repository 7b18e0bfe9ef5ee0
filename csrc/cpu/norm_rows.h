// Rows that are centred and scaled, and the way back.
#pragma once

#include "cpu/layout.h"

namespace rnncells {
namespace RNNCELLS_ISA {

// The sum over a vector's lanes, halves first: fewer steps one after another than lane by lane.
template <class T>
RNNCELLS_INLINE T sum_lanes(Vec<T> v) {
  alignas(64) T lane[Vec<T>::lanes];
  v.store(lane);
  RNNCELLS_UNROLL
  for (int half = Vec<T>::lanes / 2; half > 0; half /= 2) {
    RNNCELLS_UNROLL
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

// Calls body(first, present, Index<full>()) for each vector of a row of n.
template <class T, class Body>
RNNCELLS_INLINE void for_vectors(int64_t n, const Body& body) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) body(j, lanes, Index<1>());
  if (j < n) body(j, static_cast<int>(n - j), Index<0>());
}

// Rows that are normalised side by side: each one's sums wait for themselves.
constexpr int64_t norm_block = 4;

// A vector of a row's last values less `mean`, with nothing behind the row's end.
template <class T>
RNNCELLS_INLINE Vec<T> centred_tail(const T* values, int present, T mean) {
  alignas(64) T spare[Vec<T>::lanes] = {};
  store_lanes<false>(load_lanes<false>(values, present) - Vec<T>(mean), spare, present);
  return Vec<T>::load(spare);
}

// Centres and scales rows of n in place; writes one over their standard deviations.
template <int Count, class T>
RNNCELLS_OUT_OF_LINE void normalise_block(Rows<T> rows, int64_t n, Rows<T> scales) {
  using V = Vec<T>;
  V sum[Count], squares[Count];
  T mean[Count], scale[Count];
  RNNCELLS_UNROLL
  for (int r = 0; r < Count; ++r) sum[r] = squares[r] = V(0);
  for_vectors<T>(n, [&](int64_t j, int present, auto full) {
    RNNCELLS_UNROLL
    for (int r = 0; r < Count; ++r) {
      sum[r] = sum[r] + load_lanes<decltype(full)::value>(rows[r] + j, present);
    }
  });
  for (int r = 0; r < Count; ++r) mean[r] = sum_lanes<T>(sum[r]) / static_cast<T>(n);
  for_vectors<T>(n, [&](int64_t j, int present, auto full) {
    RNNCELLS_UNROLL
    for (int r = 0; r < Count; ++r) {
      V centred;
      if constexpr (decltype(full)::value) {
        centred = V::load(rows[r] + j) - V(mean[r]);
      } else {
        centred = centred_tail(rows[r] + j, present, mean[r]);
      }
      squares[r] = mul_add(centred, centred, squares[r]);
    }
  });
  for (int r = 0; r < Count; ++r) {
    const double variance = static_cast<double>(sum_lanes<T>(squares[r])) / static_cast<double>(n);
    scale[r] = static_cast<T>(1 / __builtin_sqrt(variance + norm_epsilon));
    *scales[r] = scale[r];
  }
  for_vectors<T>(n, [&](int64_t j, int present, auto full) {
    constexpr bool whole = decltype(full)::value;
    RNNCELLS_UNROLL
    for (int r = 0; r < Count; ++r) {
      const V centred = load_lanes<whole>(rows[r] + j, present) - V(mean[r]);
      store_lanes<whole>(centred * V(scale[r]), rows[r] + j, present);
    }
  });
}

// From the gradients of normalised rows to those of the rows, in place.
template <int Count, class T>
RNNCELLS_OUT_OF_LINE void adjoint_block(Rows<T> gradients, Rows<T> normal, Rows<T> scales,
                                        int64_t n) {
  using V = Vec<T>;
  V sum[Count], products[Count];
  T mean[Count], slope[Count];
  RNNCELLS_UNROLL
  for (int r = 0; r < Count; ++r) sum[r] = products[r] = V(0);
  for_vectors<T>(n, [&](int64_t j, int present, auto full) {
    constexpr bool whole = decltype(full)::value;
    RNNCELLS_UNROLL
    for (int r = 0; r < Count; ++r) {
      const V value = load_lanes<whole>(gradients[r] + j, present);
      sum[r] = sum[r] + value;
      products[r] = mul_add(value, load_lanes<whole>(normal[r] + j, present), products[r]);
    }
  });
  for (int r = 0; r < Count; ++r) {
    mean[r] = sum_lanes<T>(sum[r]) / static_cast<T>(n);
    slope[r] = sum_lanes<T>(products[r]) / static_cast<T>(n);
  }
  for_vectors<T>(n, [&](int64_t j, int present, auto full) {
    constexpr bool whole = decltype(full)::value;
    RNNCELLS_UNROLL
    for (int r = 0; r < Count; ++r) {
      const V value = load_lanes<whole>(gradients[r] + j, present) - V(mean[r]);
      const V other = load_lanes<whole>(normal[r] + j, present) * V(slope[r]);
      store_lanes<whole>((value - other) * V(*scales[r]), gradients[r] + j, present);
    }
  });
}

// The same for at most norm_block rows.
template <class T>
RNNCELLS_INLINE void normalise_rows(Rows<T> rows, int64_t count, int64_t n, Rows<T> scales) {
  if (count == norm_block) return normalise_block<norm_block>(rows, n, scales);
  for (int64_t r = 0; r < count; ++r) {
    normalise_block<1>(Rows<T>{rows[r], 0}, n, Rows<T>{scales[r], 0});
  }
}
template <class T>
RNNCELLS_INLINE void normalise_adjoint(Rows<T> gradients, Rows<T> normal, Rows<T> scales,
                                       int64_t count, int64_t n) {
  if (count == norm_block) return adjoint_block<norm_block>(gradients, normal, scales, n);
  for (int64_t r = 0; r < count; ++r) {
    adjoint_block<1>(Rows<T>{gradients[r], 0}, Rows<T>{normal[r], 0}, Rows<T>{scales[r], 0}, n);
  }
}

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
