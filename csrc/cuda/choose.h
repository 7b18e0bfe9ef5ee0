// Which kernel serves a layer, by the device, the shape and the type alone.
#pragma once

#include "cuda/engine.h"

namespace rnncells::gpu {

// resident: the recurrent weights of a layer in one block, blocks split the batch. cluster, grid:
// split over the blocks of a cluster, or of a cooperative launch. step: a library's product and one
// small kernel for each time step; serves everything.
enum class Kernel { resident, cluster, grid, step };
const char* kernel_name(Kernel kernel);
// False if no kernel has this name.
bool kernel_of(const char* name, Kernel& kernel);

struct DeviceFacts {
  int architecture;  // 90 for compute capability 9.0
  int multiprocessors;
  int64_t shared_bytes;  // of a block, at most
};
// Null, or what went wrong.
const char* read_device(int device, DeviceFacts& facts);

struct LayerFacts {
  int cell;            // see cell_traits
  bool single;         // stored as float
  bool sixteen_bits;   // as Float16 or BFloat16; if neither, as double
  bool tensor_floats;  // products of floats may be rounded to TF32
  int64_t steps, batch, units;
  bool projected;
  bool varied = false;  // has a variant; an open cell always has one
};

struct Choice {
  Kernel kernel;
  Operand operand;      // these two for a persistent kernel
  PersistentPlan plan;  // of this direction in time
  const char* refused;  // why it is not the forced kernel; else null
};

// Forward and backward are chosen each for itself: what is kept between them is the same.
Choice choose(const DeviceFacts& device, const LayerFacts& layer, bool backward,
              const Kernel* forced = nullptr);

}  // namespace rnncells::gpu
