// The operators on CUDA.
#include "cuda_glue/device.h"
// The line above comes first: it says which part of the stable ABI the others get.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/layer_backward.h"
#include "cuda/layer_forward.h"
#include "cuda_glue/layer.h"

namespace rnncells {
namespace {

template <class T>
T* part(const Tensor* tensor, int64_t offset = 0) {
  return tensor == nullptr ? nullptr : mutable_data<T>(*tensor) + offset;
}

// One layer's outputs, for all directions.
struct Outputs {
  Tensor y;
  std::vector<Tensor> last;
  Tensor reserve;  // without elements: nothing is kept

  Outputs(const DeviceLayer& layer, const std::vector<int64_t>& reserve_sizes)
      : y(empty_beside(layer.x, layer.output_sizes(), layer.dtype)),
        reserve(empty_beside(layer.x, reserve_sizes, layer.dtype)) {
    for (int n = 0; n < layer.facts.states; ++n) {
      last.push_back(empty_beside(layer.x, layer.state_sizes(n), layer.dtype));
    }
  }
};

template <class T>
void run_forward(DeviceLayer& layer, const Outputs& out, int64_t slots) {
  const gpu::Matrix<const T> input = layer.input_rows<T>(false);
  for (int64_t d = 0; d < layer.directions; ++d) {
    TorchLibrary library = layer.library;
    library.know(out.y);
    library.know(out.reserve);
    for (const Tensor& state : out.last) library.know(state);
    gpu::LayerForward<T> call{};
    layer.fill(call, input, d, false);
    call.y = mutable_data<T>(out.y) + d * layer.size.outputs;
    call.y_stride = layer.directions * layer.size.outputs;
    for (int n = 0; n < layer.facts.states; ++n) {
      call.last[n] = mutable_data<T>(out.last[n]) + layer.state_offset(n, d);
    }
    if (out.reserve.numel() > 0) {
      call.reserve = mutable_data<T>(out.reserve) + d * layer.rows() * slots * layer.size.units;
    }
    gpu::run_forward(library, call);
  }
}

std::tuple<Tensor, std::vector<Tensor>, Tensor> layer_forward(
    const Tensor& x, const std::vector<Tensor>& states, const std::vector<Tensor>& weights,
    const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes,
    const std::string& cell, bool bidirectional, bool save, bool tidy, bool rowwise, bool recompute,
    const std::optional<Tensor>& packed, const std::string& variant,
    const std::optional<Tensor>& seed, const std::optional<Tensor>& resets) {
  DeviceLayer layer(
      {x, states, weights, lengths, batch_sizes, cell, bidirectional, rowwise, recompute},
      {variant, seed, resets});
  const Outputs out(layer, save ? layer.reserve_sizes() : std::vector<int64_t>{0});
  if (layer.size.batch > 0) {
    with_type(layer.dtype,
              [&](auto stored) { run_forward<decltype(stored)>(layer, out, layer.slots()); });
  }
  // Where nobody asks for y it is working space, of the sizes that the CPU gives it.
  const bool unasked = layer.variant.last_only && !save;
  const Tensor y = unasked ? empty_beside(x, layer.two_step_sizes(), layer.dtype) : out.y;
  return {y, out.last, out.reserve};
}

// What layer_backward was given, and what it gives.
struct BackwardTensors {
  const Tensor &y, &reserve;
  const std::optional<Tensor>& y_gradient;
  const std::vector<Tensor>& last_gradient;
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
    for (size_t n = 0; n < asked.states.size(); ++n) {
      call.initial_gradient[n] = part<T>(asked.states[n], layer.state_offset(n, d));
    }
    call.x_gradient = x_share;
    const int64_t first = d * layer.weights_per_direction();
    call.input_weight_gradient = part<T>(asked.weights[first]);
    call.recurrent_weight_gradient = part<T>(asked.weights[first + 1]);
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

std::vector<Tensor> layer_backward(
    const std::optional<Tensor>& y_gradient, const std::vector<Tensor>& last_gradient,
    const Tensor& x, const std::vector<Tensor>& states, const std::vector<Tensor>& weights,
    const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes, const Tensor& y,
    const Tensor& reserve, const std::string& cell, bool bidirectional,
    const std::vector<int64_t>& needs, bool rowwise, bool recompute, const std::string& variant,
    const std::optional<Tensor>& seed, const std::optional<Tensor>& resets) {
  DeviceLayer layer(
      {x, states, weights, lengths, batch_sizes, cell, bidirectional, rowwise, recompute},
      {variant, seed, resets});
  layer.check(y, "y", layer.output_sizes());
  layer.check(reserve, "reserve", layer.reserve_sizes());
  if (y_gradient.has_value()) layer.check(*y_gradient, "grad_y", layer.output_sizes());
  const std::vector<Tensor> last = layer.checked_states(last_gradient, "grad_last");
  Gradients gradients(layer, needs);
  if (layer.size.batch == 0) {
    for (Tensor& gradient : gradients.asked) torch::stable::zero_(gradient);
    return gradients.asked;
  }
  std::optional<Outputs> again;
  if (recompute) again.emplace(layer, layer.full_reserve_sizes());
  const Tensor kept_y = as_contiguous(y), kept = again ? again->reserve : as_contiguous(reserve);
  with_type(layer.dtype, [&](auto stored) {
    using T = decltype(stored);
    if (again) run_forward<T>(layer, *again, layer.full_slots());
    Backward<T>(layer, {kept_y, kept, y_gradient, last, gradients}, layer.full_slots()).run();
  });
  return gradients.asked;
}

// The kernels read the weights where they are: nothing is packed, whatever the call.
Tensor layer_pack(const std::vector<Tensor>& weights, const std::string&, bool bidirectional) {
  RNNCELLS_REQUIRE(!weights.empty(), "expected weights");
  return empty_beside(weights[0], {bidirectional ? 2 : 1, 0}, ScalarType::Byte);
}

// Where an event of probability `rate` happens: bool [T, B, H], as the kernels draw it.
Tensor layer_draw(const Tensor& seed, int64_t purpose, int64_t stream,
                  const std::vector<int64_t>& sizes, double rate) {
  RNNCELLS_REQUIRE(sizes.size() == 3, "sizes must be those of [T, B, H]");
  check_seed(seed);
  const device::Place here(seed);
  TorchLibrary library(seed, here.stream());
  const Tensor drawn = empty_beside(seed, sizes, ScalarType::Bool);
  if (drawn.numel() == 0) return drawn;
  library.know(seed);
  library.know(drawn);
  gpu::check_call(gpu::draw_events(
      {data<int64_t>(seed), static_cast<uint32_t>(purpose), static_cast<uint32_t>(stream),
       draw_threshold(rate), sizes[0], sizes[1], sizes[2], mutable_data<bool>(drawn)},
      here.stream()));
  return drawn;
}

}  // namespace
}  // namespace rnncells

#if defined(RNNCELLS_EMULATED)
#define RNNCELLS_LIBRARY rnncells_emulated, CPU
#else
#define RNNCELLS_LIBRARY rnncells, CUDA
#endif
// A macro of its own, so that the two names above are two arguments.
#define RNNCELLS_IMPLEMENT(...) STABLE_TORCH_LIBRARY_IMPL(__VA_ARGS__, library)

RNNCELLS_IMPLEMENT(RNNCELLS_LIBRARY) {
  library.impl("layer_forward", TORCH_BOX(&rnncells::layer_forward));
  library.impl("layer_backward", TORCH_BOX(&rnncells::layer_backward));
  library.impl("layer_pack", TORCH_BOX(&rnncells::layer_pack));
  library.impl("layer_draw", TORCH_BOX(&rnncells::layer_draw));
}
