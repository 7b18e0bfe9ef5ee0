// Loads and stores that convert between how a value is stored and what it is computed in.
//
// float and double are computed as they are stored; the 16-bit types become float, and are rounded
// to nearest even on the way back. NaN stays NaN, and what is too large becomes infinite.
#pragma once

#include "cpu/half.h"
#include "cpu/simd.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class S>
constexpr bool converts = sizeof(S) != sizeof(Compute<S>);

#if RNNCELLS_VECTOR_BYTES == 64
RNNCELLS_INLINE Vec<float> widen(__m256i half, Float16) {
  return (Register<float>::Native)_mm512_maskz_cvtph_ps(0xffff, half);
}
RNNCELLS_INLINE Vec<float> widen(__m256i half, BFloat16) {
  const __m512i bits = _mm512_maskz_cvtepu16_epi32(0xffff, half);
  return (Register<float>::Native)_mm512_maskz_slli_epi32(0xffff, bits, 16);
}
RNNCELLS_INLINE __m256i narrow(Vec<float> value, Float16) {
  return _mm512_maskz_cvtps_ph(0xffff, (__m512)value.v, _MM_FROUND_TO_NEAREST_INT);
}
RNNCELLS_INLINE __m256i narrow(Vec<float> value, BFloat16) {
  constexpr __mmask16 all = 0xffff;
  const __m512i bits = (__m512i)value.v, one = _mm512_set1_epi32(1);
  const __m512i last = _mm512_maskz_and_epi32(all, _mm512_maskz_srli_epi32(all, bits, 16), one);
  const __m512i half = _mm512_maskz_add_epi32(all, last, _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_maskz_srli_epi32(all, _mm512_maskz_add_epi32(all, bits, half), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask((__m512)value.v, (__m512)value.v, _CMP_UNORD_Q);
  return _mm512_maskz_cvtepi32_epi16(
      all, _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0)));
}
#else
// Integer lanes beside the float ones.
using Bits = Register<float>::Bits;

RNNCELLS_INLINE Vec<float> as_floats(Bits bits) {
  return Vec<float>(reinterpret_cast<Register<float>::Native>(bits));
}
#if RNNCELLS_VECTOR_BYTES == 32
RNNCELLS_INLINE Vec<float> widen(__m128i half, Float16) {
  return (Register<float>::Native)_mm256_cvtph_ps(half);
}
RNNCELLS_INLINE Vec<float> widen(__m128i half, BFloat16) {
  return as_floats((Bits)_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
RNNCELLS_INLINE __m128i narrow(Vec<float> value, Float16) {
  return _mm256_cvtps_ph((__m256)value.v, _MM_FROUND_TO_NEAREST_INT);
}
RNNCELLS_INLINE __m128i narrow(Vec<float> value, BFloat16) {
  const __m256i bits = (__m256i)value.v;
  const __m256i last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i half = _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
  const __m256i nan = (__m256i)_mm256_cmp_ps((__m256)value.v, (__m256)value.v, _CMP_UNORD_Q);
  const __m256i result = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
  // Packing works on each half of the register apart.
  const __m256i packed = _mm256_packus_epi32(result, result);
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0xd8));
}
#endif
#endif

// One value.
RNNCELLS_INLINE float widen(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  memcpy(&result, &bits, sizeof(result));
  return result;
}
RNNCELLS_INLINE BFloat16 narrow(float value, BFloat16) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fc0};
  // Half of the last bit kept, less a little where that bit is zero, carries upwards.
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

RNNCELLS_INLINE float widen(Float16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  // The exponent moves into place; a product with a power of two repairs its bias, denormal
  // numbers included. Infinity and NaN need the largest exponent.
  uint32_t bits = magnitude << 13;
  float result;
  memcpy(&result, &bits, sizeof(result));
  result *= 0x1p112f;
  memcpy(&bits, &result, sizeof(bits));
  if (magnitude >= 0x7c00u) bits |= 0x7f800000u;
  bits |= sign;
  memcpy(&result, &bits, sizeof(result));
  return result;
}
RNNCELLS_INLINE Float16 narrow(float value, Float16) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (bits >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // from 65520 on
  if (bits < 0x38800000u) {  // below 2^-14: the addition rounds to multiples of 2^-24
    float magnitude;
    memcpy(&magnitude, &bits, sizeof(magnitude));
    magnitude += 0.5f;
    memcpy(&bits, &magnitude, sizeof(bits));
    return {static_cast<uint16_t>(sign | (bits - 0x3f000000u))};
  }
  bits += 0xfffu + ((bits >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((bits - 0x38000000u) >> 13))};
}
RNNCELLS_INLINE float widen(float value) { return value; }
RNNCELLS_INLINE double widen(double value) { return value; }
RNNCELLS_INLINE float narrow(float value, float) { return value; }
RNNCELLS_INLINE double narrow(double value, double) { return value; }

// A whole vector.
RNNCELLS_INLINE Vec<float> load_vector(const float* p) { return Vec<float>::load(p); }
RNNCELLS_INLINE Vec<double> load_vector(const double* p) { return Vec<double>::load(p); }
RNNCELLS_INLINE void store_vector(Vec<float> value, float* p) { value.store(p); }
RNNCELLS_INLINE void store_vector(Vec<double> value, double* p) { value.store(p); }

template <class S>
RNNCELLS_INLINE Vec<float> load_vector(const S* p) {
#if RNNCELLS_VECTOR_BYTES == 64
  return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), S());
#elif RNNCELLS_VECTOR_BYTES == 32
  return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), S());
#else
  alignas(RNNCELLS_VECTOR_BYTES) float wide[Vec<float>::lanes];
  for (int i = 0; i < Vec<float>::lanes; ++i) wide[i] = widen(p[i]);
  return Vec<float>::load(wide);
#endif
}
template <class S>
RNNCELLS_INLINE void store_vector(Vec<float> value, S* p) {
#if RNNCELLS_VECTOR_BYTES == 64
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(value, S()));
#elif RNNCELLS_VECTOR_BYTES == 32
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(value, S()));
#else
  alignas(RNNCELLS_VECTOR_BYTES) float wide[Vec<float>::lanes];
  value.store(wide);
  for (int i = 0; i < Vec<float>::lanes; ++i) p[i] = narrow(wide[i], S());
#endif
}

// Its first n lanes; the others are zero when loaded and untouched when stored. 0 <= n <= lanes.
RNNCELLS_INLINE Vec<float> load_vector(const float* p, int n) { return Vec<float>::load(p, n); }
RNNCELLS_INLINE Vec<double> load_vector(const double* p, int n) { return Vec<double>::load(p, n); }
RNNCELLS_INLINE void store_vector(Vec<float> value, float* p, int n) { value.store(p, n); }
RNNCELLS_INLINE void store_vector(Vec<double> value, double* p, int n) { value.store(p, n); }

#if RNNCELLS_VECTOR_BYTES == 64
RNNCELLS_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }

template <class S>
RNNCELLS_INLINE Vec<float> load_vector(const S* p, int n) {
  return widen(_mm256_maskz_loadu_epi16(first_lanes(n), p), S());
}
template <class S>
RNNCELLS_INLINE void store_vector(Vec<float> value, S* p, int n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n), narrow(value, S()));
}
#else
// No more values than lanes; a call of memcpy would cost more than it copies.
template <class S>
RNNCELLS_INLINE void copy_few(const S* from, int n, S* to) {
  RNNCELLS_UNROLL
  for (int some = Vec<float>::lanes; some > 0; some /= 2) {
    if ((n & some) == 0) continue;
    memcpy(to, from, static_cast<size_t>(some) * sizeof(S));
    from += some;
    to += some;
  }
}
template <class S>
RNNCELLS_INLINE Vec<float> load_vector(const S* p, int n) {
  S some[Vec<float>::lanes] = {};
  copy_few(p, n, some);
  return load_vector(some);
}
template <class S>
RNNCELLS_INLINE void store_vector(Vec<float> value, S* p, int n) {
  S some[Vec<float>::lanes];
  store_vector(value, some);
  copy_few(some, n, p);
}
#endif

// The whole vector where the caller knows that it is Full, else its first `present` lanes.
template <bool Full, class S>
RNNCELLS_INLINE Vec<Compute<S>> load_lanes(const S* p, int present) {
  return Full ? load_vector(p) : load_vector(p, present);
}
template <bool Full, class S>
RNNCELLS_INLINE void store_lanes(Vec<Compute<S>> value, S* p, int present) {
  if (Full) {
    store_vector(value, p);
  } else {
    store_vector(value, p, present);
  }
}

// The same of a value that S has: nothing is left to round.
template <class S>
RNNCELLS_INLINE void store_rounded(Vec<float> value, S* p) {
#if RNNCELLS_VECTOR_BYTES == 64
  if constexpr (std::is_same_v<S, BFloat16>) {
    const __m512i bits = _mm512_maskz_srli_epi32(0xffff, (__m512i)value.v, 16);
    _mm512_mask_cvtepi32_storeu_epi16(p, 0xffff, bits);
    return;
  }
#endif
  store_vector(value, p);
}
RNNCELLS_INLINE void store_rounded(Vec<float> value, float* p) { value.store(p); }
RNNCELLS_INLINE void store_rounded(Vec<double> value, double* p) { value.store(p); }

// A value as it is when it comes back from where S is stored.
template <class S>
RNNCELLS_INLINE Vec<Compute<S>> rounded(Vec<Compute<S>> value) {
  if constexpr (!converts<S>) {
    return value;
  } else {
#if RNNCELLS_VECTOR_BYTES >= 32
    return widen(narrow(value, S()), S());
#else
    S stored[Vec<Compute<S>>::lanes];
    store_vector(value, stored);
    return load_vector(stored);
#endif
  }
}

// n values, as they are.
template <class S>
RNNCELLS_INLINE void copy_row(const S* from, int64_t n, S* to) {
  if (to != from) memcpy(to, from, static_cast<size_t>(n) * sizeof(S));
}
template <class S>
RNNCELLS_INLINE void clear_row(S* to, int64_t n) {
  memset(static_cast<void*>(to), 0, static_cast<size_t>(n) * sizeof(S));
}

// n values, widened or narrowed.
template <class S>
RNNCELLS_INLINE void widen_values(const S* from, int64_t n, Compute<S>* to) {
  constexpr int lanes = Vec<Compute<S>>::lanes;
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) load_vector(from + j).store(to + j);
  const int left = static_cast<int>(n - j);
  if (left > 0) load_vector(from + j, left).store(to + j, left);
}
template <class S>
RNNCELLS_OUT_OF_LINE void widen_row(const S* from, int64_t n, Compute<S>* to) {
  widen_values(from, n, to);
}
template <class S>
RNNCELLS_OUT_OF_LINE void narrow_row(const Compute<S>* from, int64_t n, S* to) {
  using V = Vec<Compute<S>>;
  int64_t j = 0;
  for (; j + V::lanes <= n; j += V::lanes) store_vector(V::load(from + j), to + j);
  const int left = static_cast<int>(n - j);
  if (left > 0) store_vector(V::load(from + j, left), to + j, left);
}

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
