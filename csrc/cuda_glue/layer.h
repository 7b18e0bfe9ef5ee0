// The tensors of one call on CUDA, and each direction as the engine takes it.
#pragma once

#include "cuda/layer.h"
#include "cuda_glue/library.h"
#include "layer_tensors.h"

namespace rnncells {

inline int cell_of(const std::string& name) {
  const int cell = gpu::cell_place(name.c_str());
  if (cell >= 0) return cell;
  std::string known;
  for (int i = 0; i < gpu::cell_count(); ++i) {
    known += (i > 0 ? ", " : "") + std::string(gpu::cell_traits(i).name);
  }
  refuse("unknown cell '", name, "'; known: ", known);
}

inline CellFacts facts_of(const gpu::CellTraits& cell) {
  CellFacts facts{};
  facts.name = cell.name;
  facts.gates = cell.gates;
  facts.states = cell.states;
  facts.phases = cell.phases;
  facts.reserve_slots = cell.reserve_slots;
  facts.projects = cell.projects;
  return facts;
}

// With `recompute` nothing is kept: BPTT runs the whole forward pass once more.
class DeviceLayer : public LayerTensors {
 public:
  explicit DeviceLayer(const Arguments& given)
      : LayerTensors(facts_of(gpu::cell_traits(cell_of(given.cell))), on_device(given), 0),
        cell(cell_of(given.cell)),
        here(x),
        library(x, here.stream()) {
    for (const Tensor& weight : weights) library.know(weight);
    for (const Tensor& state : states) library.know(state);
    library.know(x);
    if (size.batch > 0) bring_steps(given);
  }

  const int cell;
  const device::Place here;
  TorchLibrary library;

  bool packed() const { return x.dim() == 2; }
  int64_t rows() const { return packed() ? x_sizes[0] : size.steps * size.batch; }

  gpu::Timeline time(int64_t direction) const {
    return {size.steps, size.batch, lengths_, offsets_, direction == 1};
  }

  // x as a matrix; its copy, where it needs one, serves both directions.
  template <class T>
  gpu::Matrix<const T> input_rows(bool clean) {
    const int64_t last = x.dim() - 1;
    return gpu::rows_of_input<T>(library, time(0), rows(), size.inputs, data<T>(x),
                                 packed() ? 0 : x.stride(0), x.stride(last - 1), x.stride(last),
                                 clean);
  }

  template <class T>
  void fill(gpu::LayerCall<T>& call, const gpu::Matrix<const T>& input, int64_t direction,
            bool backward) const {
    const int64_t first = direction * weights_per_direction();
    call.cell = cell;
    call.choice = choose_kernel(here.facts(), layer_facts(), backward);
    call.time = time(direction);
    call.rows = rows();
    call.inputs = size.inputs;
    call.units = size.units;
    call.outputs = size.outputs;
    call.x = input;
    call.input_weight = matrix_of<T>(weights[first]);
    call.recurrent_weight = matrix_of<T>(weights[first + 1]);
    if (projected) call.projection = matrix_of<T>(projection_weight(direction));
    if (bias) {
      const Tensor &input_bias = weights[first + 2], &recurrent_bias = weights[first + 3];
      call.biases = {data<T>(input_bias), input_bias.stride(0), data<T>(recurrent_bias),
                     recurrent_bias.stride(0)};
    }
    for (size_t n = 0; n < states.size(); ++n) {
      call.initial[n] = data<T>(states[n]) + state_offset(n, direction);
    }
  }

 private:
  static Arguments on_device(Arguments given) {
    RNNCELLS_REQUIRE(device::is_here(given.x), "the input is not on CUDA, where another tensor is");
    given.lengths_on_device = given.lengths.has_value() && device::is_here(*given.lengths);
    return given;
  }

  template <class T>
  static gpu::Matrix<const T> matrix_of(const Tensor& tensor) {
    return {data<T>(tensor), tensor.size(0), tensor.size(1), tensor.stride(0), tensor.stride(1)};
  }

  gpu::LayerFacts layer_facts() const {
    const bool single = dtype == ScalarType::Float;
    const bool half = dtype == ScalarType::Half || dtype == ScalarType::BFloat16;
    return {cell,       single,     half,       single && tensor_floats_allowed(),
            size.steps, size.batch, size.units, projected};
  }

  // Lengths on the device stay there, unread: none counts as less than 1 or more than all steps.
  void bring_steps(const Arguments& given) {
    if (given.lengths.has_value() && device::is_here(*given.lengths)) {
      library.know(*given.lengths);
      lengths_ = library.allocate<int64_t>(size.batch);
      gpu::check_call(gpu::clamp_lengths({data<int64_t>(*given.lengths), given.lengths->stride(0),
                                          size.batch, size.steps, lengths_},
                                         here.stream()));
      return;
    }
    if (!ragged.has_value()) return;
    std::vector<int64_t> lengths(size.batch), offsets;
    int64_t before = 0;
    for (const int64_t count : ragged->counts) {
      for (int64_t row = 0; row < count; ++row) ++lengths[padded() ? ragged->order[row] : row];
      offsets.push_back(before);
      before += count;
    }
    lengths_ = bring(lengths);
    if (packed()) offsets_ = bring(offsets);
  }

  int64_t* bring(const std::vector<int64_t>& values) {
    const auto count = static_cast<int64_t>(values.size());
    auto* target = library.allocate<int64_t>(count);
    gpu::check_call(gpu::bring_values(values.data(), count, target, here.stream()));
    return target;
  }

  int64_t *lengths_ = nullptr, *offsets_ = nullptr;
};

}  // namespace rnncells
