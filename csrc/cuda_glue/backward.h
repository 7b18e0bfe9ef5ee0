// A backward call's tensors, and its directions through the engine.
#pragma once

#include "cuda/layer_backward.h"
#include "cuda_glue/layer.h"

namespace rnncells {

template <class T>
T* part(const Tensor* tensor, int64_t offset = 0) {
  return tensor == nullptr ? nullptr : mutable_data<T>(*tensor) + offset;
}

// What layer_backward was given, and what it gives.
struct BackwardTensors {
  const Tensor &y, &reserve;
  const std::optional<Tensor>& y_gradient;
  const std::vector<Tensor>&last_gradient, &series_gradient;
  const Gradients& asked;
};

template <class T>
class Backward {
  using C = Compute<T>;

 public:
  Backward(DeviceLayer& layer, const BackwardTensors& given, int64_t slots)
      : layer_(layer), given_(given), slots_(slots), input_(layer.input_rows<T>(true)) {
    layer.library.know(given.y);
    layer.library.know(given.reserve);
    if (given.y_gradient.has_value()) layer.library.know(*given.y_gradient);
    for (const Tensor& gradient : given.last_gradient) layer.library.know(gradient);
    for (const Tensor& gradient : given.series_gradient) layer.library.know(gradient);
    for (const Tensor& gradient : given.asked.asked) layer.library.know(gradient);
  }

  void run() {
    std::vector<C*> shares;
    for (int64_t d = 0; d < layer_.directions; ++d) {
      shares.push_back(x_share(d));
      TorchLibrary library = layer_.library;
      gpu::run_backward(library, call(d, shares.back()));
    }
    if (given_.asked.x == nullptr) return;
    T* x_gradient = part<T>(given_.asked.x);
    const C* second = shares.size() > 1 ? shares[1] : nullptr;
    if (second == nullptr && static_cast<void*>(shares[0]) == x_gradient) return;
    gpu::check_call(
        gpu::narrow_sum(gpu::NarrowSum<T>{shares[0], second, x_gradient, given_.asked.x->numel()},
                        layer_.here.stream()));
  }

 private:
  // Where a direction's gradient of x goes: in place, if it is the first and nothing is rounded.
  C* x_share(int64_t direction) {
    if (given_.asked.x == nullptr) return nullptr;
    if constexpr (std::is_same_v<T, C>) {
      if (direction == 0) return part<T>(given_.asked.x);
    }
    return layer_.library.allocate<C>(given_.asked.x->numel());
  }

  gpu::LayerBackward<T> call(int64_t d, C* x_share) const {
    const LayerTensors& layer = layer_;
    const Gradients& asked = given_.asked;
    gpu::LayerBackward<T> call{};
    layer_.fill(call, input_, d, true);
    call.y = data<T>(given_.y) + d * layer.size.outputs;
    call.y_stride = layer.directions * layer.size.outputs;
    if (slots_ > 0) {
      call.reserve = data<T>(given_.reserve) + d * layer_.rows() * slots_ * layer.size.units;
    }
    if (given_.y_gradient.has_value()) {
      const Tensor& gradient = *given_.y_gradient;
      const int64_t columns = gradient.dim() - 1;
      call.y_gradient = data<T>(gradient) + d * layer.size.outputs * gradient.stride(columns);
      call.y_gradient_step_stride = columns == 2 ? gradient.stride(0) : 0;
      call.y_gradient_row_stride = gradient.stride(columns - 1);
      call.y_gradient_column_stride = gradient.stride(columns);
    }
    for (size_t n = 0; n < given_.last_gradient.size(); ++n) {
      call.last_gradient[n] = data<T>(given_.last_gradient[n]) + layer.state_offset(n, d);
    }
    call.series_stride = layer.directions * layer.size.units;
    for (size_t n = 0; n < given_.series_gradient.size(); ++n) {
      call.series_gradient[n + 1] = data<T>(given_.series_gradient[n]) + d * layer.size.units;
    }
    for (size_t n = 0; n < asked.states.size(); ++n) {
      call.initial_gradient[n] = part<T>(asked.states[n], layer.state_offset(n, d));
    }
    call.x_gradient = x_share;
    const int64_t first = d * layer.weights_per_direction();
    call.input_weight_gradient = part<T>(asked.weights[first]);
    (layer.facts.per_unit_recurrence ? call.unit_parameter_gradient
                                     : call.recurrent_weight_gradient) =
        part<T>(asked.weights[first + 1]);
    if (layer.bias) {
      call.input_bias_gradient = part<T>(asked.weights[first + 2]);
      call.recurrent_bias_gradient = part<T>(asked.weights[first + 3]);
    }
    if (layer.projected) {
      call.projection_gradient = part<T>(asked.weights[first + (layer.bias ? 4 : 2)]);
    }
    for (int64_t i = 0; i < layer.norms(); ++i) {
      const int64_t place = first + (layer.bias ? 4 : 2) + layer.projected + i;
      call.norm_gradient[i] = part<T>(asked.weights[place]);
    }
    if (layer.has_unit_parameters()) {
      call.unit_parameter_gradient =
          part<T>(asked.weights[first + layer.weights_per_direction() - 1]);
    }
    return call;
  }

  DeviceLayer& layer_;
  const BackwardTensors& given_;
  const int64_t slots_;
  const gpu::Matrix<const T> input_;
};

}  // namespace rnncells
