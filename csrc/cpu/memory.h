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

// What an empty buffer points to: many passes have many that only a variant fills.
alignas(64) inline unsigned char no_bytes[64];
constexpr void* nothing = no_bytes;

RNNCELLS_OUT_OF_LINE inline void* allocate(int64_t bytes) {
  void* data = std::aligned_alloc(64, static_cast<size_t>(ceil_divide(bytes, 64) * 64));
  if (data == nullptr) throw std::bad_alloc();
  return data;
}

// Uninitialised elements on a cache line's boundary.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : data_(static_cast<T*>(size == 0 ? nothing : allocate(size * int64_t{sizeof(T)}))) {}
  ~Buffer() {
    if (data_ != nothing) std::free(data_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* get() const { return data_; }
  T* operator+(int64_t offset) const { return data_ + offset; }
  void clear(int64_t size) {
    std::memset(static_cast<void*>(data_), 0, static_cast<size_t>(size) * sizeof(T));
  }

 private:
  T* data_;
};

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
