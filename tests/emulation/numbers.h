// Stored numbers and matrix tiles on a CPU, with the rounding of the hardware.
#pragma once

#include <cmath>
#include <cstring>

namespace rnncells::gpu {

inline float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float widen(float value) { return value; }
inline double widen(double value) { return value; }
inline float widen(BFloat16 value) { return as_float(uint32_t{value.bits} << 16); }
inline float widen(TensorFloat value) { return as_float(value.bits & ~0x1fffu); }
inline float widen(Float16 value) {
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16, size = value.bits & 0x7fffu;
  if (size >= 0x7c00) return as_float(sign | 0x7f800000u | size << 13);
  return as_float(sign | as_bits(as_float(size << 13) * 0x1p112f));
}

// To the nearest; of two equally near, to the even one. What lies below the bits that stay carries
// into them.
inline uint32_t rounded_bits(float value, int dropped) {
  const uint32_t bits = as_bits(value), last = bits >> dropped & 1;
  return bits + (1u << (dropped - 1)) - 1 + last;
}
inline void narrow(float value, float& result) { result = value; }
inline void narrow(double value, double& result) { result = value; }
inline void narrow(float value, BFloat16& result) {
  result.bits = std::isnan(value) ? 0x7fff : static_cast<uint16_t>(rounded_bits(value, 16) >> 16);
}
inline void narrow(float value, TensorFloat& result) {
  // To the nearest; of two equally near, away from zero.
  result.bits = std::isfinite(value) ? (as_bits(value) + 0x1000u) & ~0x1fffu : as_bits(value);
}
inline void narrow(float value, Float16& result) {
  const auto sign = static_cast<uint16_t>(as_bits(value) >> 16 & 0x8000);
  const float size = std::fabs(value);
  if (std::isnan(value)) {
    result.bits = 0x7fff;
  } else if (size < 0x1p-14f) {  // a denormal: the addition rounds
    result.bits = static_cast<uint16_t>(sign | (as_bits(size + 0.5f) - as_bits(0.5f)));
  } else {
    const uint32_t bits = size >= 65520.0f ? 0x7c00 : (rounded_bits(size, 13) >> 13) - (112 << 10);
    result.bits = static_cast<uint16_t>(sign | bits);
  }
}

inline float fused_multiply_add(float a, float b, float c) {
  return static_cast<float>(static_cast<double>(a) * b + c);
}
inline double fused_multiply_add(double a, double b, double c) { return std::fma(a, b, c); }
inline float quick_divide(float a, float b) { return a / b; }

// Element (row, k) of what the lanes hold of the first factor, and (k, column) of the second; PTX
// ISA, "Matrix fragments for mma.m16n8k16" and "mma.m16n8k8".
template <class E>
struct Fragments {
  uint32_t a[4], b[2];
};
template <class E>
float stored_at(uint32_t word, int half, E) {
  const E value{static_cast<uint16_t>(half == 0 ? word & 0xffff : word >> 16)};
  return widen(value);
}
inline float stored_at(uint32_t word, int, TensorFloat) { return widen(TensorFloat{word}); }

template <class E>
void multiply_tile(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], E kind,
                   int line = __builtin_LINE()) {
  constexpr int each = sizeof(E) == 2 ? 2 : 1, depth = 8 * each;
  const Fragments<E> own = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const auto multiply = [&](auto look) {
    const int lane = thread_index() % warp_lanes;
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      for (int k = 0; k < depth; ++k) {
        const int high = k / (4 * each), holder = k / each % 4, half = k % each;
        const Fragments<E>* first = look(row % 8 * 4 + holder);
        const Fragments<E>* second = look(column * 4 + holder);
        if (first == nullptr || second == nullptr) machine().stop("multiplies in a part of a warp");
        sums[i] += stored_at(first->a[row / 8 + 2 * high], half, kind) *
                   stored_at(second->b[high], half, kind);
      }
    }
    return 0;
  };
  with_lanes(own, multiply, line);
}

}  // namespace rnncells::gpu
