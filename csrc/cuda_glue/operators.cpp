// The operators on CUDA.
#include "cuda_glue/device.h"
// The line above comes first: it says which part of the stable ABI the others get.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda_glue/backward.h"
#include "cuda_glue/forward.h"

namespace rnncells {
namespace {

std::tuple<Tensor, std::vector<Tensor>, Tensor> layer_forward(
    const Tensor& x, const std::vector<Tensor>& states, const std::vector<Tensor>& weights,
    const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes,
    const std::string& cell, bool bidirectional, bool save, bool tidy, bool rowwise, bool recompute,
    const std::optional<Tensor>& packed, const std::string& variant,
    const std::optional<Tensor>& seed, const std::optional<Tensor>& resets) {
  DeviceLayer layer(
      {x, states, weights, lengths, batch_sizes, cell, bidirectional, rowwise, recompute},
      {variant, seed, resets});
  const Outputs out(layer, save || !layer.variant.last_only, layer.variant.whole_states,
                    save ? layer.reserve_sizes() : std::vector<int64_t>{0});
  if (layer.size.batch > 0) {
    with_type(layer.dtype,
              [&](auto stored) { run_forward<decltype(stored)>(layer, out, layer.slots()); });
  }
  std::vector<Tensor> last = out.last;
  last.insert(last.end(), out.series.begin(), out.series.end());
  return {out.y, last, out.reserve};
}

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
  std::vector<Tensor> last = last_gradient;
  const std::vector<Tensor> series = layer.take_series(last);
  last = layer.checked_states(last, "grad_last");
  Gradients gradients(layer, needs);
  if (layer.size.batch == 0) {
    for (Tensor& gradient : gradients.asked) torch::stable::zero_(gradient);
    return gradients.asked;
  }
  std::optional<Outputs> again;
  if (recompute) again.emplace(layer, false, false, layer.full_reserve_sizes());
  const Tensor kept_y = as_contiguous(y), kept = again ? again->reserve : as_contiguous(reserve);
  with_type(layer.dtype, [&](auto stored) {
    using T = decltype(stored);
    if (again) run_forward<T>(layer, *again, layer.full_slots());
    Backward<T>(layer, {kept_y, kept, y_gradient, last, series, gradients}, layer.full_slots())
        .run();
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
