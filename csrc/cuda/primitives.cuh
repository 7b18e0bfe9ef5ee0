// The only way in which kernels touch the hardware. nvcc takes primitives_device.cuh; a plain C++
// compiler takes the host version of tests/emulation, with which the very same kernel source runs
// on a CPU, every access and every barrier checked.
//
// What both offer, in rnncells::gpu:
//   RNNCELLS_KERNEL(threads) name(RNNCELLS_PARAMETER(Call) call): a kernel, and the most threads of
//     a block that it is compiled for
//   thread_index(), block_threads(), block_index(): one dimension each
//   block_barrier(), warp_barrier(), shuffle_down(value, distance)
//   Global<T>, Shared<T>: memory of the card, and of the block; read(p, i), write(p, i, value),
//     read_pack<N>(p, i) and write_pack(p, i, pack) access it; i counts elements
//   read_once(p, i): a read of what nobody reads again; will_read(p, i): brings it near
//   SharedMemory: the block's dynamic shared memory; take<T>(count) cuts the next array from it,
//     16 bytes aligned
//   copy_async(shared, i, global, j): 16 bytes, which land at the wait; copy_commit() closes a
//     group, copy_wait<N>() waits for all groups but the last N
//   cluster_rank(), cluster_barrier(), at_rank(shared, rank): shared memory of a cluster's blocks
//   group_barrier(counter, blocks, round): one of `blocks` blocks of a cooperative launch
//   multiply_tile(sums, a, b, E()): a product of matrix tiles by all lanes of a warp, see tiles.cuh
//   widen(stored), narrow(value, stored): from and to how a value is stored
//   fused_multiply_add, quick_divide
//   launch(kernel, call, shape, stream): null, or what went wrong
#pragma once

#include <cstdint>
#include <cstring>

#include "cells/host_device.h"
#include "cpu/half.h"

namespace rnncells::gpu {

constexpr int warp_lanes = 32;

// A float rounded to the 10 bits of fraction that a tensor core multiplies in TF32.
struct TensorFloat {
  uint32_t bits;
};

// N values that are read or written at once.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];
};

struct LaunchShape {
  int64_t blocks;
  int threads;
  int64_t shared_bytes = 0;
  int cluster = 1;           // blocks of a cluster
  bool cooperative = false;  // all blocks run at once
};

using Stream = void*;  // a cudaStream_t

}  // namespace rnncells::gpu

#if defined(__CUDACC__)
#include "cuda/primitives_device.cuh"
#else
#include "emulation/primitives_host.h"
#endif
