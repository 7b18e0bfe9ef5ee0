// What is CUDA's own in the way from tensors to the engine: the stream, the device's facts, and
// torch's products, all through torch's stable ABI. (The emulation has the same for a CPU.)
#pragma once

#if defined(RNNCELLS_EMULATED)
#include "emulation/torch_device.h"
#else

#define USE_CUDA  // the stable ABI then has CUDA's part

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#include <torch/csrc/stable/accelerator.h>

#include "cuda/choose.h"
#include "cuda_glue/kernels.h"
#include "tensors.h"

namespace rnncells::device {

inline bool is_here(const Tensor& tensor) { return tensor.is_cuda(); }

// The caller's stream on a tensor's device, which is the current one while this lives.
class Place {
 public:
  explicit Place(const Tensor& tensor)
      : index_(tensor.get_device_index()), guard_(tensor.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream_));
  }
  gpu::Stream stream() const { return stream_; }
  const gpu::DeviceFacts& facts() const { return device_facts(index_); }

 private:
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
};

// out = a b, where out is of the factors' dtype or float32; below autograd and autocast.
inline void multiply(const Tensor& out, const Tensor& a, const Tensor& b) {
  if (out.scalar_type() == a.scalar_type()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_cuda_mm_out(out.get(), a.get(), b.get()));
  } else {
    TORCH_ERROR_CODE_CHECK(
        aoti_torch_cuda_mm_dtype_out(out.get(), a.get(), b.get(), dtype_code(out.scalar_type())));
  }
}

// The emulation checks every access against the memory that it was told of.
inline void tell(const void*, int64_t) {}
inline void tell_fresh(void*, int64_t) {}
inline void forget(const void*) {}

}  // namespace rnncells::device

#endif
