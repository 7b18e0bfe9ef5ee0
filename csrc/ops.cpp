// The operators: schemas, argument checks, and the way from tensors to the CPU engine.
// torch's stable ABI only, so that one build serves every torch from 2.11 on.
#ifndef TORCH_TARGET_VERSION
#define TORCH_TARGET_VERSION (((0ULL + 2) << 56) | ((0ULL + 11) << 48))
#endif

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/engine.h"
#include "cpu/isa.h"

namespace rnncells {
namespace {

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
#define RNNCELLS_REQUIRE(condition, ...)   \
  do {                                     \
    if (!(condition)) refuse(__VA_ARGS__); \
  } while (false)

std::string text(const std::vector<int64_t>& sizes) {
  std::string out = "[";
  for (size_t i = 0; i < sizes.size(); ++i) out += (i ? ", " : "") + std::to_string(sizes[i]);
  return out + "]";
}

std::vector<int64_t> sizes_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.begin(), sizes.end()};
}

Tensor empty(const std::vector<int64_t>& sizes, ScalarType dtype) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= sizes[i] > 0 ? sizes[i] : 1;
  }
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(),
      dtype == ScalarType::Double ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32(),
      aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

void run_on_torch_threads(int64_t n, Pool::Body body, void* context) {
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, n, 1, body, context));
}

Pool torch_pool() {
  return {run_on_torch_threads, static_cast<int>(torch::stable::get_num_threads()),
          thread_threshold()};
}

const CellEngine& engine_of(const std::string& cell) {
  std::string known;
  for (const CellEngine& engine : cpu_engine()) {
    if (cell == engine.facts.name) return engine;
    known += (known.empty() ? "" : ", ") + std::string(engine.facts.name);
  }
  refuse("unknown cell '", cell, "'; known: ", known);
}

// The tensors of one call, checked, and the sizes read off them.
struct Layer {
  const CellEngine& engine;
  Sizes size;
  int64_t directions;
  ScalarType dtype;
  const Tensor& x;
  std::vector<Tensor> states;  // contiguous, [D, B, H] each, or none
  const std::vector<Tensor>& weights;
  bool bias;

  int64_t weights_per_direction() const { return bias ? 4 : 2; }

  void check(const Tensor& tensor, const std::string& name,
             const std::vector<int64_t>& expected) const {
    RNNCELLS_REQUIRE(tensor.is_cpu(), name, " must be on the CPU, where the input is");
    RNNCELLS_REQUIRE(tensor.scalar_type() == dtype, name, " must have the input's ", "dtype ",
                     torch::headeronly::toString(dtype), ", got ",
                     torch::headeronly::toString(tensor.scalar_type()));
    const std::vector<int64_t> sizes = sizes_of(tensor);
    RNNCELLS_REQUIRE(sizes == expected, name, " must have shape ", text(expected), ", got ",
                     text(sizes));
  }

  Layer(const Tensor& input, const std::vector<Tensor>& given_states,
        const std::vector<Tensor>& given_weights, const std::string& cell, bool bidirectional)
      : engine(engine_of(cell)),
        size{},
        directions(bidirectional ? 2 : 1),
        dtype(input.scalar_type()),
        x(input),
        weights(given_weights),
        bias(static_cast<int64_t>(given_weights.size()) == 4 * directions) {
    RNNCELLS_REQUIRE(x.is_cpu(), "the input is not on the CPU, and this build has no ",
                     "engine for its device");
    RNNCELLS_REQUIRE(dtype == ScalarType::Float || dtype == ScalarType::Double,
                     "the input must be float32 or float64, got ",
                     torch::headeronly::toString(dtype));
    RNNCELLS_REQUIRE(x.dim() == 3, "the input must have shape [T, B, I], got ", text(sizes_of(x)));
    const auto count = static_cast<int64_t>(weights.size());
    RNNCELLS_REQUIRE(bias || count == 2 * directions, "expected 2 weights (without ",
                     "biases) or 4 for each of ", directions, " directions, got ", count);
    RNNCELLS_REQUIRE(weights[1].dim() == 2, "weight_hh must have two dimensions, got ",
                     text(sizes_of(weights[1])));
    size = {x.size(0), x.size(1), x.size(2), weights[1].size(1)};
    RNNCELLS_REQUIRE(size.steps > 0, "the input has no time steps");
    RNNCELLS_REQUIRE(size.units > 0, "weight_hh has no units");
    const int64_t rows = engine.facts.gates * size.units;
    for (int64_t d = 0; d < directions; ++d) {
      const int64_t first = d * weights_per_direction();
      const std::string suffix = directions > 1 ? (d == 0 ? " (forward)" : " (reverse)") : "";
      check(weights[first], "weight_ih" + suffix, {rows, size.inputs});
      check(weights[first + 1], "weight_hh" + suffix, {rows, size.units});
      if (!bias) continue;
      check(weights[first + 2], "bias_ih" + suffix, {rows});
      check(weights[first + 3], "bias_hh" + suffix, {rows});
    }
    states = checked_states(given_states, "state");
  }

  std::vector<int64_t> state_sizes() const { return {directions, size.batch, size.units}; }
  std::vector<int64_t> output_sizes() const {
    return {size.steps, size.batch, directions * size.units};
  }
  // Depends on sizes and the cell alone.
  std::vector<int64_t> reserve_sizes() const {
    return {directions, size.steps, size.batch, engine.facts.reserve_slots * size.units};
  }

  // None, or one for each state of the cell; contiguous.
  std::vector<Tensor> checked_states(const std::vector<Tensor>& given, const char* name) const {
    const auto count = static_cast<int64_t>(given.size());
    RNNCELLS_REQUIRE(count == 0 || count == engine.facts.states, "expected ", engine.facts.states,
                     " tensors (", name, ") or none, got ", count);
    std::vector<Tensor> result;
    for (int64_t i = 0; i < count; ++i) {
      check(given[i], std::string(name) + " " + std::to_string(i), state_sizes());
      result.push_back(as_contiguous(given[i]));
    }
    return result;
  }

  template <class T>
  Weights<T> weights_of(int64_t direction) const {
    const int64_t first = direction * weights_per_direction();
    const Tensor &input = weights[first], &recurrent = weights[first + 1];
    Weights<T> w{data<T>(input),
                 input.stride(0),
                 input.stride(1),
                 data<T>(recurrent),
                 recurrent.stride(0),
                 recurrent.stride(1),
                 nullptr,
                 0,
                 nullptr,
                 0};
    if (bias) {
      w.input_bias = data<T>(weights[first + 2]);
      w.input_bias_stride = weights[first + 2].stride(0);
      w.recurrent_bias = data<T>(weights[first + 3]);
      w.recurrent_bias_stride = weights[first + 3].stride(0);
    }
    return w;
  }

  template <class T>
  static const T* data(const Tensor& tensor) {
    return static_cast<const T*>(tensor.const_data_ptr());
  }
  template <class T>
  static T* mutable_data(const Tensor& tensor) {
    return static_cast<T*>(tensor.mutable_data_ptr());
  }
  // The part of a [D, B, H] tensor that belongs to one direction.
  int64_t state_offset(int64_t direction) const { return direction * size.batch * size.units; }
  int64_t reserve_offset(int64_t direction) const {
    return direction * size.steps * size.batch * engine.facts.reserve_slots * size.units;
  }

  // What forward and backward have in common.
  template <class T, class Call>
  void fill(Call& call, int64_t direction) const {
    call.sizes = size;
    call.reverse = direction == 1;
    call.x = data<T>(x);
    call.x_step_stride = x.stride(0);
    call.x_batch_stride = x.stride(1);
    call.x_column_stride = x.stride(2);
    for (size_t i = 0; i < states.size(); ++i) {
      call.initial[i] = data<T>(states[i]) + state_offset(direction);
    }
    call.weights = weights_of<T>(direction);
    call.y_row_stride = directions * size.units;
    call.pool = torch_pool();
  }
};

template <class T>
void run_forward(const Layer& layer, const Tensor& y, const std::vector<Tensor>& last,
                 const Tensor* reserve) {
  for (int64_t d = 0; d < layer.directions; ++d) {
    ForwardCall<T> call{};
    layer.fill<T>(call, d);
    call.y = Layer::mutable_data<T>(y) + d * layer.size.units;
    for (size_t i = 0; i < last.size(); ++i) {
      call.last[i] = Layer::mutable_data<T>(last[i]) + layer.state_offset(d);
    }
    if (reserve != nullptr && layer.engine.facts.reserve_slots > 0) {
      call.reserve = Layer::mutable_data<T>(*reserve) + layer.reserve_offset(d);
    }
    layer.engine.forward(call);
  }
}

std::tuple<Tensor, std::vector<Tensor>, Tensor> layer_forward(
    const Tensor& x, const std::vector<Tensor>& states, const std::vector<Tensor>& weights,
    const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes,
    const std::string& cell, bool bidirectional, bool save) {
  RNNCELLS_REQUIRE(!lengths.has_value() && !batch_sizes.has_value(), "lengths are not there yet");
  const Layer layer(x, states, weights, cell, bidirectional);
  const Tensor y = empty(layer.output_sizes(), layer.dtype);
  std::vector<Tensor> last;
  for (int i = 0; i < layer.engine.facts.states; ++i) {
    last.push_back(empty(layer.state_sizes(), layer.dtype));
  }
  const Tensor reserve = empty(save ? layer.reserve_sizes() : std::vector<int64_t>{0}, layer.dtype);
  const Tensor* kept = save ? &reserve : nullptr;
  if (layer.dtype == ScalarType::Float) {
    run_forward<float>(layer, y, last, kept);
  } else {
    run_forward<double>(layer, y, last, kept);
  }
  return {y, last, reserve};
}

// The gradients that layer_backward was asked for: x, then the states, then the weights.
struct Gradients {
  std::vector<Tensor> asked;
  const Tensor* x = nullptr;
  std::vector<const Tensor*> states, weights;

  Gradients(const Layer& layer, const std::vector<int64_t>& needs) {
    const size_t count = 1 + layer.states.size() + layer.weights.size();
    RNNCELLS_REQUIRE(needs.size() == count, "needs must have ", count, " entries, got ",
                     needs.size());
    asked.reserve(count);  // the pointers below stay valid
    size_t next = 0;
    const auto make = [&](const std::vector<int64_t>& sizes) -> const Tensor* {
      if (needs[next++] == 0) return nullptr;
      asked.push_back(empty(sizes, layer.dtype));
      return &asked.back();
    };
    x = make(sizes_of(layer.x));
    for (const Tensor& state : layer.states) states.push_back(make(sizes_of(state)));
    for (const Tensor& weight : layer.weights) weights.push_back(make(sizes_of(weight)));
  }
};

template <class T>
void run_backward(const Layer& layer, const Tensor& y, const Tensor& reserve,
                  const Tensor* y_gradient, const std::vector<Tensor>& last_gradient,
                  const Gradients& gradients) {
  const auto target = [](const Tensor* tensor, int64_t offset) -> T* {
    return tensor == nullptr ? nullptr : Layer::mutable_data<T>(*tensor) + offset;
  };
  for (int64_t d = 0; d < layer.directions; ++d) {
    BackwardCall<T> call{};
    layer.fill<T>(call, d);
    call.y = Layer::data<T>(y) + d * layer.size.units;
    if (layer.engine.facts.reserve_slots > 0) {
      call.reserve = Layer::data<T>(reserve) + layer.reserve_offset(d);
    }
    if (y_gradient != nullptr) {
      call.y_gradient = Layer::data<T>(*y_gradient) + d * layer.size.units;
      call.y_gradient_step_stride = y_gradient->stride(0);
      call.y_gradient_batch_stride = y_gradient->stride(1);
    }
    for (size_t i = 0; i < last_gradient.size(); ++i) {
      call.last_gradient[i] = Layer::data<T>(last_gradient[i]) + layer.state_offset(d);
    }
    call.x_gradient = target(gradients.x, 0);
    call.add_to_x_gradient = d > 0;
    for (size_t i = 0; i < gradients.states.size(); ++i) {
      call.initial_gradient[i] = target(gradients.states[i], layer.state_offset(d));
    }
    const int64_t first = d * layer.weights_per_direction();
    call.input_weight_gradient = target(gradients.weights[first], 0);
    call.recurrent_weight_gradient = target(gradients.weights[first + 1], 0);
    if (layer.bias) {
      call.input_bias_gradient = target(gradients.weights[first + 2], 0);
      call.recurrent_bias_gradient = target(gradients.weights[first + 3], 0);
    }
    layer.engine.backward(call);
  }
}

std::vector<Tensor> layer_backward(const std::optional<Tensor>& y_gradient,
                                   const std::vector<Tensor>& last_gradient, const Tensor& x,
                                   const std::vector<Tensor>& states,
                                   const std::vector<Tensor>& weights,
                                   const std::optional<Tensor>& lengths,
                                   const std::optional<Tensor>& batch_sizes, const Tensor& y,
                                   const Tensor& reserve, const std::string& cell,
                                   bool bidirectional, const std::vector<int64_t>& needs) {
  RNNCELLS_REQUIRE(!lengths.has_value() && !batch_sizes.has_value(), "lengths are not there yet");
  const Layer layer(x, states, weights, cell, bidirectional);
  layer.check(y, "y", layer.output_sizes());
  layer.check(reserve, "reserve", layer.reserve_sizes());
  const std::vector<Tensor> last = layer.checked_states(last_gradient, "grad_last");
  std::optional<Tensor> rows = y_gradient;  // with unit stride along H
  if (rows.has_value()) {
    layer.check(*rows, "grad_y", layer.output_sizes());
    if (rows->stride(2) != 1 && rows->size(2) != 1) rows = torch::stable::contiguous(*rows);
  }
  Gradients gradients(layer, needs);
  if (layer.size.batch == 0) {
    for (Tensor& gradient : gradients.asked) torch::stable::zero_(gradient);
    return gradients.asked;
  }
  const Tensor* given = rows.has_value() ? &*rows : nullptr;
  if (layer.dtype == ScalarType::Float) {
    run_backward<float>(layer, as_contiguous(y), as_contiguous(reserve), given, last, gradients);
  } else {
    run_backward<double>(layer, as_contiguous(y), as_contiguous(reserve), given, last, gradients);
  }
  return gradients.asked;
}

}  // namespace
}  // namespace rnncells

STABLE_TORCH_LIBRARY(rnncells, library) {
  library.def(
      "layer_forward(Tensor x, Tensor[] states, Tensor[] weights, Tensor? lengths, "
      "Tensor? batch_sizes, str cell, bool bidirectional, bool save) -> (Tensor y, Tensor[] last, "
      "Tensor reserve)");
  library.def(
      "layer_backward(Tensor? grad_y, Tensor[] grad_last, Tensor x, Tensor[] states, "
      "Tensor[] weights, Tensor? lengths, Tensor? batch_sizes, Tensor y, Tensor reserve, str cell, "
      "bool bidirectional, int[] needs) "
      "-> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(rnncells, CPU, library) {
  library.impl("layer_forward", TORCH_BOX(&rnncells::layer_forward));
  library.impl("layer_backward", TORCH_BOX(&rnncells::layer_backward));
}
