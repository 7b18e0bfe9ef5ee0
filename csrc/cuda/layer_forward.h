// The forward pass of one direction: the input's share of the gates by one product, then the loop
// over time by one persistent kernel, or step by step.
#pragma once

#include <utility>
#include <vector>

#include "cuda/layer.h"

namespace rnncells::gpu {

template <class T, class Library>
class ForwardSteps {
  using C = Compute<T>;

 public:
  ForwardSteps(Library& library, const LayerForward<T>& layer, const C* input)
      : library_(library), layer_(layer), batch_(layer.time.batch) {
    const int64_t units = layer.units, outputs = layer.outputs;
    hidden_ = layer.last[0];  // what it is after the last step
    copy_values(library, layer.initial[0], batch_ * outputs, hidden_);
    step_.time = layer.time;
    step_.units = units;
    step_.input = input;
    step_.biases = layer.biases;
    step_.reserve = layer.reserve;
    step_.varied = with_mask(library, layer);
    for (int n = 1; n < layer.traits().states; ++n) step_.series[n] = layer.series[n];
    step_.series_stride = layer.series_stride;
    if (layer.multiplies() && step_.varied.changes_operand()) enter_first_step();
    for (int n = 1; n < layer.traits().states; ++n) {
      step_.state[n] = library.template allocate<C>(batch_ * units);
      check_call(widen_values(WidenValues<T>{layer.initial[n], step_.state[n], batch_ * units},
                              library.stream()));
    }
    if (layer.projected()) {
      step_.computed = library.template allocate<T>(batch_ * units);
      projected_ = library.template allocate<T>(batch_ * outputs);
    } else {
      step_.hidden = hidden_;
      step_.y = layer.y;
      step_.y_stride = layer.y_stride;
    }
    if (layer.traits().phases > 1) {
      const int saved = layer.traits().reserve_slots - (layer.traits().states - 1);
      step_.saved = library.template allocate<C>(batch_ * saved * units);
      operand_ = library.template allocate<T>(batch_ * units);
    }
  }

  void run() {
    const int phases = layer_.normed() ? 1 : layer_.traits().phases;
    const T* entering = step_.entering == nullptr ? hidden_ : step_.entering;
    std::vector<C*> sums;
    for (int p = 0; p < phases; ++p) {
      sums.push_back(library_.template allocate<C>(batch_ * phase(p).gates * layer_.units));
    }
    const auto recurrent = [&](int p) {
      const Matrix<const T> weight = layer_.phase_weight(phase(p));
      const auto left = matrix<T>(p == 0 ? entering : operand_, batch_, weight.columns);
      return library_.product(left, weight.transposed(), sums[p]);
    };
    std::vector<decltype(recurrent(0))> products;
    for (int p = 0; p < phases && layer_.multiplies(); ++p) products.push_back(recurrent(p));
    if (!layer_.projected()) {
      walk(products, sums, [] {});
    } else {
      const auto computed = matrix<T>(step_.computed, batch_, layer_.units);
      const auto project =
          rounded_product<T>(library_, computed, layer_.projection.transposed(), projected_);
      walk(products, sums, [&] {
        project();
        check_call(store_outputs(
            StoreOutputs<T>{layer_.time, layer_.outputs, step_.step, projected_, hidden_, layer_.y,
                            layer_.y_stride, step_.varied, step_.entering},
            library_.stream()));
      });
    }
    for (int n = 1; n < layer_.traits().states; ++n) {
      check_call(
          narrow_sum(NarrowSum<T>{step_.state[n], nullptr, layer_.last[n], batch_ * layer_.units},
                     library_.stream()));
    }
  }

 private:
  void enter_first_step() {
    step_.entering = library_.template allocate<T>(batch_ * layer_.outputs);
    check_call(gpu::enter_first_step(
        EnterFirstStep<T>{layer_.time, layer_.outputs, hidden_, step_.varied, step_.entering},
        library_.stream()));
  }
  const char* launch_step() const {
    if (layer_.normed()) {
      return normed_forward(layer_.cell, NormedForward<T>{step_, layer_.norms}, library_.stream());
    }
    return layer_.is_varied ? varied_forward(layer_.cell, step_, library_.stream())
                            : step_forward(layer_.cell, step_, library_.stream());
  }
  PhaseTraits phase(int p) const { return phase_traits(layer_.cell, p); }

  template <class Products, class Finish>
  void walk(const Products& products, const std::vector<C*>& sums, const Finish& finish) {
    const int phases = static_cast<int>(sums.size());
    for (int64_t s = 0; s < layer_.time.steps; ++s) {
      step_.step = layer_.time.reverse ? layer_.time.steps - 1 - s : s;
      for (int p = 0; p < phases; ++p) {
        if (layer_.multiplies()) products[p]();
        step_.phase = p;
        step_.product = sums[p];
        step_.operand = p + 1 < phases ? operand_ : nullptr;
        check_call(launch_step());
      }
      finish();
    }
  }

  Library& library_;
  const LayerForward<T>& layer_;
  const int64_t batch_;
  StepForward<T> step_{};
  T *hidden_ = nullptr, *operand_ = nullptr, *projected_ = nullptr;
};

template <class T, class Library>
void forward_at_once(Library& library, const LayerForward<T>& layer, const Compute<T>* input) {
  PersistentForward<T> call{};
  call.time = layer.time;
  call.units = layer.units;
  call.plan = layer.choice.plan;
  call.operand = layer.choice.operand;
  call.input = input;
  call.recurrent = layer.recurrent();
  call.biases = layer.biases;
  for (int n = 0; n < layer.traits().states; ++n) {
    call.initial[n] = layer.initial[n];
    call.last[n] = layer.last[n];
  }
  call.y = layer.y;
  call.y_stride = layer.y_stride;
  call.reserve = layer.reserve;
  call.workspace = workspace<T>(library, layer.choice);
  check_call(persistent_forward(layer.cell, call, library.stream()));
}

template <class T, class Library>
void run_forward(Library& library, const LayerForward<T>& layer) {
  Compute<T>* input = library.template allocate<Compute<T>>(layer.rows * layer.columns());
  library.product(layer.x, layer.input_weight.transposed(), input)();
  if (layer.choice.kernel == Kernel::step) {
    ForwardSteps<T, Library>(library, layer, input).run();
  } else if constexpr (!std::is_same_v<T, double>) {
    forward_at_once(library, layer, input);
  }
}

}  // namespace rnncells::gpu
