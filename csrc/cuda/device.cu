// What the kernels' choice needs to know of a device.
#include <cuda_runtime.h>

#include "cuda/choose.h"

namespace rnncells::gpu {

const char* read_device(int device, DeviceFacts& facts) {
  int major = 0, minor = 0, shared = 0;
  const auto read = [&](int& value, cudaDeviceAttr attribute) {
    return cudaDeviceGetAttribute(&value, attribute, device);
  };
  cudaError_t status = read(major, cudaDevAttrComputeCapabilityMajor);
  if (status == cudaSuccess) status = read(minor, cudaDevAttrComputeCapabilityMinor);
  if (status == cudaSuccess) {
    status = read(facts.multiprocessors, cudaDevAttrMultiProcessorCount);
  }
  if (status == cudaSuccess) status = read(shared, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  facts.architecture = major * 10 + minor;
  facts.shared_bytes = shared;
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // namespace rnncells::gpu
