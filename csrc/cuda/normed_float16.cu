// Layer norm's kernels of one time step: Float16.
#include "cuda/normed_launches.cuh"

namespace rnncells::gpu {

template const char* normed_forward(int, const NormedForward<Float16>&, Stream);
template const char* normed_backward(int, const NormedBackward<Float16>&, Stream);

}  // namespace rnncells::gpu
