// What the kernels' choice needs to know of a device.
#include <cuda_runtime.h>

#include "cuda/choose.h"

namespace rnncells::gpu {
namespace {

// Stands for all kernels where the driver is asked what it loads for a device.
__global__ void any_kernel() {}

}  // namespace

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
  // Older PTX that the driver compiled for the device has no more than its own architecture has.
  cudaFuncAttributes loaded{};
  int current = 0;
  if (status == cudaSuccess) status = cudaGetDevice(&current);
  if (status == cudaSuccess) {
    status = cudaSetDevice(device);
    if (status == cudaSuccess) status = cudaFuncGetAttributes(&loaded, any_kernel);
    const cudaError_t back = cudaSetDevice(current);
    if (status == cudaSuccess) status = back;
  }
  const int architecture = major * 10 + minor;
  facts.architecture = loaded.ptxVersion < architecture ? loaded.ptxVersion : architecture;
  facts.shared_bytes = shared;
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // namespace rnncells::gpu
