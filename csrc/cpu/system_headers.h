// The headers that the engine uses, to be included before the instruction set is switched: what
// they define is shared with the rest of the program and must run on every processor.
#pragma once

#include <sched.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <type_traits>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cpu/engine.h"
