// The operators: schemas, argument checks, and the way from tensors to the CPU engine.
// torch's stable ABI only, so that one build serves every torch from 2.11 on.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <tuple>

#include "cells/masks.h"
#include "cpu/engine.h"
#include "cpu/isa.h"
#include "cpu/packed_bytes.h"
#include "cpu/regime.h"
#include "layer_tensors.h"
#include "schemas.h"
#include "variant_text.h"

namespace rnncells {
namespace {

void run_on_torch_threads(int64_t n, Pool::Body body, void* context) {
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, n, 1, body, context));
}

Pool torch_pool() {
  constexpr int64_t least_step_work = 32768;
  return {run_on_torch_threads, static_cast<int>(torch::stable::get_num_threads()),
          thread_threshold(), std::min(thread_threshold(), least_step_work)};
}

const CellEngine& engine_of(const std::string& cell) {
  std::string known;
  for (const CellEngine& engine : cpu_engine()) {
    if (cell == engine.facts.name) return engine;
    known += (known.empty() ? "" : ", ") + std::string(engine.facts.name);
  }
  refuse("unknown cell '", cell, "'; known: ", known);
}

uint64_t seed_of(const Tensor& seed) {
  RNNCELLS_REQUIRE(seed.is_cpu() && seed.numel() == 1 && seed.scalar_type() == ScalarType::Long,
                   "seed must be one int64 on the CPU");
  return static_cast<uint64_t>(*data<int64_t>(seed));
}

// On the CPU.
struct Layer : LayerTensors {
  const CellEngine& engine;

  explicit Layer(const Arguments& given) : Layer(engine_of(given.cell), given) {}
  // A call with a variant: its text, its seed and its resets.
  Layer(Arguments given, const std::string& said, const std::optional<Tensor>& seed,
        const std::optional<Tensor>& resets)
      : Layer(with_text(given, said)) {
    if (seed.has_value()) {
      variant.draws = true;
      variant.seed = seed_of(*seed);
    }
    if (!resets.has_value()) return;
    const std::vector<int64_t> expected = {size.steps, size.batch};
    RNNCELLS_REQUIRE(!given.batch_sizes.has_value(), "a packed input cannot have resets");
    RNNCELLS_REQUIRE(resets->is_cpu() && resets->scalar_type() == ScalarType::Bool,
                     "resets must be bool, on the CPU");
    RNNCELLS_REQUIRE(sizes_of(*resets) == expected, "resets must have shape ", text(expected),
                     ", got ", text(sizes_of(*resets)));
    variant.resets = data<bool>(*resets);
    variant.resets_step_stride = resets->stride(0);
    variant.resets_batch_stride = resets->stride(1);
  }
  Layer(const CellEngine& cell, const Arguments& given)
      : LayerTensors(cell.facts, on_cpu(given), cell.facts.states - 1), engine(cell) {}

  static const Arguments& with_text(Arguments& given, const std::string& text) {
    given.variant = read_variant(text, engine_of(given.cell).facts);
    return given;
  }
  static const Arguments& on_cpu(const Arguments& given) {
    RNNCELLS_REQUIRE(given.x.is_cpu(), "the input is not on the CPU, where another tensor is");
    return given;
  }

  template <class T>
  Weights<T> weights_of(int64_t direction) const {
    const int64_t first = direction * weights_per_direction();
    const Tensor &input = weights[first], &recurrent = weights[first + 1];
    Weights<T> w{};
    w.input = data<T>(input);
    w.input_row_stride = input.stride(0);
    w.input_column_stride = input.stride(1);
    if (facts.per_unit_recurrence) {
      w.unit_parameters = data<T>(recurrent);
      w.unit_parameter_stride = recurrent.stride(0);
    } else {
      w.recurrent = data<T>(recurrent);
      w.recurrent_row_stride = recurrent.stride(0);
      w.recurrent_column_stride = recurrent.stride(1);
    }
    if (bias) {
      w.input_bias = data<T>(weights[first + 2]);
      w.input_bias_stride = weights[first + 2].stride(0);
      w.recurrent_bias = data<T>(weights[first + 3]);
      w.recurrent_bias_stride = weights[first + 3].stride(0);
    }
    if (projected) {
      const Tensor& projection = projection_weight(direction);
      w.projection = data<T>(projection);
      w.projection_row_stride = projection.stride(0);
      w.projection_column_stride = projection.stride(1);
    }
    for (int64_t i = 0; i < norms(); ++i) w.norm[i] = data<T>(norm(direction, i));
    if (facts.middle && norms() == 2) {  // the GRU's candidate: its gate's rows
      for (int i = 0; i < 2; ++i) w.norm[2 + i] = w.norm[i] + 2 * size.units;
    }
    if (has_unit_parameters()) {
      w.unit_parameters = data<T>(unit_parameters(direction));
      w.unit_parameter_stride = unit_parameters(direction).stride(0);
    }
    return w;
  }

  bool has_unit_strides() const {
    if (x.stride(x.dim() - 1) != 1) return false;
    for (const Tensor& weight : weights) {
      if (weight.stride(weight.dim() - 1) != 1) return false;
    }
    return true;
  }

  // What forward and backward have in common.
  template <class T, class Call>
  void fill(Call& call, int64_t direction, bool keeps, bool packed) const {
    call.sizes = size;
    call.regime =
        choose_regime(engine.facts, size,
                      {ragged.has_value(), projected, keeps, rowwise, has_unit_strides(),
                       std::is_same_v<Call, BackwardCall<T>>, recompute, packed, variant.any()});
    call.recompute = recompute;
    call.variant = variant;
    call.variant.stream = static_cast<uint32_t>(direction);
    call.row_counts = ragged.has_value() ? ragged->counts.data() : nullptr;
    call.order = padded() ? ragged->order.data() : nullptr;
    call.reverse = direction == 1;
    call.x = data<T>(x);
    const int64_t last = x.dim() - 1;
    call.x_step_stride = last == 2 ? x.stride(0) : 0;
    call.x_batch_stride = x.stride(last - 1);
    call.x_column_stride = x.stride(last);
    for (size_t i = 0; i < states.size(); ++i) {
      call.initial[i] = data<T>(states[i]) + state_offset(i, direction);
    }
    call.weights = weights_of<T>(direction);
    call.y_batch_stride = directions * size.outputs;
    call.y_step_stride = size.batch * call.y_batch_stride;
    call.series_batch_stride = directions * size.units;
    call.series_step_stride = size.batch * call.series_batch_stride;
    call.pool = torch_pool();
  }
};

template <class T>
const void* packed_weights(const Layer& layer, const Tensor& packed, int64_t direction) {
  const std::string not_ours = "packed is not what layer_pack made of these weights";
  RNNCELLS_REQUIRE(packed.is_cpu() && packed.is_contiguous() && packed.dim() == 2 &&
                       packed.scalar_type() == ScalarType::Byte &&
                       packed.size(0) == layer.directions && packed.size(1) > packed_head,
                   not_ours);
  const char* head = data<char>(packed) + direction * packed.size(1);
  const std::string isa(head, strnlen(head, packed_head));
  const std::vector<std::string> known = compiled_isas();
  RNNCELLS_REQUIRE(std::find(known.begin(), known.end(), isa) != known.end(), not_ours);
  RNNCELLS_REQUIRE(isa == current_isa(), "the weights were packed for the instruction set ", isa,
                   ", and ", current_isa(), " is in use");
  RNNCELLS_REQUIRE(packed.size(1) == packed_bytes<T>(layer.engine, layer.size, layer.projected),
                   not_ours);
  return head + packed_head;
}

// `last` are the last states and, where they are asked for, the states besides h after every step.
template <class T>
void run_forward(const Layer& layer, const Tensor& y, const std::vector<Tensor>& last,
                 const Tensor* reserve, const Tensor* packed) {
  const int states = layer.facts.states;
  for (int64_t d = 0; d < layer.directions; ++d) {
    ForwardCall<T> call{};
    layer.fill<T>(call, d, reserve != nullptr, packed != nullptr);
    if (packed != nullptr) call.packed = packed_weights<T>(layer, *packed, d);
    call.y = mutable_data<T>(y) + d * layer.size.outputs;
    call.two_steps = layer.variant.last_only && reserve == nullptr;
    for (int i = 0; i < states; ++i) {
      call.last[i] = mutable_data<T>(last[i]) + layer.state_offset(i, d);
    }
    for (int i = 1; i < states && layer.variant.whole_states; ++i) {
      call.series[i] = mutable_data<T>(last[states + i - 1]) + d * layer.size.units;
    }
    if (reserve != nullptr && layer.slots() > 0) {
      call.reserve = mutable_data<T>(*reserve) + layer.reserve_offset(d);
    }
    layer.engine.functions<T>().forward(call);
  }
}

// Rows of the reserve that no time step has: the same bits every time.
void clear_unused(const Layer& layer, const Tensor& reserve) {
  const int64_t row_bytes = layer.slots() * layer.size.units * reserve.element_size();
  const int64_t rows = layer.x_sizes[0] * layer.x_sizes[1];
  char* bytes = mutable_data<char>(reserve);
  for (int64_t d = 0; d < layer.directions; ++d) {
    std::memset(bytes + (d * rows + layer.ragged->rows) * row_bytes, 0,
                (rows - layer.ragged->rows) * row_bytes);
  }
}

std::tuple<Tensor, std::vector<Tensor>, Tensor> layer_forward(
    const Tensor& x, const std::vector<Tensor>& states, const std::vector<Tensor>& weights,
    const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes,
    const std::string& cell, bool bidirectional, bool save, bool tidy, bool rowwise, bool recompute,
    const std::optional<Tensor>& packed, const std::string& variant,
    const std::optional<Tensor>& seed, const std::optional<Tensor>& resets) {
  const Layer layer(
      {x, states, weights, lengths, batch_sizes, cell, bidirectional, rowwise, recompute}, variant,
      seed, resets);
  const Tensor y =
      empty(layer.variant.last_only && !save ? layer.two_step_sizes() : layer.output_sizes(),
            layer.dtype);
  std::vector<Tensor> last;
  for (int i = 0; i < layer.facts.states; ++i) {
    last.push_back(empty(layer.state_sizes(i), layer.dtype));
  }
  for (int i = 1; i < layer.facts.states && layer.variant.whole_states; ++i) {
    last.push_back(empty(layer.series_sizes(), layer.dtype));
  }
  const Tensor reserve = empty(save ? layer.reserve_sizes() : std::vector<int64_t>{0}, layer.dtype);
  with_type(layer.dtype, [&](auto stored) {
    run_forward<decltype(stored)>(layer, y, last, save ? &reserve : nullptr,
                                  packed.has_value() ? &*packed : nullptr);
  });
  if (save && tidy && layer.padded()) clear_unused(layer, reserve);
  return {y, last, reserve};
}

template <class T>
void run_backward(const Layer& layer, const Tensor& y, const Tensor& reserve,
                  const Tensor* y_gradient, const std::vector<Tensor>& last_gradient,
                  const std::vector<Tensor>& series_gradient, const Gradients& gradients) {
  const auto target = [](const Tensor* tensor, int64_t offset) -> T* {
    return tensor == nullptr ? nullptr : mutable_data<T>(*tensor) + offset;
  };
  for (int64_t d = 0; d < layer.directions; ++d) {
    BackwardCall<T> call{};
    layer.fill<T>(call, d, true, false);
    call.y = data<T>(y) + d * layer.size.outputs;
    if (layer.slots() > 0) call.reserve = data<T>(reserve) + layer.reserve_offset(d);
    if (y_gradient != nullptr) {
      const int64_t columns = y_gradient->dim() - 1;
      call.y_gradient = data<T>(*y_gradient) + d * layer.size.outputs;
      call.y_gradient_step_stride = columns == 2 ? y_gradient->stride(0) : 0;
      call.y_gradient_batch_stride = y_gradient->stride(columns - 1);
    }
    for (size_t i = 0; i < last_gradient.size(); ++i) {
      call.last_gradient[i] = data<T>(last_gradient[i]) + layer.state_offset(i, d);
    }
    for (size_t i = 0; i < series_gradient.size(); ++i) {
      call.series_gradient[i + 1] = data<T>(series_gradient[i]) + d * layer.size.units;
    }
    call.x_gradient = target(gradients.x, 0);
    call.add_to_x_gradient = d > 0;
    for (size_t i = 0; i < gradients.states.size(); ++i) {
      call.initial_gradient[i] = target(gradients.states[i], layer.state_offset(i, d));
    }
    const int64_t first = d * layer.weights_per_direction();
    call.input_weight_gradient = target(gradients.weights[first], 0);
    T* recurrent_gradient = target(gradients.weights[first + 1], 0);
    (layer.facts.per_unit_recurrence ? call.unit_parameter_gradient
                                     : call.recurrent_weight_gradient) = recurrent_gradient;
    if (layer.bias) {
      call.input_bias_gradient = target(gradients.weights[first + 2], 0);
      call.recurrent_bias_gradient = target(gradients.weights[first + 3], 0);
    }
    if (layer.projected) {
      call.projection_gradient = target(gradients.weights[first + (layer.bias ? 4 : 2)], 0);
    }
    for (int64_t i = 0; i < layer.norms(); ++i) {
      const int64_t place = first + (layer.bias ? 4 : 2) + layer.projected + i;
      call.norm_gradient[i] = target(gradients.weights[place], 0);
    }
    if (layer.has_unit_parameters()) {
      const int64_t last = first + layer.weights_per_direction() - 1;
      call.unit_parameter_gradient = target(gradients.weights[last], 0);
    }
    layer.engine.functions<T>().backward(call);
  }
}

std::vector<Tensor> layer_backward(
    const std::optional<Tensor>& y_gradient, const std::vector<Tensor>& last_gradient,
    const Tensor& x, const std::vector<Tensor>& states, const std::vector<Tensor>& weights,
    const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes, const Tensor& y,
    const Tensor& reserve, const std::string& cell, bool bidirectional,
    const std::vector<int64_t>& needs, bool rowwise, bool recompute, const std::string& variant,
    const std::optional<Tensor>& seed, const std::optional<Tensor>& resets) {
  const Layer layer(
      {x, states, weights, lengths, batch_sizes, cell, bidirectional, rowwise, recompute}, variant,
      seed, resets);
  layer.check(y, "y", layer.output_sizes());
  layer.check(reserve, "reserve", layer.reserve_sizes());
  std::vector<Tensor> last = last_gradient;
  const std::vector<Tensor> series = layer.take_series(last);
  last = layer.checked_states(last, "grad_last");
  std::optional<Tensor> rows = y_gradient;  // with unit stride along its columns
  if (rows.has_value()) {
    layer.check(*rows, "grad_y", layer.output_sizes());
    const int64_t columns = rows->dim() - 1;
    if (rows->stride(columns) != 1 && rows->size(columns) != 1) {
      rows = torch::stable::contiguous(*rows);
    }
  }
  Gradients gradients(layer, needs);
  if (layer.size.batch == 0) {
    for (Tensor& gradient : gradients.asked) torch::stable::zero_(gradient);
    return gradients.asked;
  }
  with_type(layer.dtype, [&](auto stored) {
    run_backward<decltype(stored)>(layer, as_contiguous(y), as_contiguous(reserve),
                                   rows.has_value() ? &*rows : nullptr, last, series, gradients);
  });
  return gradients.asked;
}

// The weights as layer_forward reads them, uint8 [D, bytes].
Tensor layer_pack(const std::vector<Tensor>& weights, const std::string& cell, bool bidirectional) {
  RNNCELLS_REQUIRE(!weights.empty() && weights[0].dim() == 2, "expected weights");
  const Tensor x = empty({1, 0, weights[0].size(1)}, weights[0].scalar_type());
  const std::vector<Tensor> none;
  const std::optional<Tensor> nothing;
  const Layer layer({x, none, weights, nothing, nothing, cell, bidirectional, false, false});
  std::optional<Tensor> packed;
  with_type(layer.dtype, [&](auto stored) {
    using T = decltype(stored);
    const int64_t bytes = packed_bytes<T>(layer.engine, layer.size, layer.projected);
    packed = empty({layer.directions, bytes}, ScalarType::Byte);
    char* head = mutable_data<char>(*packed);
    std::memset(head, 0, layer.directions * bytes);
    for (int64_t d = 0; d < layer.directions; ++d, head += bytes) {
      std::strcpy(head, current_isa().c_str());
      layer.engine.functions<T>().pack(layer.size, layer.weights_of<T>(d), head + packed_head);
    }
  });
  return *packed;
}

// Where an event of probability `rate` happens: bool [T, B, H], as the engine draws it.
Tensor layer_draw(const Tensor& seed, int64_t purpose, int64_t stream,
                  const std::vector<int64_t>& sizes, double rate) {
  RNNCELLS_REQUIRE(sizes.size() == 3, "sizes must be those of [T, B, H]");
  const uint64_t key = seed_of(seed);
  const uint32_t threshold = draw_threshold(rate);
  const Tensor drawn = empty(sizes, ScalarType::Bool);
  bool* out = mutable_data<bool>(drawn);
  for (int64_t t = 0; t < sizes[0]; ++t) {
    for (int64_t b = 0; b < sizes[1]; ++b, out += sizes[2]) {
      for (int64_t j = 0; j < sizes[2]; ++j) {
        out[j] = draw_bits(key, static_cast<uint32_t>(purpose), static_cast<uint32_t>(stream), t, b,
                           j) < threshold;
      }
    }
  }
  return drawn;
}

}  // namespace
}  // namespace rnncells

STABLE_TORCH_LIBRARY(rnncells, library) {
  for (const char* schema : rnncells::schemas) library.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(rnncells, CPU, library) {
  library.impl("layer_forward", TORCH_BOX(&rnncells::layer_forward));
  library.impl("layer_backward", TORCH_BOX(&rnncells::layer_backward));
  library.impl("layer_pack", TORCH_BOX(&rnncells::layer_pack));
  library.impl("layer_draw", TORCH_BOX(&rnncells::layer_draw));
}
