// The primitives on the hardware; primitives.cuh says what each is.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define RNNCELLS_DEVICE __device__ __forceinline__
#define RNNCELLS_KERNEL(threads) __global__ void __launch_bounds__(threads, 1)
// Before a loop that, unrolled, would take registers that its surroundings need.
#define RNNCELLS_ROLLED _Pragma("unroll 1")
#define RNNCELLS_PARAMETER(...) const __grid_constant__ __VA_ARGS__

namespace rnncells::gpu {

RNNCELLS_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
RNNCELLS_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
RNNCELLS_DEVICE int64_t block_index() { return blockIdx.x; }

RNNCELLS_DEVICE void block_barrier() { __syncthreads(); }
RNNCELLS_DEVICE void warp_barrier() { __syncwarp(); }
template <class V>
RNNCELLS_DEVICE V shuffle_down(V value, int distance) {
  return __shfl_down_sync(0xffffffffu, value, distance);
}

template <class T>
using Global = T*;
extern __shared__ __align__(128) unsigned char rnncells_shared[];
// An offset, half the size of a pointer: registers are scarce.
template <class T>
struct Shared {
  uint32_t offset;
  RNNCELLS_DEVICE T* pointer() const { return reinterpret_cast<T*>(rnncells_shared + offset); }
};

template <class T>
RNNCELLS_DEVICE T read(T const* p, int64_t i) {
  return p[i];
}
template <class T>
RNNCELLS_DEVICE void write(T* p, int64_t i, T value) {
  p[i] = value;
}
template <int N, class T>
RNNCELLS_DEVICE Pack<T, N> read_pack(T const* p, int64_t i) {
  return *reinterpret_cast<const Pack<T, N>*>(p + i);
}
template <class T, int N>
RNNCELLS_DEVICE void write_pack(T* p, int64_t i, Pack<T, N> pack) {
  *reinterpret_cast<Pack<T, N>*>(p + i) = pack;
}

template <class T>
RNNCELLS_DEVICE T read(Shared<T> p, int i) {
  return p.pointer()[i];
}
template <class T>
RNNCELLS_DEVICE void write(Shared<T> p, int i, T value) {
  p.pointer()[i] = value;
}
template <int N, class T>
RNNCELLS_DEVICE Pack<T, N> read_pack(Shared<T> p, int i) {
  return *reinterpret_cast<const Pack<T, N>*>(p.pointer() + i);
}
template <class T, int N>
RNNCELLS_DEVICE void write_pack(Shared<T> p, int i, Pack<T, N> pack) {
  *reinterpret_cast<Pack<T, N>*>(p.pointer() + i) = pack;
}

RNNCELLS_DEVICE float read_once(const float* p, int64_t i) { return __ldcs(p + i); }
RNNCELLS_DEVICE double read_once(const double* p, int64_t i) { return __ldcs(p + i); }
RNNCELLS_DEVICE Float16 read_once(const Float16* p, int64_t i) {
  return {__ldcs(reinterpret_cast<const unsigned short*>(p) + i)};
}
RNNCELLS_DEVICE BFloat16 read_once(const BFloat16* p, int64_t i) {
  return {__ldcs(reinterpret_cast<const unsigned short*>(p) + i)};
}
template <class T>
RNNCELLS_DEVICE void will_read(const T* p, int64_t i) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p + i));
}

class SharedMemory {
 public:
  template <class T>
  RNNCELLS_DEVICE Shared<T> take(int64_t count) {
    const uint32_t begin = used_;
    used_ += static_cast<uint32_t>((count * sizeof(T) + 15) / 16 * 16);
    return {begin};
  }

 private:
  uint32_t used_ = 0;
};

template <class T>
RNNCELLS_DEVICE void copy_async(Shared<T> to, int i, const T* from, int64_t j) {
  const auto target = static_cast<uint32_t>(__cvta_generic_to_shared(to.pointer() + i));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(from + j) : "memory");
}
RNNCELLS_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
RNNCELLS_DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

RNNCELLS_DEVICE int cluster_rank() {
#if __CUDA_ARCH__ >= 900
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
#else
  return 0;
#endif
}
RNNCELLS_DEVICE void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#else
  __trap();  // choose.cpp gives no cluster to a device without them
#endif
}
template <class T>
RNNCELLS_DEVICE T* at_rank(Shared<T> shared, int rank) {
#if __CUDA_ARCH__ >= 900
  uint64_t address;
  asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(shared.pointer()), "r"(rank));
  return reinterpret_cast<T*>(address);
#else
  return shared.pointer();
#endif
}

// The counter starts at zero and only grows: round r is over when it reaches (r + 1) * blocks.
RNNCELLS_DEVICE void group_barrier(uint32_t* counter, int blocks, int round) {
  __syncthreads();
  if (threadIdx.x == 0) {
    const auto goal = static_cast<uint32_t>(round + 1) * static_cast<uint32_t>(blocks);
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
    uint32_t seen;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    } while (static_cast<int32_t>(seen - goal) < 0);
  }
  __syncthreads();
}

RNNCELLS_DEVICE float widen(float value) { return value; }
RNNCELLS_DEVICE double widen(double value) { return value; }
RNNCELLS_DEVICE float widen(Float16 value) { return __half2float(__ushort_as_half(value.bits)); }
RNNCELLS_DEVICE float widen(BFloat16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}
RNNCELLS_DEVICE void narrow(float value, float& result) { result = value; }
RNNCELLS_DEVICE void narrow(double value, double& result) { result = value; }
RNNCELLS_DEVICE void narrow(float value, Float16& result) {
  result.bits = __half_as_ushort(__float2half_rn(value));
}
RNNCELLS_DEVICE void narrow(float value, BFloat16& result) {
  result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
RNNCELLS_DEVICE void narrow(float value, TensorFloat& result) {
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result.bits) : "f"(value));
}

RNNCELLS_DEVICE float fused_multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
RNNCELLS_DEVICE double fused_multiply_add(double a, double b, double c) {
  return __fma_rn(a, b, c);
}
// To 2 units in the last place; 0 where the divisor is above 2^126.
RNNCELLS_DEVICE float quick_divide(float a, float b) { return __fdividef(a, b); }

// sums [16, 8] += weights [16, k] x operand [k, 8], spread over the lanes as PTX lays out
// mma.m16n8k16 (16 bits) and mma.m16n8k8 (TF32).
RNNCELLS_DEVICE void multiply_tile(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                   Float16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
RNNCELLS_DEVICE void multiply_tile(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                   BFloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
RNNCELLS_DEVICE void multiply_tile(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                   TensorFloat) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Null, or what went wrong.
template <class Call>
const char* launch(void (*kernel)(Call), const Call& call, const LaunchShape& shape,
                   Stream stream) {
  if (shape.blocks == 0) return nullptr;
  cudaError_t status = cudaSuccess;
  if (shape.shared_bytes > 48 * 1024) {
    status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shape.shared_bytes));
  }
  if (status == cudaSuccess && shape.cluster > 8) {
    status = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  }
  if (status != cudaSuccess) return cudaGetErrorString(status);
  cudaLaunchAttribute attributes[2];
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = attributes;
  if (shape.cluster > 1) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  }
  if (shape.cooperative) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
  }
  status = cudaLaunchKernelEx(&config, kernel, call);
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // namespace rnncells::gpu
