// What the operators of every device do with their arguments: checks, and the sizes read off them.
#pragma once

#include <algorithm>
#include <optional>

#include "cpu/engine.h"
#include "ragged.h"
#include "tensors.h"

namespace rnncells {

// The arguments that forward and backward share.
struct Arguments {
  const Tensor& x;
  const std::vector<Tensor>& states;
  const std::vector<Tensor>& weights;
  const std::optional<Tensor>& lengths;
  const std::optional<Tensor>& batch_sizes;
  const std::string& cell;
  bool bidirectional, rowwise, recompute;
  Variant variant = {};            // what its text says
  bool lengths_on_device = false;  // and so not to be read here
};

// The tensors of one call, checked, and the sizes read off them.
struct LayerTensors {
  const CellFacts facts;
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
  const int64_t recompute_slots;  // of the reserve
  Variant variant;

  // Where the input is.
  std::string place() const {
    return x.is_cpu() ? "the CPU" : "cuda:" + std::to_string(x.get_device_index());
  }
  void require_device(const Tensor& tensor, const std::string& name) const {
    if (x.is_cpu() && tensor.is_cpu()) return;
    RNNCELLS_REQUIRE(tensor.is_cpu() == x.is_cpu() && tensor.is_cuda() == x.is_cuda() &&
                         tensor.get_device_index() == x.get_device_index(),
                     name, " must be on ", place(), ", where the input is");
  }

  void check(const Tensor& tensor, const std::string& name,
             const std::vector<int64_t>& expected) const {
    require_device(tensor, name);
    RNNCELLS_REQUIRE(tensor.scalar_type() == dtype, name, " must have the input's ", "dtype ",
                     torch::headeronly::toString(dtype), ", got ",
                     torch::headeronly::toString(tensor.scalar_type()));
    const std::vector<int64_t> sizes = sizes_of(tensor);
    RNNCELLS_REQUIRE(sizes == expected, name, " must have shape ", text(expected), ", got ",
                     text(sizes));
  }

  LayerTensors(const CellFacts& cell, const Arguments& given, int64_t recompute_slots)
      : facts(cell),
        directions(given.bidirectional ? 2 : 1),
        dtype(given.x.scalar_type()),
        weights(given.weights),
        x_sizes(sizes_of(given.x)),
        x(given.x),
        rowwise(given.rowwise),
        recompute(given.recompute),
        recompute_slots(recompute_slots),
        variant(given.variant) {
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
    RNNCELLS_REQUIRE(!variant.zones() || !projected, "zoneout and a projection exclude each other");
    RNNCELLS_REQUIRE(variant.norm == Norm::none || !projected,
                     "layer norm and a projection exclude each other");
  }

  int64_t weights_per_direction() const {
    return (bias ? 4 : 2) + projected + norms() + has_unit_parameters();
  }
  // Scales and shifts of layer norm.
  int64_t norms() const {
    return variant.norm == Norm::none ? 0 : facts.middle && variant.norm == Norm::gates ? 4 : 2;
  }
  const Tensor& norm(int64_t direction, int64_t i) const {
    return weights[direction * weights_per_direction() + (bias ? 4 : 2) + projected + i];
  }
  // Behind the others; or else they are weight_hh, of a cell without a recurrent product.
  bool has_unit_parameters() const {
    return facts.unit_parameters > 0 && !facts.per_unit_recurrence;
  }

  void check_weights() {
    const auto count = static_cast<int64_t>(weights.size());
    const int64_t each = count / directions - has_unit_parameters() - norms();
    RNNCELLS_REQUIRE(count % directions == 0 && each >= 2 && each <= 5,
                     "expected 2 weights (without biases) or 4 for each of ", directions,
                     " directions, one more with a projection",
                     has_unit_parameters() ? ", and the cell's values per unit" : "", ", got ",
                     count);
    bias = each >= 4;
    projected = each % 2 != 0;
    RNNCELLS_REQUIRE(!projected || facts.projects, "the cell '", facts.name,
                     "' cannot have a projection");
    RNNCELLS_REQUIRE(weights[0].dim() == 2, "weight_ih must have two dimensions, got ",
                     text(sizes_of(weights[0])));
    const int dimensions = facts.per_unit_recurrence ? 1 : 2;
    RNNCELLS_REQUIRE(weights[1].dim() == dimensions, "weight_hh must have ",
                     dimensions == 1 ? "one dimension" : "two dimensions", ", got ",
                     text(sizes_of(weights[1])));
    size.outputs = dimensions == 1 ? weights[1].size(0) / facts.gates : weights[1].size(1);
    size.units = projected ? weights[1].size(0) / facts.gates : size.outputs;
    RNNCELLS_REQUIRE(size.units > 0 && size.outputs > 0, "weight_hh has no units");
    const int64_t rows = facts.gates * size.units;
    for (int64_t d = 0; d < directions; ++d) {
      const int64_t first = d * weights_per_direction();
      const std::string suffix = directions > 1 ? (d == 0 ? " (forward)" : " (reverse)") : "";
      check(weights[first], "weight_ih" + suffix, {rows, x_sizes.back()});
      const std::vector<int64_t> per_unit = {rows}, product = {rows, size.outputs};
      check(weights[first + 1], "weight_hh" + suffix, dimensions == 1 ? per_unit : product);
      if (bias) {
        check(weights[first + 2], "bias_ih" + suffix, {rows});
        check(weights[first + 3], "bias_hh" + suffix, {rows});
      }
      if (projected) {
        check(projection_weight(d), "weight_hr" + suffix, {size.outputs, size.units});
      }
      for (int64_t i = 0; i < norms(); ++i) {
        check(norm(d, i), "layer norm's values" + suffix, {i < 2 ? rows : size.units});
        RNNCELLS_REQUIRE(norm(d, i).is_contiguous(), "layer norm's values must be contiguous");
      }
      if (has_unit_parameters()) {
        check(unit_parameters(d), "the values per unit" + suffix,
              {facts.unit_parameters * size.units});
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
    if (!given.lengths.has_value()) return;
    if (given.lengths_on_device) {
      require_device(*given.lengths, "lengths");
      Ragged::check_lengths(*given.lengths, size.batch);
    } else {
      ragged = Ragged::from_lengths(*given.lengths, size.steps, size.batch);
    }
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
  // Of working space in its place.
  std::vector<int64_t> two_step_sizes() const {
    return {std::min<int64_t>(size.steps, 2), size.batch, directions * size.outputs};
  }
  // Of a state besides h after every time step.
  std::vector<int64_t> series_sizes() const { return with_width(directions * size.units); }
  // The reserve's depend on sizes and the cell alone; the full ones, on `recompute` neither.
  std::vector<int64_t> reserve_sizes() const { return reserve_sizes(slots()); }
  std::vector<int64_t> full_reserve_sizes() const { return reserve_sizes(full_slots()); }
  int64_t full_slots() const {
    return facts.reserve_slots + projected + (variant.zones() ? facts.states : 0);
  }
  int64_t slots() const { return recompute ? recompute_slots : full_slots(); }
  bool padded() const { return ragged.has_value() && !ragged->order.empty(); }

  // None, or one for each state of the cell; contiguous.
  std::vector<Tensor> checked_states(const std::vector<Tensor>& given, const char* name) const {
    const auto count = static_cast<int64_t>(given.size());
    RNNCELLS_REQUIRE(count == 0 || count == facts.states, "expected ", facts.states, " tensors (",
                     name, ") or none, got ", count);
    std::vector<Tensor> result;
    for (int64_t i = 0; i < count; ++i) {
      check(given[i], std::string(name) + " " + std::to_string(i), state_sizes(i));
      result.push_back(as_contiguous(given[i]));
    }
    return result;
  }

  // Takes the gradients of whole sequences of states away, which stand behind those of the last
  // states; contiguous. None, or one for each state besides h.
  std::vector<Tensor> take_series(std::vector<Tensor>& given) const {
    std::vector<Tensor> series;
    while (variant.whole_states && static_cast<int>(given.size()) > facts.states) {
      check(given.back(), "grad_last of a whole sequence", series_sizes());
      series.insert(series.begin(), as_contiguous(given.back()));
      given.pop_back();
    }
    RNNCELLS_REQUIRE(series.empty() || static_cast<int>(series.size()) == facts.states - 1,
                     "expected ", facts.states - 1, " gradients of whole sequences, got ",
                     series.size());
    return series;
  }

  // The part of a state, or of the reserve, that belongs to one direction.
  int64_t state_offset(int64_t state, int64_t direction) const {
    return direction * size.batch * state_width(state);
  }
  int64_t reserve_offset(int64_t direction) const {
    const int64_t rows = x_sizes.size() == 3 ? x_sizes[0] * x_sizes[1] : x_sizes[0];
    return direction * rows * slots() * size.units;
  }

 private:
  std::vector<int64_t> reserve_sizes(int64_t slots_of_row) const {
    std::vector<int64_t> sizes = with_width(slots_of_row * size.units);
    sizes.insert(sizes.begin(), directions);
    return sizes;
  }
  // The input's sizes with another number of columns.
  std::vector<int64_t> with_width(int64_t width) const {
    std::vector<int64_t> sizes = x_sizes;
    sizes.back() = width;
    return sizes;
  }
};

// The gradients that layer_backward was asked for: x, then the states, then the weights.
struct Gradients {
  std::vector<Tensor> asked;
  const Tensor* x = nullptr;
  std::vector<const Tensor*> states, weights;

  Gradients(const LayerTensors& layer, const std::vector<int64_t>& needs) {
    const size_t count = 1 + layer.states.size() + layer.weights.size();
    RNNCELLS_REQUIRE(needs.size() == count, "needs must have ", count, " entries, got ",
                     needs.size());
    asked.reserve(count);  // the pointers below stay valid
    size_t next = 0;
    const auto make = [&](const std::vector<int64_t>& sizes) -> const Tensor* {
      if (needs[next++] == 0) return nullptr;
      asked.push_back(empty_beside(layer.x, sizes, layer.dtype));
      return &asked.back();
    };
    x = make(sizes_of(layer.x));
    for (const Tensor& state : layer.states) states.push_back(make(sizes_of(state)));
    for (const Tensor& weight : layer.weights) weights.push_back(make(sizes_of(weight)));
  }
};

}  // namespace rnncells
