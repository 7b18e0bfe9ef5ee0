// Variants' kernels of one time step: float.
#include "cuda/varied_launches.cuh"

namespace rnncells::gpu {

template const char* varied_forward(int, const StepForward<float>&, Stream);
template const char* varied_backward(int, const StepBackward<float>&, Stream);

}  // namespace rnncells::gpu
