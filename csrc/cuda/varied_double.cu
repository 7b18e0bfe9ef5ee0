// Variants' kernels of one time step: double.
#include "cuda/varied_launches.cuh"

namespace rnncells::gpu {

template const char* varied_forward(int, const StepForward<double>&, Stream);
template const char* varied_backward(int, const StepBackward<double>&, Stream);

}  // namespace rnncells::gpu
