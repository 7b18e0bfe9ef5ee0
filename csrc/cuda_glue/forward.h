// A forward call's tensors, and its directions through the engine.
#pragma once

#include "cuda/layer_forward.h"
#include "cuda_glue/layer.h"

namespace rnncells {

// One layer's outputs, for all directions.
struct Outputs {
  const bool y_is_asked;  // else y has working space's sizes, and nothing writes it
  Tensor y;
  std::vector<Tensor> last;
  std::vector<Tensor> series;  // each state besides h after every time step; empty: nobody asked
  Tensor reserve;              // without elements: nothing is kept

  // Asked: for more than the last states. The reserve is made where its sizes say.
  Outputs(const DeviceLayer& layer, bool y_is_asked, bool series_are_asked,
          const std::vector<int64_t>& reserve_sizes)
      : y_is_asked(y_is_asked),
        y(empty_beside(layer.x, y_is_asked ? layer.output_sizes() : layer.two_step_sizes(),
                       layer.dtype)),
        reserve(empty_beside(layer.x, reserve_sizes, layer.dtype)) {
    for (int n = 0; n < layer.facts.states; ++n) {
      last.push_back(empty_beside(layer.x, layer.state_sizes(n), layer.dtype));
    }
    for (int n = 1; n < layer.facts.states && series_are_asked; ++n) {
      series.push_back(empty_beside(layer.x, layer.series_sizes(), layer.dtype));
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
    for (const Tensor& state : out.series) library.know(state);
    gpu::LayerForward<T> call{};
    layer.fill(call, input, d, false);
    if (out.y_is_asked) call.y = mutable_data<T>(out.y) + d * layer.size.outputs;
    call.y_stride = layer.directions * layer.size.outputs;
    for (int n = 0; n < layer.facts.states; ++n) {
      call.last[n] = mutable_data<T>(out.last[n]) + layer.state_offset(n, d);
    }
    call.series_stride = layer.directions * layer.size.units;
    for (size_t n = 0; n < out.series.size(); ++n) {
      call.series[n + 1] = mutable_data<T>(out.series[n]) + d * layer.size.units;
    }
    if (out.reserve.numel() > 0) {
      call.reserve = mutable_data<T>(out.reserve) + d * layer.rows() * slots * layer.size.units;
    }
    gpu::run_forward(library, call);
  }
}

}  // namespace rnncells
