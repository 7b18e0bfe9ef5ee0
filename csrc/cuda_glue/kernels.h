// Which kernel serves, as torch's settings and the caller have it. No torch header.
#pragma once

#include <string>

#include "cuda/choose.h"

namespace rnncells {

// Read once of each device. Throws where it cannot be read.
const gpu::DeviceFacts& device_facts(int device);

// Whether torch's settings allow TF32 in products of float32, on the current device.
bool tensor_floats_allowed();

// Throws std::invalid_argument for a name that no kernel has; "" forces none.
void force_kernel(const std::string& name);

// Throws where the kernel that is forced cannot serve.
gpu::Choice choose_kernel(const gpu::DeviceFacts& device, const gpu::LayerFacts& layer,
                          bool backward);

}  // namespace rnncells
