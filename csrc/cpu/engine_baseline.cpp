// The engine in the vectors that every processor of the architecture has (SSE2, NEON).
#define RNNCELLS_ISA baseline
#define RNNCELLS_VECTOR_BYTES 16
#if defined(__aarch64__)
#define RNNCELLS_VECTOR_REGISTERS 32
#else
#define RNNCELLS_VECTOR_REGISTERS 16
#endif

#include "cpu/entry.h"
