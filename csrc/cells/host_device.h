// The one mark that lets the same lines run in the CPU engine, in a CUDA thread and in a plain
// test.
#pragma once

#if defined(__CUDACC__)
#define RNNCELLS_INLINE __host__ __device__ __forceinline__
#else
// Always inlined: a copy out of line would keep the instruction set of whoever compiled it first.
#define RNNCELLS_INLINE inline __attribute__((always_inline))
#endif

// A function of which one copy is enough: inlined everywhere, the engine takes three times as long
// to compile.
#define RNNCELLS_OUT_OF_LINE __attribute__((noinline))
#if defined(__CUDACC__)
#define RNNCELLS_ONE_COPY __host__ __device__ __noinline__
#else
#define RNNCELLS_ONE_COPY RNNCELLS_OUT_OF_LINE
#endif

// Before a loop with few, constant turns over values that belong in registers.
#if defined(__CUDACC__) || defined(__clang__)
#define RNNCELLS_UNROLL _Pragma("unroll")
#else
#define RNNCELLS_UNROLL _Pragma("GCC unroll 16")
#endif
