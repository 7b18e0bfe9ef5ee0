// The engine in AVX2, FMA and F16C.
#if defined(__x86_64__)
#include "cpu/system_headers.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define RNNCELLS_ISA avx2
#define RNNCELLS_VECTOR_BYTES 32
#define RNNCELLS_VECTOR_REGISTERS 16

#include "cpu/entry.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
