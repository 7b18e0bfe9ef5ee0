// The operators: schemas, argument checks, and the way from tensors to the CPU engine.
// torch's stable ABI only, so that one build serves every torch from 2.11 on.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <tuple>

#include "cells/philox.h"
#include "cpu/engine.h"
#include "cpu/isa.h"
#include "cpu/packed_bytes.h"
#include "cpu/regime.h"
#include "ragged.h"
#include "tensors.h"
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

// The arguments that forward and backward share.
struct Arguments {
  const Tensor& x;
  const std::vector<Tensor>& states;
  const std::vector<Tensor>& weights;
  const std::optional<Tensor>& lengths;
  const std::optional<Tensor>& batch_sizes;
  const std::string& cell;
  bool bidirectional, rowwise, recompute;
  const std::string& variant;
  const std::optional<Tensor>&seed, &resets;
};

// The tensors of one call, checked, and the sizes read off them.
struct Layer {
  const CellEngine& engine;
  Sizes size{};
  const int64_t directions;
  const ScalarType dtype;
  const std::vector<Tensor>& weights;
  const std::vector<int64_t> x_sizes;
  std::optional<Ragged> ragged;
  const Tensor& x;
  std::vector<Tensor> states;  // contiguous, [D, B, P], every other [D, B, H]; or none
  bool bias = false, projected = false;
  const bool rowwise, recompute;
  Variant variant;

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

  explicit Layer(const Arguments& given)
      : engine(engine_of(given.cell)),
        directions(given.bidirectional ? 2 : 1),
        dtype(given.x.scalar_type()),
        weights(given.weights),
        x_sizes(sizes_of(given.x)),
        x(given.x),
        rowwise(given.rowwise),
        recompute(given.recompute) {
    RNNCELLS_REQUIRE(x.is_cpu(), "the input is not on the CPU, and this build has no ",
                     "engine for its device");
    RNNCELLS_REQUIRE(is_supported(dtype),
                     "the input must be float32, float64, float16 or bfloat16, got ",
                     torch::headeronly::toString(dtype));
    if (given.batch_sizes.has_value()) {
      RNNCELLS_REQUIRE(x.dim() == 2, "a packed input must have shape [N, I], got ", text(x_sizes));
      RNNCELLS_REQUIRE(!given.lengths.has_value(), "lengths are of no use to a packed input");
      RNNCELLS_REQUIRE(!given.states.empty(), "a packed input needs initial states");
    } else {
      RNNCELLS_REQUIRE(x.dim() == 3, "the input must have shape [T, B, I], got ", text(x_sizes));
    }
    check_weights();
    size.inputs = x_sizes.back();
    find_steps(given);
    states = checked_states(given.states, "state");
    find_variant(given);
  }

  int64_t weights_per_direction() const {
    return (bias ? 4 : 2) + projected + has_unit_parameters();
  }
  bool has_unit_parameters() const { return engine.facts.unit_parameters > 0; }

  void check_weights() {
    const auto count = static_cast<int64_t>(weights.size());
    const int64_t each = count / directions - has_unit_parameters();
    RNNCELLS_REQUIRE(count % directions == 0 && each >= 2 && each <= 5,
                     "expected 2 weights (without biases) or 4 for each of ", directions,
                     " directions, one more with a projection",
                     has_unit_parameters() ? ", and the cell's values per unit" : "", ", got ",
                     count);
    bias = each >= 4;
    projected = each % 2 != 0;
    RNNCELLS_REQUIRE(!projected || engine.facts.projects, "the cell '", engine.facts.name,
                     "' cannot have a projection");
    RNNCELLS_REQUIRE(weights[0].dim() == 2, "weight_ih must have two dimensions, got ",
                     text(sizes_of(weights[0])));
    RNNCELLS_REQUIRE(weights[1].dim() == 2, "weight_hh must have two dimensions, got ",
                     text(sizes_of(weights[1])));
    size.outputs = weights[1].size(1);
    size.units = projected ? weights[1].size(0) / engine.facts.gates : size.outputs;
    RNNCELLS_REQUIRE(size.units > 0 && size.outputs > 0, "weight_hh has no units");
    const int64_t rows = engine.facts.gates * size.units;
    for (int64_t d = 0; d < directions; ++d) {
      const int64_t first = d * weights_per_direction();
      const std::string suffix = directions > 1 ? (d == 0 ? " (forward)" : " (reverse)") : "";
      check(weights[first], "weight_ih" + suffix, {rows, x_sizes.back()});
      check(weights[first + 1], "weight_hh" + suffix, {rows, size.outputs});
      if (bias) {
        check(weights[first + 2], "bias_ih" + suffix, {rows});
        check(weights[first + 3], "bias_hh" + suffix, {rows});
      }
      if (projected) {
        check(projection_weight(d), "weight_hr" + suffix, {size.outputs, size.units});
      }
      if (has_unit_parameters()) {
        check(unit_parameters(d), "the values per unit" + suffix,
              {engine.facts.unit_parameters * size.units});
      }
    }
  }

  void find_steps(const Arguments& given) {
    if (given.batch_sizes.has_value()) {
      ragged = Ragged::from_batch_sizes(*given.batch_sizes, x_sizes[0]);
      RNNCELLS_REQUIRE(!ragged->counts.empty(), "the input has no time steps");
      size.steps = static_cast<int64_t>(ragged->counts.size());
      size.batch = ragged->counts[0];
      return;
    }
    RNNCELLS_REQUIRE(x_sizes[0] > 0, "the input has no time steps");
    size.steps = x_sizes[0];
    size.batch = x_sizes[1];
    if (given.lengths.has_value()) {
      ragged = Ragged::from_lengths(*given.lengths, size.steps, size.batch);
    }
  }

  void find_variant(const Arguments& given) {
    variant = read_variant(given.variant, engine.facts);
    RNNCELLS_REQUIRE(!variant.zones() || !projected, "zoneout and a projection exclude each other");
    if (given.seed.has_value()) {
      RNNCELLS_REQUIRE(given.seed->is_cpu() && given.seed->numel() == 1 &&
                           given.seed->scalar_type() == ScalarType::Long,
                       "seed must be one int64 on the CPU");
      variant.draws = true;
      variant.seed = static_cast<uint64_t>(*data<int64_t>(*given.seed));
    }
    if (!given.resets.has_value()) return;
    const Tensor& resets = *given.resets;
    const std::vector<int64_t> expected = {size.steps, size.batch};
    RNNCELLS_REQUIRE(!given.batch_sizes.has_value(), "a packed input cannot have resets");
    RNNCELLS_REQUIRE(resets.is_cpu() && resets.scalar_type() == ScalarType::Bool,
                     "resets must be bool, on the CPU");
    RNNCELLS_REQUIRE(sizes_of(resets) == expected, "resets must have shape ", text(expected),
                     ", got ", text(sizes_of(resets)));
    variant.resets = data<bool>(resets);
    variant.resets_step_stride = resets.stride(0);
    variant.resets_batch_stride = resets.stride(1);
  }

  const Tensor& projection_weight(int64_t direction) const {
    return weights[direction * weights_per_direction() + (bias ? 4 : 2)];
  }
  const Tensor& unit_parameters(int64_t direction) const {
    return weights[(direction + 1) * weights_per_direction() - 1];
  }
  int64_t state_width(int64_t state) const { return state == 0 ? size.outputs : size.units; }
  std::vector<int64_t> state_sizes(int64_t state) const {
    return {directions, size.batch, state_width(state)};
  }
  std::vector<int64_t> output_sizes() const { return with_width(directions * size.outputs); }
  // Depends on sizes and the cell alone.
  std::vector<int64_t> reserve_sizes() const {
    std::vector<int64_t> sizes = with_width(slots() * size.units);
    sizes.insert(sizes.begin(), directions);
    return sizes;
  }
  int64_t slots() const {
    if (recompute) return engine.facts.states - 1;
    return engine.facts.reserve_slots + projected + (variant.zones() ? engine.facts.states : 0);
  }
  bool padded() const { return ragged.has_value() && !ragged->order.empty(); }

  // None, or one for each state of the cell; contiguous.
  std::vector<Tensor> checked_states(const std::vector<Tensor>& given, const char* name) const {
    const auto count = static_cast<int64_t>(given.size());
    RNNCELLS_REQUIRE(count == 0 || count == engine.facts.states, "expected ", engine.facts.states,
                     " tensors (", name, ") or none, got ", count);
    std::vector<Tensor> result;
    for (int64_t i = 0; i < count; ++i) {
      check(given[i], std::string(name) + " " + std::to_string(i), state_sizes(i));
      result.push_back(as_contiguous(given[i]));
    }
    return result;
  }

  template <class T>
  Weights<T> weights_of(int64_t direction) const {
    const int64_t first = direction * weights_per_direction();
    const Tensor &input = weights[first], &recurrent = weights[first + 1];
    Weights<T> w{};
    w.input = data<T>(input);
    w.input_row_stride = input.stride(0);
    w.input_column_stride = input.stride(1);
    w.recurrent = data<T>(recurrent);
    w.recurrent_row_stride = recurrent.stride(0);
    w.recurrent_column_stride = recurrent.stride(1);
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
    if (has_unit_parameters()) {
      RNNCELLS_REQUIRE(unit_parameters(direction).is_contiguous(),
                       "the values per unit must be contiguous");
      w.unit_parameters = data<T>(unit_parameters(direction));
    }
    return w;
  }

  // The part of a state, or of the reserve, that belongs to one direction.
  int64_t state_offset(int64_t state, int64_t direction) const {
    return direction * size.batch * state_width(state);
  }
  int64_t reserve_offset(int64_t direction) const {
    const int64_t rows = x_sizes.size() == 3 ? x_sizes[0] * x_sizes[1] : x_sizes[0];
    return direction * rows * slots() * size.units;
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
    call.pool = torch_pool();
  }

 private:
  // The input's sizes with another number of columns.
  std::vector<int64_t> with_width(int64_t width) const {
    std::vector<int64_t> sizes = x_sizes;
    sizes.back() = width;
    return sizes;
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

template <class T>
void run_forward(const Layer& layer, const Tensor& y, const std::vector<Tensor>& last,
                 const Tensor* reserve, const Tensor* packed) {
  for (int64_t d = 0; d < layer.directions; ++d) {
    ForwardCall<T> call{};
    layer.fill<T>(call, d, reserve != nullptr, packed != nullptr);
    if (packed != nullptr) call.packed = packed_weights<T>(layer, *packed, d);
    call.y = mutable_data<T>(y) + d * layer.size.outputs;
    for (size_t i = 0; i < last.size(); ++i) {
      call.last[i] = mutable_data<T>(last[i]) + layer.state_offset(i, d);
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
  const Layer layer({x, states, weights, lengths, batch_sizes, cell, bidirectional, rowwise,
                     recompute, variant, seed, resets});
  const Tensor y = empty(layer.output_sizes(), layer.dtype);
  std::vector<Tensor> last;
  for (int i = 0; i < layer.engine.facts.states; ++i) {
    last.push_back(empty(layer.state_sizes(i), layer.dtype));
  }
  const Tensor reserve = empty(save ? layer.reserve_sizes() : std::vector<int64_t>{0}, layer.dtype);
  with_type(layer.dtype, [&](auto stored) {
    run_forward<decltype(stored)>(layer, y, last, save ? &reserve : nullptr,
                                  packed.has_value() ? &*packed : nullptr);
  });
  if (save && tidy && layer.padded()) clear_unused(layer, reserve);
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
    call.x_gradient = target(gradients.x, 0);
    call.add_to_x_gradient = d > 0;
    for (size_t i = 0; i < gradients.states.size(); ++i) {
      call.initial_gradient[i] = target(gradients.states[i], layer.state_offset(i, d));
    }
    const int64_t first = d * layer.weights_per_direction();
    call.input_weight_gradient = target(gradients.weights[first], 0);
    call.recurrent_weight_gradient = target(gradients.weights[first + 1], 0);
    if (layer.bias) {
      call.input_bias_gradient = target(gradients.weights[first + 2], 0);
      call.recurrent_bias_gradient = target(gradients.weights[first + 3], 0);
    }
    if (layer.projected) {
      call.projection_gradient = target(gradients.weights[first + (layer.bias ? 4 : 2)], 0);
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
  const Layer layer({x, states, weights, lengths, batch_sizes, cell, bidirectional, rowwise,
                     recompute, variant, seed, resets});
  layer.check(y, "y", layer.output_sizes());
  layer.check(reserve, "reserve", layer.reserve_sizes());
  const std::vector<Tensor> last = layer.checked_states(last_gradient, "grad_last");
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
                                   rows.has_value() ? &*rows : nullptr, last, gradients);
  });
  return gradients.asked;
}

// The weights as layer_forward reads them, uint8 [D, bytes].
Tensor layer_pack(const std::vector<Tensor>& weights, const std::string& cell, bool bidirectional) {
  RNNCELLS_REQUIRE(!weights.empty() && weights[0].dim() == 2, "expected weights");
  const Tensor x = empty({1, 0, weights[0].size(1)}, weights[0].scalar_type());
  const std::vector<Tensor> none;
  const std::optional<Tensor> nothing;
  const Layer layer({x, none, weights, nothing, nothing, cell, bidirectional, false, false, "",
                     nothing, nothing});
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
  RNNCELLS_REQUIRE(seed.is_cpu() && seed.numel() == 1 && seed.scalar_type() == ScalarType::Long,
                   "seed must be one int64 on the CPU");
  RNNCELLS_REQUIRE(sizes.size() == 3, "sizes must be those of [T, B, H]");
  const auto key = static_cast<uint64_t>(*data<int64_t>(seed));
  const uint32_t threshold = draw_threshold(rate);
  const Tensor drawn = empty(sizes, ScalarType::Bool);
  bool* out = mutable_data<bool>(drawn);
  for (int64_t t = 0; t < sizes[0]; ++t) {
    for (int64_t b = 0; b < sizes[1]; ++b, out += sizes[2]) {
      for (int64_t j = 0; j < sizes[2]; ++j) {
        const PhiloxBlocks<1> bits = philox<1>(
            key, static_cast<uint32_t>(j / draw_group * draw_counters + j % draw_counters),
            static_cast<uint32_t>(b), static_cast<uint32_t>(t),
            static_cast<uint32_t>(purpose + stream * 16));
        out[j] = bits.word[j / draw_counters % 4][0] < threshold;
      }
    }
  }
  return drawn;
}

}  // namespace
}  // namespace rnncells

STABLE_TORCH_LIBRARY(rnncells, library) {
  library.def(
      "layer_forward(Tensor x, Tensor[] states, Tensor[] weights, Tensor? lengths, "
      "Tensor? batch_sizes, str cell, bool bidirectional, bool save, bool tidy=True, "
      "bool rowwise=False, bool recompute=False, Tensor? packed=None, str variant='', "
      "Tensor? seed=None, Tensor? resets=None) "
      "-> (Tensor y, Tensor[] last, Tensor reserve)");
  library.def(
      "layer_backward(Tensor? grad_y, Tensor[] grad_last, Tensor x, Tensor[] states, "
      "Tensor[] weights, Tensor? lengths, Tensor? batch_sizes, Tensor y, Tensor reserve, "
      "str cell, bool bidirectional, int[] needs, bool rowwise=False, bool recompute=False, "
      "str variant='', Tensor? seed=None, Tensor? resets=None) "
      "-> Tensor[]");
  library.def("layer_pack(Tensor[] weights, str cell, bool bidirectional) -> Tensor");
  library.def(
      "layer_draw(Tensor seed, int purpose, int stream, int[] sizes, float rate) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(rnncells, CPU, library) {
  library.impl("layer_forward", TORCH_BOX(&rnncells::layer_forward));
  library.impl("layer_backward", TORCH_BOX(&rnncells::layer_backward));
  library.impl("layer_pack", TORCH_BOX(&rnncells::layer_pack));
  library.impl("layer_draw", TORCH_BOX(&rnncells::layer_draw));
}
