// Lanes over the batch: the sequences of a block stand side by side, one a lane, so that narrow
// layers waste none. What comes as rows [sequences, columns] is turned into [columns, sequences].
#pragma once

#include "cpu/layout.h"

namespace rnncells {
namespace RNNCELLS_ISA {

// a0 b0 a1 b1 ..., from the lower halves of a and b, or from the upper ones.
template <bool Upper, class T, int... I>
RNNCELLS_INLINE Vec<T> interleave(Vec<T> a, Vec<T> b, Indexes<T, I...>) {
  constexpr int n = Vec<T>::lanes, first = Upper ? n / 2 : 0;
#if defined(__clang__)
  return Vec<T>(__builtin_shufflevector(a.v, b.v, (first + I / 2 + (I % 2) * n)...));
#else
  using Bits = typename Register<T>::Bits;
  return Vec<T>(__builtin_shuffle(a.v, b.v, Bits{(first + I / 2 + (I % 2) * n)...}));
#endif
}

// A square of vectors, transposed. Each round moves every value's place, as the bits of row and
// lane written after each other, round by one bit.
template <class T>
RNNCELLS_INLINE void turn(Vec<T> (&square)[Vec<T>::lanes]) {
  constexpr int n = Vec<T>::lanes;
  constexpr typename MakeIndexes<T, n>::type indexes;
  RNNCELLS_UNROLL
  for (int round = 1; round < n; round *= 2) {
    Vec<T> moved[n];
    RNNCELLS_UNROLL
    for (int i = 0; i < n / 2; ++i) {
      moved[2 * i] = interleave<false>(square[i], square[i + n / 2], indexes);
      moved[2 * i + 1] = interleave<true>(square[i], square[i + n / 2], indexes);
    }
    RNNCELLS_UNROLL
    for (int i = 0; i < n; ++i) square[i] = moved[i];
  }
}

#if RNNCELLS_VECTOR_BYTES == 64
// Sixteen by sixteen by shuffles inside quarters, then of quarters, which are quicker than any
// shuffle across the register.
RNNCELLS_INLINE void turn(Vec<float> (&square)[16]) {
  __m512 a[16], b[16];
  RNNCELLS_UNROLL
  for (int i = 0; i < 16; ++i) a[i] = (__m512)square[i].v;
  RNNCELLS_UNROLL
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_maskz_unpacklo_ps(0xffff, a[i], a[i + 1]);
    b[i + 1] = _mm512_maskz_unpackhi_ps(0xffff, a[i], a[i + 1]);
  }
  RNNCELLS_UNROLL
  for (int i = 0; i < 16; i += 4) {  // a[i + c], quarter q: rows i to i + 3 of column 4 q + c
    RNNCELLS_UNROLL
    for (int half = 0; half < 2; ++half) {
      const __m512d low = (__m512d)b[i + half], high = (__m512d)b[i + half + 2];
      a[i + 2 * half] = (__m512)_mm512_maskz_unpacklo_pd(0xff, low, high);
      a[i + 2 * half + 1] = (__m512)_mm512_maskz_unpackhi_pd(0xff, low, high);
    }
  }
  RNNCELLS_UNROLL
  for (int c = 0; c < 4; ++c) {
    const __m512 even =
        _mm512_maskz_shuffle_f32x4(0xffff, a[c], a[c + 4], 0x88);  // columns c and c + 8
    const __m512 odd =
        _mm512_maskz_shuffle_f32x4(0xffff, a[c], a[c + 4], 0xdd);  // columns c + 4 and c + 12
    const __m512 more_even = _mm512_maskz_shuffle_f32x4(0xffff, a[c + 8], a[c + 12], 0x88);
    const __m512 more_odd = _mm512_maskz_shuffle_f32x4(0xffff, a[c + 8], a[c + 12], 0xdd);
    square[c].v =
        (Register<float>::Native)_mm512_maskz_shuffle_f32x4(0xffff, even, more_even, 0x88);
    square[c + 8].v =
        (Register<float>::Native)_mm512_maskz_shuffle_f32x4(0xffff, even, more_even, 0xdd);
    square[c + 4].v =
        (Register<float>::Native)_mm512_maskz_shuffle_f32x4(0xffff, odd, more_odd, 0x88);
    square[c + 12].v =
        (Register<float>::Native)_mm512_maskz_shuffle_f32x4(0xffff, odd, more_odd, 0xdd);
  }
}
#endif

// `count` rows, no more than one a lane, as lanes: out[column][row]. Lanes without a row are zero.
template <class S>
RNNCELLS_OUT_OF_LINE void rows_to_lanes(OrderedRows<const S> rows, int64_t column_stride,
                                        int64_t count, int64_t columns, Compute<S>* out,
                                        int64_t out_stride) {
  using V = Vec<Compute<S>>;
  constexpr int64_t lanes = V::lanes;
  int64_t first = 0;
  for (; first < columns && column_stride == 1 && columns > 2; first += lanes) {
    // The last columns are taken together with some before them, where there are enough.
    if (columns >= lanes) first = smaller(first, columns - lanes);
    const int64_t present = smaller(lanes, columns - first);
    V square[lanes];
    if (present == lanes && count == lanes) {
      RNNCELLS_UNROLL
      for (int row = 0; row < lanes; ++row) square[row] = load_vector(rows[row] + first);
    } else {
      for (int row = 0; row < lanes; ++row) {
        square[row] =
            row < count ? load_vector(rows[row] + first, static_cast<int>(present)) : V(0);
      }
    }
    turn(square);
    Compute<S>* target = out + first * out_stride;
    RNNCELLS_UNROLL
    for (int column = 0; column < lanes; ++column) {
      if (column < present) square[column].store(target + column * out_stride);
    }
  }
  for (; first < columns; ++first) {
    Compute<S>* target = out + first * out_stride;
    for (int64_t row = 0; row < count; ++row) target[row] = widen(rows[row][first * column_stride]);
    for (int64_t row = count; row < lanes; ++row) target[row] = 0;
  }
}

// The way back: the first `count` lanes into as many rows, or added to them. Rounded: the values
// are such as S has.
template <class S, bool Rounded = false>
RNNCELLS_OUT_OF_LINE void lanes_to_rows(const Compute<S>* in, int64_t in_stride, int64_t count,
                                        int64_t columns, OrderedRows<S> rows, bool add = false) {
  using V = Vec<Compute<S>>;
  constexpr int64_t lanes = V::lanes;
  for (int64_t first = 0; first < columns; first += lanes) {
    if (columns >= lanes && !add) first = smaller(first, columns - lanes);
    const int present = static_cast<int>(smaller(lanes, columns - first));
    V square[lanes];
    const Compute<S>* source = in + first * in_stride;
    RNNCELLS_UNROLL
    for (int column = 0; column < lanes; ++column) {
      square[column] = column < present ? V::load(source + column * in_stride) : V(0);
    }
    turn(square);
    if (present == lanes && count == lanes && !add) {
      RNNCELLS_UNROLL
      for (int row = 0; row < lanes; ++row) {
        if constexpr (Rounded) {
          store_rounded(square[row], rows[row] + first);
        } else {
          store_vector(square[row], rows[row] + first);
        }
      }
      continue;
    }
    for (int row = 0; row < count; ++row) {
      S* target = rows[row] + first;
      if (add) square[row] = load_vector(target, present) + square[row];
      store_vector(square[row], target, present);
    }
  }
}

// Values of every time step, unit and sequence: [T, groups of sequences, slots * H, sequences of
// the group]. The groups are the same for every width of a vector.
template <class S>
struct LaneSeries {
  S* base;
  int64_t batch, values;  // values: slots * H

  // The values of the sequences from `row` on, which is a multiple of the lanes.
  RNNCELLS_INLINE Rows<S> at(int64_t t, int64_t row) const {
    const int64_t group = row / lane_group * lane_group;
    const int64_t size = smaller(lane_group, batch - group);
    return {base + (t * batch + group) * values + (row - group), size};
  }
};

// The first `count` lanes of `rows` vectors, which stand `lanes` apart in `space`, where a group
// has fewer sequences than a vector has lanes.
template <class S>
RNNCELLS_OUT_OF_LINE void copy_lanes(const S* from, int64_t from_stride, int64_t rows,
                                     int64_t count, S* to, int64_t to_stride) {
  for (int64_t row = 0; row < rows; ++row) {
    copy_row(from + row * from_stride, count, to + row * to_stride);
  }
}

// The widest block of sequences that is taken through the loop at once, in vectors.
constexpr int block_vectors = 2;

// Calls body(Index<vectors>(), first vector) for the blocks of the vectors [begin, end).
template <class Body>
RNNCELLS_INLINE void for_blocks(int64_t begin, int64_t end, const Body& body) {
  int64_t vector = begin;
  for (; vector + block_vectors <= end; vector += block_vectors)
    body(Index<block_vectors>(), vector);
  if (vector < end) body(Index<1>(), vector);
}

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
