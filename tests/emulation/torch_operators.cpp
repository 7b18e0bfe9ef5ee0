// The operators of csrc/cuda_glue on the emulated card, as torch.ops.rnncells_emulated.
#include <torch/csrc/stable/library.h>

#include "cuda_glue/device.h"
#include "schemas.h"

namespace rnncells {

bool tensor_floats_allowed() { return std::getenv("RNNCELLS_EMULATED_TF32") != nullptr; }

namespace gpu {
const char* read_device(int, DeviceFacts& facts) {
  facts = {90, 6, Machine::instance().shared_limit};
  return nullptr;
}
}  // namespace gpu
}  // namespace rnncells

STABLE_TORCH_LIBRARY(rnncells_emulated, library) {
  for (const char* schema : rnncells::schemas) library.def(schema);
}

// "" forces none; false if no kernel has the name.
extern "C" __attribute__((visibility("default"))) bool rnncells_emulated_force(const char* name) {
  try {
    rnncells::force_kernel(name);
  } catch (const std::invalid_argument&) {
    return false;
  }
  return true;
}
