// Memory of the emulated card, and the library's products by plain loops.
#pragma once

#include <memory>
#include <stdexcept>
#include <vector>

#include "cuda/layer.h"
#include "cuda/primitives.cuh"

namespace rnncells::emulation {

using Numbers = std::vector<double>;

// Exactly so large, and not a number where nobody wrote.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t count = 0) { resize(count); }
  explicit DeviceArray(const Numbers& numbers) {
    resize(static_cast<int64_t>(numbers.size()));
    for (size_t i = 0; i < numbers.size(); ++i) set(i, numbers[i]);
  }
  ~DeviceArray() { forget(); }
  DeviceArray(DeviceArray&&) = default;
  DeviceArray& operator=(DeviceArray&& other) {
    forget();
    values_ = std::move(other.values_);
    count_ = other.count_;
    return *this;
  }
  void resize(int64_t count) {
    forget();
    values_.reset(new T[count]);
    count_ = count;
    std::memset(static_cast<void*>(values_.get()), 0xff, count * sizeof(T));
    Machine::instance().buffers.add(values_.get(), count * sizeof(T));
  }
  T* data() { return count_ > 0 ? values_.get() : nullptr; }
  int64_t size() const { return count_; }
  double at(int64_t i) const { return gpu::widen(values_[i]); }
  void set(int64_t i, double value) { store(value, values_[i]); }
  Numbers numbers() const {
    Numbers result;
    for (int64_t i = 0; i < count_; ++i) result.push_back(at(i));
    return result;
  }

  static void store(double value, T& to) {
    if constexpr (sizeof(T) == 8) {
      to = value;
    } else {
      gpu::narrow(static_cast<float>(value), to);
    }
  }

 private:
  void forget() {
    if (values_ != nullptr) Machine::instance().buffers.remove(values_.get());
  }

  std::unique_ptr<T[]> values_;
  int64_t count_ = 0;
};

// What library.h asks for.
class PlainLibrary {
 public:
  gpu::Stream stream() const { return nullptr; }

  template <class V>
  V* allocate(int64_t count) {
    auto array = std::make_shared<DeviceArray<V>>(count);
    kept_.push_back(array);
    return array->data();
  }

  template <class T>
  auto product(const gpu::Matrix<const T>& a, const gpu::Matrix<const T>& b, Compute<T>* out) {
    if (a.columns != b.rows) throw std::runtime_error("a product of matrices that do not fit");
    require_inside(a);
    require_inside(b);
    require_inside(gpu::matrix<Compute<T>>(out, a.rows, b.columns));
    return [a, b, out] {
      for (int64_t i = 0; i < a.rows; ++i) {
        for (int64_t j = 0; j < b.columns; ++j) {
          double sum = 0;
          for (int64_t k = 0; k < a.columns; ++k) sum += at(a, i, k) * at(b, k, j);
          DeviceArray<Compute<T>>::store(sum, out[i * b.columns + j]);
        }
      }
    };
  }

 private:
  template <class T>
  static double at(const gpu::Matrix<const T>& m, int64_t i, int64_t j) {
    return gpu::widen(m.data[i * m.row_stride + j * m.column_stride]);
  }
  template <class T>
  static void require_inside(const gpu::Matrix<const T>& m) {
    if (m.rows * m.columns == 0) return;
    const auto range = Machine::instance().buffers.find(m.data);
    const T* last = m.data + (m.rows - 1) * m.row_stride + (m.columns - 1) * m.column_stride;
    if (reinterpret_cast<const char*>(last + 1) > range.end) {
      throw std::runtime_error("a product reads or writes outside of a buffer");
    }
  }

  std::vector<std::shared_ptr<void>> kept_;
};

}  // namespace rnncells::emulation
