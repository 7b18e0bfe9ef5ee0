// Lengths and offsets of the time steps, brought to the device. (No templates: one file has them.)
#include <algorithm>

#include "cuda/launches.cuh"

namespace rnncells::gpu {

RNNCELLS_KERNEL(element_threads)
run_bring_values(RNNCELLS_PARAMETER(BringValues) call) {
  const int64_t i = element_of(call.count, 1).row;
  if (i >= 0) write(Global<int64_t>(call.to), i, call.values[i]);
}

RNNCELLS_KERNEL(element_threads)
run_clamp_lengths(RNNCELLS_PARAMETER(ClampLengths) call) {
  const int64_t i = element_of(call.count, 1).row;
  if (i < 0) return;
  const int64_t length = read(Global<const int64_t>(call.from), i * call.stride);
  write(Global<int64_t>(call.to), i, larger(1, smaller(length, call.steps)));
}

const char* bring_values(const int64_t* from, int64_t count, int64_t* to, Stream stream) {
  for (int64_t done = 0; done < count; done += BringValues::most) {
    BringValues call{std::min(count - done, BringValues::most), to + done, {}};
    std::copy_n(from + done, call.count, call.values);
    const char* wrong = launch(&run_bring_values, call, element_shape(call.count), stream);
    if (wrong != nullptr) return wrong;
  }
  return nullptr;
}

const char* clamp_lengths(const ClampLengths& call, Stream stream) {
  return launch(&run_clamp_lengths, call, element_shape(call.count), stream);
}

}  // namespace rnncells::gpu
