// BPTT of one direction: the loop over time gives the gradients of the shares, and then every
// weight's gradient, and x's, is one product.
#pragma once

#include <vector>

#include "cuda/layer_normed.h"

namespace rnncells::gpu {

// The loop, step by step.
template <class T, class Library>
class BackwardSteps {
  using C = Compute<T>;

 public:
  BackwardSteps(Library& library, const LayerBackward<T>& layer, const ShareGradients<T>& shares)
      : library_(library),
        layer_(layer),
        shares_(shares),
        batch_(layer.time.batch),
        normed_(library, layer, shares) {
    const int64_t units = layer.units;
    step_.time = layer.time;
    step_.units = units;
    step_.projected = layer.projected();
    step_.y = layer.y;
    step_.y_stride = layer.y_stride;
    step_.reserve = layer.reserve;
    step_.varied = shares.varied;
    for (int n = 1; n < layer.traits().states; ++n) {
      step_.series_gradient[n] = layer.series_gradient[n];
    }
    step_.series_stride = layer.series_stride;
    if (!layer.projected()) {
      step_.y_gradient = layer.y_gradient;
      step_.y_gradient_step_stride = layer.y_gradient_step_stride;
      step_.y_gradient_row_stride = layer.y_gradient_row_stride;
      step_.y_gradient_column_stride = layer.y_gradient_column_stride;
    }
    step_.input_gradient = shares.input;
    step_.recurrent_gradient = shares.separate ? shares.recurrent : nullptr;
    for (int n = 0; n < layer.traits().states; ++n) {
      const int64_t count = batch_ * layer.width(n);
      step_.initial[n] = layer.initial[n];
      step_.carry[n] = library.template allocate<C>(count);
      check_call(widen_values(WidenValues<T>{layer.last_gradient[n], step_.carry[n], count},
                              library.stream()));
    }
    if (layer.traits().phases > 1 || layer.normed()) {
      step_.partial = library.template allocate<C>(batch_ * layer.traits().shares * units);
      for (int n = 0; n < layer.traits().states && layer.varied.zones; ++n) {
        step_.passed[n] = library.template allocate<C>(batch_ * units);
      }
    }
    if (layer.unit_parameter_gradient != nullptr) {
      step_.unit_sums = zeros_by_sequence<T>(library, batch_, unit_columns());
    }
    if (layer.multiplies()) by_hidden_ = library.template allocate<C>(batch_ * layer.outputs);
  }

  void run() {
    if (layer_.projected()) {
      T* rows = library_.template allocate<T>(batch_ * layer_.outputs);
      C* computed = library_.template allocate<C>(batch_ * layer_.units);
      const auto product =
          library_.product(matrix<T>(rows, batch_, layer_.outputs), layer_.projection, computed);
      walk([&](const C* arrived) -> const C* {
        gather(arrived, rows);
        product();
        return computed;
      });
    } else {
      walk([](const C* arrived) { return arrived; });
    }
    if (step_.unit_sums != nullptr) {
      check_call(add_sequences(step_.unit_sums, batch_, unit_columns(),
                               layer_.unit_parameter_gradient, library_.stream()));
    }
    normed_.finish();
    if (layer_.multiplies() && step_.varied.changes_operand()) {
      check_call(
          leave_first_step(LeaveFirstStep<T>{layer_.time, layer_.outputs, step_.varied, by_hidden_},
                           library_.stream()));
    }
    for (int n = 0; n < layer_.traits().states; ++n) {
      if (layer_.initial_gradient[n] == nullptr) continue;
      check_call(narrow_sum(NarrowSum<T>{step_.carry[n], n == 0 ? by_hidden_ : nullptr,
                                         layer_.initial_gradient[n], batch_ * layer_.width(n)},
                            library_.stream()));
    }
  }

 private:
  int64_t unit_columns() const { return layer_.traits().unit_parameters * layer_.units; }
  const char* launch_step() {
    if (layer_.normed()) return normed_.launch(step_);
    return layer_.is_varied ? varied_backward(layer_.cell, step_, library_.stream())
                            : step_backward(layer_.cell, step_, library_.stream());
  }

  // The gradient of the whole output, for the product with the projection.
  void gather(const C* arrived, T* rows) const {
    GatherOutputGradient<T> call{};
    call.time = layer_.time;
    call.outputs = layer_.outputs;
    call.step = step_.step;
    call.product = arrived;
    call.y_gradient = layer_.y_gradient;
    call.y_gradient_step_stride = layer_.y_gradient_step_stride;
    call.y_gradient_row_stride = layer_.y_gradient_row_stride;
    call.y_gradient_column_stride = layer_.y_gradient_column_stride;
    call.carry = step_.carry[0];
    call.hidden_gradient = shares_.hidden;
    call.step_gradient = rows;
    call.varied = step_.varied;
    check_call(gather_output_gradient(call, library_.stream()));
  }

  template <class Arrive>
  void walk(const Arrive& arrive) {
    const int phases = layer_.normed() ? 1 : layer_.traits().phases;
    const auto back = [&](int p, T*& gradient) {
      const Matrix<const T> weight = layer_.phase_weight(phase_traits(layer_.cell, p));
      gradient = library_.template allocate<T>(batch_ * weight.rows);
      return library_.product(matrix<T>(gradient, batch_, weight.rows), weight, by_hidden_);
    };
    std::vector<T*> gradients(phases);
    std::vector<decltype(back(0, gradients[0]))> products;
    for (int p = 0; p < phases && layer_.multiplies(); ++p) {
      products.push_back(back(p, gradients[p]));
    }
    const C* arrived = nullptr;
    for (int64_t s = layer_.time.steps - 1; s >= 0; --s) {
      step_.step = layer_.time.reverse ? layer_.time.steps - 1 - s : s;
      arrived = arrive(arrived);
      for (int p = phases - 1; p >= 0; --p) {
        step_.phase = p;
        step_.product = arrived;
        step_.step_gradient = gradients[p];
        check_call(launch_step());
        if (layer_.multiplies()) products[p]();
        arrived = by_hidden_;
      }
    }
  }

  Library& library_;
  const LayerBackward<T>& layer_;
  const ShareGradients<T>& shares_;
  const int64_t batch_;
  NormedSteps<T, Library> normed_;
  StepBackward<T> step_{};
  C* by_hidden_ = nullptr;  // what the last product passed back; null: the cell has none
};

template <class T, class Library>
void backward_at_once(Library& library, const LayerBackward<T>& layer,
                      const ShareGradients<T>& shares) {
  PersistentBackward<T> call{};
  call.time = layer.time;
  call.units = layer.units;
  call.plan = layer.choice.plan;
  call.operand = layer.choice.operand;
  call.recurrent = layer.recurrent();
  for (int n = 0; n < layer.traits().states; ++n) {
    call.initial[n] = layer.initial[n];
    call.last_gradient[n] = layer.last_gradient[n];
    call.initial_gradient[n] = layer.initial_gradient[n];
  }
  call.y = layer.y;
  call.y_stride = layer.y_stride;
  call.reserve = layer.reserve;
  call.y_gradient = layer.y_gradient;
  call.y_gradient_step_stride = layer.y_gradient_step_stride;
  call.y_gradient_row_stride = layer.y_gradient_row_stride;
  call.y_gradient_column_stride = layer.y_gradient_column_stride;
  call.input_gradient = shares.input;
  call.recurrent_gradient = shares.separate ? shares.recurrent : nullptr;
  call.workspace = workspace<T>(library, layer.choice);
  check_call(persistent_backward(layer.cell, call, library.stream()));
}

template <class T, class Library>
void run_backward(Library& library, const LayerBackward<T>& layer) {
  const int64_t count = layer.rows * layer.columns();
  ShareGradients<T> shares{};
  shares.separate = layer.traits().separate_gradients || layer.norms.norm == Norm::gates;
  shares.varied = with_mask(library, layer);
  if (layer.normed() || layer.recurrent_weight_gradient != nullptr) {
    shares.previous = previous_outputs_of(library, layer, shares.varied);
  }
  shares.input = library.template allocate<T>(count);
  shares.recurrent = shares.separate ? library.template allocate<T>(count) : shares.input;
  if (layer.projected()) shares.hidden = library.template allocate<T>(layer.rows * layer.outputs);
  if (layer.choice.kernel == Kernel::step) {
    BackwardSteps<T, Library>(library, layer, shares).run();
  } else if constexpr (!std::is_same_v<T, double>) {
    backward_at_once(library, layer, shares);
  }
  run_products(library, layer, shares);
}

}  // namespace rnncells::gpu
