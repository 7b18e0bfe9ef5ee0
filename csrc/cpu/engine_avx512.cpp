// The engine in AVX-512 (foundation, and the parts that every processor since Skylake has with it).
#if defined(__x86_64__)
#include "cpu/system_headers.h"

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,prefer-vector-width=512")
#endif

#define RNNCELLS_ISA avx512
#define RNNCELLS_VECTOR_BYTES 64
#define RNNCELLS_VECTOR_REGISTERS 32

#include "cpu/entry.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
