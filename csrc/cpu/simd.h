// One vector class over the widths that the engine is compiled for.
//
// Included once by each engine_*.cpp, which names the namespace (RNNCELLS_ISA), the width in bytes
// (RNNCELLS_VECTOR_BYTES) and the number of vector registers (RNNCELLS_VECTOR_REGISTERS), and
// switches the compiler to that instruction set. Everything the engine instantiates lives in that
// namespace, so that no code for a wide machine is ever shared with a narrow one.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "cells/activations.h"

namespace rnncells {
namespace RNNCELLS_ISA {

// gcc 12 loses the attribute of a vector type that depends on a template's parameter.
template <class T>
struct Register;
template <>
struct Register<float> {
  typedef float Native __attribute__((vector_size(RNNCELLS_VECTOR_BYTES)));
  typedef float Loose
      __attribute__((vector_size(RNNCELLS_VECTOR_BYTES), aligned(alignof(float)), may_alias));
  typedef uint32_t Bits __attribute__((vector_size(RNNCELLS_VECTOR_BYTES)));
};
template <>
struct Register<double> {
  typedef double Native __attribute__((vector_size(RNNCELLS_VECTOR_BYTES)));
  typedef double Loose
      __attribute__((vector_size(RNNCELLS_VECTOR_BYTES), aligned(alignof(double)), may_alias));
  typedef uint64_t Bits __attribute__((vector_size(RNNCELLS_VECTOR_BYTES)));
};

template <class T, int... I>
struct Indexes {};
template <class T, int N, int... I>
struct MakeIndexes : MakeIndexes<T, N - 1, N - 1, I...> {};
template <class T, int... I>
struct MakeIndexes<T, 0, I...> {
  using type = Indexes<T, I...>;
};

template <class T>
struct Vec {
  static constexpr int lanes = RNNCELLS_VECTOR_BYTES / sizeof(T);
  using Native = typename Register<T>::Native;
  using Loose = typename Register<T>::Loose;

  Native v;

  Vec() = default;
  RNNCELLS_INLINE Vec(Native native) : v(native) {}
  RNNCELLS_INLINE explicit Vec(T scalar)
      : v(spread(scalar, typename MakeIndexes<T, lanes>::type())) {}
  RNNCELLS_INLINE explicit Vec(int scalar) : Vec(static_cast<T>(scalar)) {}

  RNNCELLS_INLINE static Vec load(const T* p) {
    return Vec(static_cast<Native>(*reinterpret_cast<const Loose*>(p)));
  }
  RNNCELLS_INLINE void store(T* p) const { *reinterpret_cast<Loose*>(p) = v; }

  // The first n lanes; the others are zero when loaded and untouched when stored. 0 <= n <= lanes.
  RNNCELLS_INLINE static Vec load(const T* p, int n);
  RNNCELLS_INLINE void store(T* p, int n) const;

 private:
  template <int... I>
  RNNCELLS_INLINE static Native spread(T scalar, Indexes<T, I...>) {
    return Native{(static_cast<void>(I), scalar)...};
  }
};

template <class T>
RNNCELLS_INLINE Vec<T> operator+(Vec<T> a, Vec<T> b) {
  return Vec<T>(a.v + b.v);
}
template <class T>
RNNCELLS_INLINE Vec<T> operator-(Vec<T> a, Vec<T> b) {
  return Vec<T>(a.v - b.v);
}
template <class T>
RNNCELLS_INLINE Vec<T> operator*(Vec<T> a, Vec<T> b) {
  return Vec<T>(a.v * b.v);
}
template <class T>
RNNCELLS_INLINE Vec<T> operator/(Vec<T> a, Vec<T> b) {
  return Vec<T>(a.v / b.v);
}
#if RNNCELLS_VECTOR_BYTES == 64
RNNCELLS_INLINE Vec<float> mul_add(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Register<float>::Native)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v);
}
RNNCELLS_INLINE Vec<float> neg_mul_add(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Register<float>::Native)_mm512_fnmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v);
}
RNNCELLS_INLINE Vec<double> mul_add(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Register<double>::Native)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v);
}
RNNCELLS_INLINE Vec<double> neg_mul_add(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Register<double>::Native)_mm512_fnmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v);
}
#elif RNNCELLS_VECTOR_BYTES == 32
RNNCELLS_INLINE Vec<float> mul_add(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Register<float>::Native)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v);
}
RNNCELLS_INLINE Vec<float> neg_mul_add(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Register<float>::Native)_mm256_fnmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v);
}
RNNCELLS_INLINE Vec<double> mul_add(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Register<double>::Native)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v);
}
RNNCELLS_INLINE Vec<double> neg_mul_add(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Register<double>::Native)_mm256_fnmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v);
}
#elif defined(__aarch64__)
RNNCELLS_INLINE Vec<float> mul_add(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Register<float>::Native)vfmaq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v);
}
RNNCELLS_INLINE Vec<float> neg_mul_add(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Register<float>::Native)vfmsq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v);
}
RNNCELLS_INLINE Vec<double> mul_add(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Register<double>::Native)vfmaq_f64((float64x2_t)c.v, (float64x2_t)a.v, (float64x2_t)b.v);
}
RNNCELLS_INLINE Vec<double> neg_mul_add(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Register<double>::Native)vfmsq_f64((float64x2_t)c.v, (float64x2_t)a.v, (float64x2_t)b.v);
}
#else
template <class T>
RNNCELLS_INLINE Vec<T> mul_add(Vec<T> a, Vec<T> b, Vec<T> c) {
  return a * b + c;
}
template <class T>
RNNCELLS_INLINE Vec<T> neg_mul_add(Vec<T> a, Vec<T> b, Vec<T> c) {
  return c - a * b;
}
#endif

template <class T>
RNNCELLS_INLINE Vec<T> select_less(Vec<T> a, Vec<T> b, Vec<T> yes, Vec<T> no) {
  return Vec<T>(a.v < b.v ? yes.v : no.v);
}
RNNCELLS_INLINE Vec<float> power_of_two(Vec<float> shifted) {
  using Bits = Register<float>::Bits;
  return Vec<float>(reinterpret_cast<Vec<float>::Native>((reinterpret_cast<Bits>(shifted.v) << 23) +
                                                         uint32_t{0x3f800000}));
}
RNNCELLS_INLINE Vec<double> power_of_two(Vec<double> shifted) {
  using Bits = Register<double>::Bits;
  return Vec<double>(reinterpret_cast<Vec<double>::Native>(
      (reinterpret_cast<Bits>(shifted.v) << 52) + uint64_t{0x3ff0000000000000}));
}

#if RNNCELLS_VECTOR_BYTES == 64
// The hardware's minimum and maximum give the second operand where one is a NaN. (The masks are
// full; without them gcc 12 warns of a variable in its own header.)
RNNCELLS_INLINE Vec<float> at_most(Vec<float> x, Vec<float> limit) {
  return (Register<float>::Native)_mm512_maskz_min_ps(0xffff, (__m512)limit.v, (__m512)x.v);
}
RNNCELLS_INLINE Vec<double> at_most(Vec<double> x, Vec<double> limit) {
  return (Register<double>::Native)_mm512_maskz_min_pd(0xff, (__m512d)limit.v, (__m512d)x.v);
}
RNNCELLS_INLINE Vec<float> at_least(Vec<float> x, Vec<float> limit) {
  return (Register<float>::Native)_mm512_maskz_max_ps(0xffff, (__m512)limit.v, (__m512)x.v);
}
RNNCELLS_INLINE Vec<double> at_least(Vec<double> x, Vec<double> limit) {
  return (Register<double>::Native)_mm512_maskz_max_pd(0xff, (__m512d)limit.v, (__m512d)x.v);
}
#else
// Below 64 bytes the compiler finds the hardware's minimum and maximum by itself.
template <class T>
RNNCELLS_INLINE Vec<T> at_most(Vec<T> x, Vec<T> limit) {
  return select_less(limit, x, limit, x);
}
template <class T>
RNNCELLS_INLINE Vec<T> at_least(Vec<T> x, Vec<T> limit) {
  return select_less(x, limit, limit, x);
}
#endif

#if RNNCELLS_VECTOR_BYTES == 64
template <>
RNNCELLS_INLINE Vec<float> Vec<float>::load(const float* p, int n) {
  return Vec((Native)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p));
}
template <>
RNNCELLS_INLINE void Vec<float>::store(float* p, int n) const {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), (__m512)v);
}
template <>
RNNCELLS_INLINE Vec<double> Vec<double>::load(const double* p, int n) {
  return Vec((Native)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p));
}
template <>
RNNCELLS_INLINE void Vec<double>::store(double* p, int n) const {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), (__m512d)v);
}
#elif RNNCELLS_VECTOR_BYTES == 32
RNNCELLS_INLINE __m256i mask_of_32(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
RNNCELLS_INLINE __m256i mask_of_64(int n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
template <>
RNNCELLS_INLINE Vec<float> Vec<float>::load(const float* p, int n) {
  return Vec((Native)_mm256_maskload_ps(p, mask_of_32(n)));
}
template <>
RNNCELLS_INLINE void Vec<float>::store(float* p, int n) const {
  _mm256_maskstore_ps(p, mask_of_32(n), (__m256)v);
}
template <>
RNNCELLS_INLINE Vec<double> Vec<double>::load(const double* p, int n) {
  return Vec((Native)_mm256_maskload_pd(p, mask_of_64(n)));
}
template <>
RNNCELLS_INLINE void Vec<double>::store(double* p, int n) const {
  _mm256_maskstore_pd(p, mask_of_64(n), (__m256d)v);
}
#else
template <class T>
RNNCELLS_INLINE Vec<T> Vec<T>::load(const T* p, int n) {
  Native out{};
  for (int i = 0; i < n; ++i) out[i] = p[i];
  return Vec(out);
}
template <class T>
RNNCELLS_INLINE void Vec<T>::store(T* p, int n) const {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
#endif

}  // namespace RNNCELLS_ISA

template <class T>
struct ScalarOf<RNNCELLS_ISA::Vec<T>> {
  using type = T;
};

}  // namespace rnncells
