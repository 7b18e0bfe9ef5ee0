// What a layer's way needs besides the kernels: memory of the device, and a library's products. The
// operators give it torch's; the emulation gives it plain loops, and so proves the same way.
//
// A Library offers, for T one of the stored types and C = Compute<T>:
//   Stream stream()
//   V* allocate<V>(count): uninitialised, 16 bytes aligned, there until the library goes; null for
//     none
//   product(Matrix<const T> a, Matrix<const T> b, C* out): something to call, each time for
//     out [a.rows, b.columns] = a b, summed in C
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda/engine.h"

namespace rnncells::gpu {

// Strides in elements.
template <class T>
struct Matrix {
  T* data;
  int64_t rows, columns, row_stride, column_stride;

  Matrix transposed() const { return {data, columns, rows, column_stride, row_stride}; }
  Matrix rows_from(int64_t first, int64_t count) const {
    return {data + first * row_stride, count, columns, row_stride, column_stride};
  }
  Matrix columns_from(int64_t first, int64_t count) const {
    return {data + first * column_stride, rows, count, row_stride, column_stride};
  }
};

template <class T>
Matrix<const T> matrix(const T* data, int64_t rows, int64_t columns) {
  return {data, rows, columns, columns, 1};
}

inline void check_call(const char* wrong) {
  if (wrong != nullptr) throw std::runtime_error(std::string("rnncells: CUDA: ") + wrong);
}

// The same as library.product, rounded once to T.
template <class T, class Library>
auto rounded_product(Library& library, const Matrix<const T>& a, const Matrix<const T>& b, T* out) {
  if constexpr (std::is_same_v<T, Compute<T>>) {
    return library.product(a, b, out);
  } else {
    const int64_t count = a.rows * b.columns;
    Compute<T>* wide = library.template allocate<Compute<T>>(count);
    return [=, run = library.product(a, b, wide), stream = library.stream()] {
      run();
      check_call(narrow_sum(NarrowSum<T>{wide, nullptr, out, count}, stream));
    };
  }
}

}  // namespace rnncells::gpu
