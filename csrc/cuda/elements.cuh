// One thread for each element of a matrix.
#pragma once

#include "cuda/values.cuh"

namespace rnncells::gpu {

constexpr int element_threads = 256;

// The element of a [rows, columns] matrix that a thread looks after; row -1: there is none.
struct Element {
  int64_t row, column;
};
RNNCELLS_DEVICE Element element_of(int64_t rows, int64_t columns) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i >= rows * columns) return {-1, 0};
  return {i / columns, i % columns};
}

}  // namespace rnncells::gpu
