// Variants' kernels of one time step: Float16.
#include "cuda/varied_launches.cuh"

namespace rnncells::gpu {

template const char* varied_forward(int, const StepForward<Float16>&, Stream);
template const char* varied_backward(int, const StepBackward<Float16>&, Stream);

}  // namespace rnncells::gpu
