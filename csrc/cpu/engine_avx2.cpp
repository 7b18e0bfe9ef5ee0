// The engine in AVX2 and FMA.
#if defined(__x86_64__)
#include "cpu/system_headers.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define RNNCELLS_ISA avx2
#define RNNCELLS_VECTOR_BYTES 32
#define RNNCELLS_VECTOR_REGISTERS 16

#include "cpu/entry.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
