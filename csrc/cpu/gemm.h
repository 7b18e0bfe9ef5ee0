// Matrix products on register tiles.
//
// A tile is Rows x Width vectors. Its second factor is packed in panels, [depth][columns of the
// panel], so that each step of the depth reads whole vectors one after another; its first factor is
// read in place, one scalar at a time, whatever its strides.
#pragma once

#include "cpu/memory.h"
#include "cpu/storage.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class T>
struct Factors {
  int64_t depth;
  const T* a;  // [rows, depth]
  int64_t row_stride, depth_stride;
  const T* b;  // packed, [depth][vectors * lanes]
};

constexpr int panel_vectors = 4;

// Accumulators of a full tile, one vector of the second factor and one scalar of the first have to
// fit the registers.
constexpr int tile_rows(int width) {
  if (RNNCELLS_VECTOR_REGISTERS >= 32) return width == 4 ? 6 : 8;
  return width == 4 ? 3 : width == 3 ? 4 : width == 2 ? 6 : 8;
}

template <class T, int Rows, int Width, int First, int Count>
RNNCELLS_INLINE void accumulate(Vec<T> (&sum)[Rows][Width], const Factors<T>& f) {
  using V = Vec<T>;
  const T* a = f.a;
  const T* b = f.b;
  for (int64_t k = 0; k < f.depth; ++k) {
    V column[Count];
    RNNCELLS_UNROLL
    for (int w = 0; w < Count; ++w) column[w] = V::load(b + w * V::lanes);
    RNNCELLS_UNROLL
    for (int m = 0; m < Rows; ++m) {
      const V scalar(a[m * f.row_stride]);
      RNNCELLS_UNROLL
      for (int w = 0; w < Count; ++w)
        sum[m][First + w] = mul_add(scalar, column[w], sum[m][First + w]);
    }
    a += f.depth_stride;
    b += Count * V::lanes;
  }
}

// out = start + first product in the columns [0, FirstEnd) + second product in [SecondBegin,
// Width).
template <class T, int Rows, int Width, int FirstEnd, int SecondBegin>
void multiply_tile(const T* start, int64_t start_stride, const Factors<T>& first,
                   const Factors<T>& second, T* out, int64_t out_stride) {
  using V = Vec<T>;
  V sum[Rows][Width];
  RNNCELLS_UNROLL
  for (int m = 0; m < Rows; ++m) {
    RNNCELLS_UNROLL
    for (int w = 0; w < Width; ++w) sum[m][w] = V(0);
  }
  accumulate<T, Rows, Width, 0, FirstEnd>(sum, first);
  accumulate<T, Rows, Width, SecondBegin, Width - SecondBegin>(sum, second);
  RNNCELLS_UNROLL
  for (int m = 0; m < Rows; ++m) {
    RNNCELLS_UNROLL
    for (int w = 0; w < Width; ++w) {
      const V total = sum[m][w] + V::load(start + m * start_stride + w * V::lanes);
      total.store(out + m * out_stride + w * V::lanes);
    }
  }
}

template <class T>
using TileKernel = void (*)(const T*, int64_t, const Factors<T>&, const Factors<T>&, T*, int64_t);

// The kernel for 1 to tile_rows(Width) rows.
template <class T, int Width, int FirstEnd, int SecondBegin, int Rows = tile_rows(Width)>
RNNCELLS_INLINE TileKernel<T> tile_kernel(int64_t rows) {
  if constexpr (Rows == 1) {
    return multiply_tile<T, 1, Width, FirstEnd, SecondBegin>;
  } else {
    if (rows == Rows) return multiply_tile<T, Rows, Width, FirstEnd, SecondBegin>;
    return tile_kernel<T, Width, FirstEnd, SecondBegin, Rows - 1>(rows);
  }
}

template <class T>
RNNCELLS_INLINE Factors<T> no_factors() {
  return {0, nullptr, 0, 0, nullptr};
}

// Calls body(first_row, rows) over tiles of nearly equal size, none above `most`.
template <class Body>
RNNCELLS_INLINE void for_row_tiles(int64_t rows, int64_t most, const Body& body) {
  int64_t tiles = ceil_divide(rows, most);
  for (int64_t row = 0; tiles > 0; --tiles) {
    const int64_t size = ceil_divide(rows - row, tiles);
    body(row, size);
    row += size;
  }
}

// Packs columns [column, column + columns) of the rows row_at(0) .. row_at(depth - 1) into a panel
// of `width` elements a row; what is missing in the width becomes zero.
template <class S, class RowAt>
RNNCELLS_INLINE void pack_rows(const RowAt& row_at, int64_t depth, int64_t column, int64_t columns,
                               int64_t column_stride, int64_t width, Compute<S>* panel) {
  using V = Vec<Compute<S>>;
  for (int64_t k = 0; k < depth; ++k, panel += width) {
    const S* source = row_at(k) + column * column_stride;
    if (column_stride == 1) {
      int64_t j = 0;
      for (; j + V::lanes <= columns; j += V::lanes) load_vector(source + j).store(panel + j);
      if (j < width) load_vector(source + j, static_cast<int>(columns - j)).store(panel + j);
    } else {
      for (int64_t j = 0; j < columns; ++j) panel[j] = widen(source[j * column_stride]);
      for (int64_t j = columns; j < width; ++j) panel[j] = 0;
    }
  }
}

// One panel of a product: c[row][columns] (+)= a x panel, for `rows` rows of a and of c; or the sum
// of two such products.
template <class T, class S, int Width = panel_vectors>
void multiply_panel(int64_t vectors, int64_t rows, const Factors<T>& factors, S* c,
                    int64_t c_stride, int64_t columns, bool add,
                    const Factors<T>& more = no_factors<T>()) {
  if constexpr (Width > 1) {
    if (vectors < Width) {
      multiply_panel<T, S, Width - 1>(vectors, rows, factors, c, c_stride, columns, add, more);
      return;
    }
  }
  using V = Vec<T>;
  constexpr int64_t width = Width * V::lanes;
  alignas(64) static constexpr T zeros[width] = {};
  alignas(64) T tile[tile_rows(Width) * width];
  for_row_tiles(rows, tile_rows(Width), [&](int64_t row, int64_t count) {
    Factors<T> part = factors, second = more;
    part.a += row * factors.row_stride;
    second.a += row * more.row_stride;
    S* target = c + row * c_stride;
    const auto kernel = tile_kernel<T, Width, Width, 0>(count);
    if constexpr (!converts<S>) {
      if (columns == width) {
        kernel(add ? target : zeros, add ? c_stride : 0, part, second, target, c_stride);
        return;
      }
    }
    kernel(zeros, 0, part, second, tile, width);
    for (int64_t m = 0; m < count; ++m) {
      for (int64_t j = 0; j < columns; j += V::lanes) {
        const int n = static_cast<int>(smaller(V::lanes, columns - j));
        V value = V::load(tile + m * width + j);
        if (add) value = load_vector(target + m * c_stride + j, n) + value;
        store_vector(value, target + m * c_stride + j, n);
      }
    }
  });
}

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
