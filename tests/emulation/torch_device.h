// The host version of csrc/cuda_glue/device.h: torch's tensors on the CPU are the emulated card's
// memory, so that the very operators run there, every access of their kernels checked.
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include <cstdlib>

#include "cuda/primitives.cuh"
#include "cuda_glue/kernels.h"
#include "tensors.h"

namespace rnncells::device {

// A small card, so that small layers are split. Lengths are on it where a test says so.
inline bool is_here(const Tensor& tensor) {
  if (tensor.scalar_type() != ScalarType::Long) return tensor.is_cpu();
  return std::getenv("RNNCELLS_EMULATED_LENGTHS") != nullptr;
}

class Place {
 public:
  explicit Place(const Tensor&) {}
  gpu::Stream stream() const { return nullptr; }
  const gpu::DeviceFacts& facts() const { return device_facts(0); }
};

// As on CUDA: sums in float32 of factors of 16 bits.
inline void multiply(const Tensor& out, const Tensor& a, const Tensor& b) {
  const auto wide = [&](const Tensor& factor) {
    return factor.scalar_type() == out.scalar_type() ? factor
                                                     : torch::stable::to(factor, out.scalar_type());
  };
  const Tensor left = wide(a), right = wide(b);
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mm_out(out.get(), left.get(), right.get()));
}

inline void tell(const void* begin, int64_t bytes) {
  emulation::Machine::instance().buffers.add(begin, bytes);
}
// Not a number where nobody wrote.
inline void tell_fresh(void* begin, int64_t bytes) {
  std::memset(begin, 0xff, bytes);
  tell(begin, bytes);
}
inline void forget(const void* begin) { emulation::Machine::instance().buffers.remove(begin); }

}  // namespace rnncells::device
