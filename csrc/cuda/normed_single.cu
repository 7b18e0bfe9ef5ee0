// Layer norm's kernels of one time step: float.
#include "cuda/normed_launches.cuh"

namespace rnncells::gpu {

template const char* normed_forward(int, const NormedForward<float>&, Stream);
template const char* normed_backward(int, const NormedBackward<float>&, Stream);

}  // namespace rnncells::gpu
