// Variants' kernels of one time step: BFloat16.
#include "cuda/varied_launches.cuh"

namespace rnncells::gpu {

template const char* varied_forward(int, const StepForward<BFloat16>&, Stream);
template const char* varied_backward(int, const StepBackward<BFloat16>&, Stream);

}  // namespace rnncells::gpu
