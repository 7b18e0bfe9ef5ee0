// Masks, and what enters and leaves a product under them, for all types.
#include "cuda/varied_launches.cuh"

namespace rnncells::gpu {

RNNCELLS_KERNEL(element_threads)
run_draw_events(RNNCELLS_PARAMETER(DrawEvents) call) {
  const auto [row, column] = element_of(call.steps * call.batch, call.columns);
  if (row < 0) return;
  const auto seed = static_cast<uint64_t>(read(Global<const int64_t>(call.seed), 0));
  const uint32_t bits =
      draw_bits(seed, call.purpose, call.stream, row / call.batch, row % call.batch, column);
  write(Global<bool>(call.events), row * call.columns + column, bits < call.threshold);
}

const char* draw_events(const DrawEvents& call, Stream stream) {
  return launch(&run_draw_events, call, element_shape(call.steps * call.batch * call.columns),
                stream);
}

template const char* draw_mask(const DrawMask<float>&, Stream);
template const char* enter_first_step(const EnterFirstStep<float>&, Stream);
template const char* leave_first_step(const LeaveFirstStep<float>&, Stream);
template const char* masked_operands(const MaskedOperands<float>&, Stream);
template const char* add_sequences(const Compute<float>*, int64_t, int64_t, float*, Stream);

template const char* draw_mask(const DrawMask<double>&, Stream);
template const char* enter_first_step(const EnterFirstStep<double>&, Stream);
template const char* leave_first_step(const LeaveFirstStep<double>&, Stream);
template const char* masked_operands(const MaskedOperands<double>&, Stream);
template const char* add_sequences(const Compute<double>*, int64_t, int64_t, double*, Stream);

template const char* draw_mask(const DrawMask<Float16>&, Stream);
template const char* enter_first_step(const EnterFirstStep<Float16>&, Stream);
template const char* leave_first_step(const LeaveFirstStep<Float16>&, Stream);
template const char* masked_operands(const MaskedOperands<Float16>&, Stream);
template const char* add_sequences(const Compute<Float16>*, int64_t, int64_t, Float16*, Stream);

template const char* draw_mask(const DrawMask<BFloat16>&, Stream);
template const char* enter_first_step(const EnterFirstStep<BFloat16>&, Stream);
template const char* leave_first_step(const LeaveFirstStep<BFloat16>&, Stream);
template const char* masked_operands(const MaskedOperands<BFloat16>&, Stream);
template const char* add_sequences(const Compute<BFloat16>*, int64_t, int64_t, BFloat16*, Stream);

}  // namespace rnncells::gpu
