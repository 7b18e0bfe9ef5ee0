// Torch's memory and products, as the engine asks for them (cuda/library.h).
#pragma once

#include "cuda/library.h"
#include "cuda_glue/device.h"

namespace rnncells {

template <class V>
constexpr ScalarType stored_as() {
  if constexpr (std::is_same_v<V, double>) return ScalarType::Double;
  if constexpr (std::is_same_v<V, Float16>) return ScalarType::Half;
  if constexpr (std::is_same_v<V, BFloat16>) return ScalarType::BFloat16;
  if constexpr (std::is_same_v<V, int64_t>) return ScalarType::Long;
  if constexpr (std::is_same_v<V, char>) return ScalarType::Byte;
  return ScalarType::Float;
}

// The elements from a tensor's first to its last.
inline int64_t extent(const Tensor& tensor) {
  int64_t last = 0;
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (tensor.size(i) == 0) return 0;
    last += (tensor.size(i) - 1) * tensor.stride(i);
  }
  return last + 1;
}

// A copy knows, and keeps, what the first one does.
class TorchLibrary {
 public:
  TorchLibrary(const Tensor& beside, gpu::Stream stream) : beside_(beside), stream_(stream) {}

  gpu::Stream stream() const { return stream_; }

  // Pointers into the tensor may come as matrices.
  void know(const Tensor& tensor) {
    if (tensor.numel() > 0) known_.push_back(std::make_shared<const Known>(tensor));
  }

  template <class V>
  V* allocate(int64_t count) {
    if (count == 0) return nullptr;
    const Tensor memory = empty_beside(beside_, {count}, stored_as<V>());
    V* values = mutable_data<V>(memory);
    device::tell_fresh(values, count * static_cast<int64_t>(sizeof(V)));
    know(memory);
    return values;
  }

  template <class T>
  auto product(const gpu::Matrix<const T>& a, const gpu::Matrix<const T>& b, Compute<T>* out) {
    const Tensor left = view(a), right = view(b);
    const Tensor result = view(gpu::matrix<Compute<T>>(out, a.rows, b.columns));
    return [left, right, result] { device::multiply(result, left, right); };
  }

 private:
  struct Known {
    Tensor tensor;
    const char *begin, *end;

    explicit Known(const Tensor& given) : tensor(given), begin(data<char>(given)) {
      end = begin + extent(given) * static_cast<int64_t>(given.element_size());
      device::tell(begin, end - begin);
    }
    Known(const Known&) = delete;
    ~Known() { device::forget(begin); }
  };

  template <class T>
  Tensor view(const gpu::Matrix<const T>& m) const {
    if (m.rows * m.columns == 0) return empty_beside(beside_, {m.rows, m.columns}, stored_as<T>());
    const int64_t sizes[] = {m.rows, m.columns}, strides[] = {m.row_stride, m.column_stride};
    const auto* first = reinterpret_cast<const char*>(m.data);
    for (const auto& known : known_) {
      if (first < known->begin || first >= known->end) continue;
      const auto offset = (first - known->begin) / static_cast<int64_t>(sizeof(T));
      AtenTensorHandle handle;
      TORCH_ERROR_CODE_CHECK(
          aoti_torch__reinterpret_tensor(known->tensor.get(), 2, sizes, strides, offset, &handle));
      return Tensor(handle);
    }
    refuse("a matrix of unknown memory");
  }

  Tensor beside_;
  gpu::Stream stream_;
  std::vector<std::shared_ptr<const Known>> known_;
};

}  // namespace rnncells
