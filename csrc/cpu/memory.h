// Work space of one call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "cells/host_device.h"

namespace rnncells {
namespace RNNCELLS_ISA {

RNNCELLS_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
RNNCELLS_INLINE int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }
RNNCELLS_INLINE int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Uninitialised elements on a cache line's boundary.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size) {
    if (size == 0) {
      data_ = reinterpret_cast<T*>(nothing);
      return;
    }
    const size_t bytes = static_cast<size_t>(ceil_divide(size * sizeof(T), 64) * 64);
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Buffer() {
    if (static_cast<const void*>(data_) != nothing) std::free(data_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* get() const { return data_; }
  T* operator+(int64_t offset) const { return data_ + offset; }
  void clear(int64_t size) {
    std::memset(static_cast<void*>(data_), 0, static_cast<size_t>(size) * sizeof(T));
  }

 private:
  // What an empty one points to: many passes have many that only a variant fills.
  alignas(64) inline static unsigned char nothing[64];

  T* data_;
};

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
