// Layer norm's kernels of one time step: BFloat16.
#include "cuda/normed_launches.cuh"

namespace rnncells::gpu {

template const char* normed_forward(int, const NormedForward<BFloat16>&, Stream);
template const char* normed_backward(int, const NormedBackward<BFloat16>&, Stream);

}  // namespace rnncells::gpu
