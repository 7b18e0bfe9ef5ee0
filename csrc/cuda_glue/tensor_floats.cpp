// Torch's setting of TF32, read off the handle that it has set up for its own products.
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <string>

#define TORCH_TARGET_VERSION (((0ULL + 2) << 56) | ((0ULL + 11) << 48))
#define USE_CUDA
#include <torch/csrc/stable/c/shim.h>

#include "cuda_glue/kernels.h"

namespace rnncells {
namespace {

// cublasGetMathMode(handle, mode), of the library that torch has loaded: its headers may not be
// here. Null where it is not found: no TF32 then.
using GetMathMode = int (*)(void*, int*);
GetMathMode find_get_math_mode() {
  const std::string name = "libcublas.so." + std::to_string(CUDART_VERSION / 1000);
  void* library = dlopen(name.c_str(), RTLD_NOLOAD | RTLD_LAZY);
  if (library == nullptr) return nullptr;
  return reinterpret_cast<GetMathMode>(dlsym(library, "cublasGetMathMode"));
}

}  // namespace

bool tensor_floats_allowed() {
  constexpr int tensor_float_mode = 3;  // CUBLAS_TF32_TENSOR_OP_MATH
  static const GetMathMode get_math_mode = find_get_math_mode();
  void* handle = nullptr;
  int mode = 0;
  if (get_math_mode == nullptr || torch_get_current_cuda_blas_handle(&handle) != 0) return false;
  return get_math_mode(handle, &mode) == 0 && mode == tensor_float_mode;
}

}  // namespace rnncells
