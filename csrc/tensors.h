// Tensors of torch's stable ABI: messages, sizes, and new ones.
#pragma once

#ifndef TORCH_TARGET_VERSION
#define TORCH_TARGET_VERSION (((0ULL + 2) << 56) | ((0ULL + 11) << 48))
#endif

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/half.h"

namespace rnncells {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Part>
[[noreturn]] void refuse(const Part&... parts) {
  std::ostringstream message;
  message << "rnncells: ";
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// Torch's own check would put this file's path before the message. A macro, so that the message is
// made only where it is needed.
#define RNNCELLS_REQUIRE(condition, ...)             \
  do {                                               \
    if (!(condition)) rnncells::refuse(__VA_ARGS__); \
  } while (false)

inline std::string text(const std::vector<int64_t>& sizes) {
  std::string out = "[";
  for (size_t i = 0; i < sizes.size(); ++i) out += (i ? ", " : "") + std::to_string(sizes[i]);
  return out + "]";
}

inline std::vector<int64_t> sizes_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.begin(), sizes.end()};
}

inline bool is_supported(ScalarType dtype) {
  return dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::Half ||
         dtype == ScalarType::BFloat16;
}

// Calls body(T()), where T is how a supported dtype is stored.
template <class Body>
void with_type(ScalarType dtype, const Body& body) {
  if (dtype == ScalarType::Float) body(float());
  if (dtype == ScalarType::Double) body(double());
  if (dtype == ScalarType::Half) body(Float16());
  if (dtype == ScalarType::BFloat16) body(BFloat16());
}

inline int32_t dtype_code(ScalarType dtype) {
  if (dtype == ScalarType::Double) return aoti_torch_dtype_float64();
  if (dtype == ScalarType::Half) return aoti_torch_dtype_float16();
  if (dtype == ScalarType::BFloat16) return aoti_torch_dtype_bfloat16();
  if (dtype == ScalarType::Byte) return aoti_torch_dtype_uint8();
  if (dtype == ScalarType::Bool) return aoti_torch_dtype_bool();
  if (dtype == ScalarType::Long) return aoti_torch_dtype_int64();
  return aoti_torch_dtype_float32();
}

// Uninitialised, contiguous.
inline Tensor empty_on(int32_t device_type, int32_t device, const std::vector<int64_t>& sizes,
                       ScalarType dtype) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= sizes[i] > 0 ? sizes[i] : 1;
  }
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(),
                                                  strides.data(), dtype_code(dtype), device_type,
                                                  device, &handle));
  return Tensor(handle);
}
// The same on the CPU, and where another tensor is.
inline Tensor empty(const std::vector<int64_t>& sizes, ScalarType dtype) {
  return empty_on(aoti_torch_device_type_cpu(), 0, sizes, dtype);
}
inline Tensor empty_beside(const Tensor& other, const std::vector<int64_t>& sizes,
                           ScalarType dtype) {
  if (other.is_cpu()) return empty(sizes, dtype);
  return empty_on(aoti_torch_device_type_cuda(), other.get_device_index(), sizes, dtype);
}

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

template <class T>
const T* data(const Tensor& tensor) {
  const void* values = tensor.const_data_ptr();
  RNNCELLS_REQUIRE(values != nullptr || tensor.numel() == 0, "a tensor of shape ",
                   text(sizes_of(tensor)), " has no memory: its storage was freed");
  return static_cast<const T*>(values);
}
template <class T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace rnncells
