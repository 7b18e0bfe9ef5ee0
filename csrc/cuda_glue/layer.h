// The tensors of one call on CUDA, and each direction as the engine takes it.
#pragma once

#include "cuda/layer.h"
#include "cuda_glue/library.h"
#include "layer_tensors.h"
#include "variant_text.h"

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
  facts.unit_parameters = cell.unit_parameters;
  facts.open = cell.open;
  facts.middle = cell.middle;
  facts.per_unit_recurrence = cell.per_unit_recurrence;
  facts.activations = cell.activations;
  return facts;
}

inline void check_seed(const Tensor& seed) {
  RNNCELLS_REQUIRE(seed.numel() == 1 && seed.scalar_type() == ScalarType::Long,
                   "seed must be one int64, got ", text(sizes_of(seed)), " of ",
                   torch::headeronly::toString(seed.scalar_type()));
}

// What a call is told of its variant.
struct GivenVariant {
  const std::string& text;
  const std::optional<Tensor>&seed, &resets;
};

// With `recompute` nothing is kept: BPTT runs the whole forward pass once more.
class DeviceLayer : public LayerTensors {
 public:
  DeviceLayer(const Arguments& given, const GivenVariant& said)
      : LayerTensors(
            facts_of(gpu::cell_traits(cell_of(given.cell))),
            on_device(given,
                      read_variant(said.text, facts_of(gpu::cell_traits(cell_of(given.cell))))),
            0),
        cell(cell_of(given.cell)),
        here(x),
        library(x, here.stream()) {
    take_variant(given, said);
    for (const Tensor& weight : weights) library.know(weight);
    for (const Tensor& state : states) library.know(state);
    library.know(x);
    for (int64_t d = 0; d < directions && facts.unit_parameters > 0; ++d) {
      per_unit_.push_back(as_contiguous(facts.per_unit_recurrence
                                            ? weights[d * weights_per_direction() + 1]
                                            : unit_parameters(d)));
      library.know(per_unit_.back());
    }
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
    if (!facts.per_unit_recurrence) call.recurrent_weight = matrix_of<T>(weights[first + 1]);
    if (projected) call.projection = matrix_of<T>(projection_weight(direction));
    if (bias) {
      const Tensor &input_bias = weights[first + 2], &recurrent_bias = weights[first + 3];
      call.biases = {data<T>(input_bias), input_bias.stride(0), data<T>(recurrent_bias),
                     recurrent_bias.stride(0)};
    }
    for (size_t n = 0; n < states.size(); ++n) {
      call.initial[n] = data<T>(states[n]) + state_offset(n, direction);
    }
    call.is_varied = is_varied() || !gpu::is_plain(cell);
    call.recurrent_dropout = variant.masks() ? variant.recurrent_dropout : 0;
    call.varied = varied<T>(direction);
    call.norms.norm = variant.norm;
    for (int64_t i = 0; i < norms(); ++i) call.norms.values[i] = data<T>(norm(direction, i));
    for (int i = 0; i < 2 && facts.middle && norms() == 2; ++i) {  // its gate's rows
      const int gate = gpu::cell_traits(cell).middle_gate;
      call.norms.values[2 + i] = call.norms.values[i] + gate * size.units;
    }
  }

 private:
  static Arguments on_device(Arguments given, const Variant& variant) {
    given.variant = variant;
    RNNCELLS_REQUIRE(device::is_here(given.x), "the input is not on CUDA, where another tensor is");
    given.lengths_on_device = given.lengths.has_value() && device::is_here(*given.lengths);
    return given;
  }

  template <class T>
  static gpu::Matrix<const T> matrix_of(const Tensor& tensor) {
    return {data<T>(tensor), tensor.size(0), tensor.size(1), tensor.stride(0), tensor.stride(1)};
  }

  // The seed stays unread: a kernel reads it, so that nobody waits and a graph draws anew.
  void take_variant(const Arguments& given, const GivenVariant& said) {
    if (said.seed.has_value()) {
      require_device(*said.seed, "seed");
      check_seed(*said.seed);
      library.know(*said.seed);
      variant.draws = true;
      seed_ = data<int64_t>(*said.seed);
    }
    if (!said.resets.has_value()) return;
    const std::vector<int64_t> expected = {size.steps, size.batch}, sizes = sizes_of(*said.resets);
    RNNCELLS_REQUIRE(!given.batch_sizes.has_value(), "a packed input cannot have resets");
    require_device(*said.resets, "resets");
    RNNCELLS_REQUIRE(said.resets->scalar_type() == ScalarType::Bool, "resets must be bool, got ",
                     torch::headeronly::toString(said.resets->scalar_type()));
    RNNCELLS_REQUIRE(sizes == expected, "resets must have shape ", text(expected), ", got ",
                     text(sizes));
    library.know(*said.resets);
    variant.resets = data<bool>(*said.resets);
    variant.resets_step_stride = said.resets->stride(0);
    variant.resets_batch_stride = said.resets->stride(1);
  }

  bool is_varied() const { return facts.open || variant.any(); }

  template <class T>
  gpu::Varied<T> varied(int64_t direction) const {
    gpu::Varied<T> varied{};
    varied.activations = variant.activations;
    if (facts.unit_parameters > 0) varied.unit_parameters = data<T>(per_unit_[direction]);
    varied.seed = seed_;
    varied.stream = static_cast<uint32_t>(direction);
    varied.zones = variant.zones();
    for (int n = 0; n < facts.states; ++n) {
      varied.zoneout[n] = static_cast<Compute<T>>(variant.zoneout[n]);
      varied.zoneout_threshold[n] = draw_threshold(variant.zoneout[n]);
    }
    varied.resets = variant.resets;
    varied.resets_step_stride = variant.resets_step_stride;
    varied.resets_batch_stride = variant.resets_batch_stride;
    return varied;
  }

  gpu::LayerFacts layer_facts() const {
    const bool single = dtype == ScalarType::Float;
    const bool half = dtype == ScalarType::Half || dtype == ScalarType::BFloat16;
    return {cell,       single,     half,       single && tensor_floats_allowed(),
            size.steps, size.batch, size.units, projected,
            is_varied()};
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

  std::vector<Tensor> per_unit_;  // each direction's values per unit
  int64_t *lengths_ = nullptr, *offsets_ = nullptr;
  const int64_t* seed_ = nullptr;
};

}  // namespace rnncells
