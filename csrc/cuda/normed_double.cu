// Layer norm's kernels of one time step: double.
#include "cuda/normed_launches.cuh"

namespace rnncells::gpu {

template const char* normed_forward(int, const NormedForward<double>&, Stream);
template const char* normed_backward(int, const NormedBackward<double>&, Stream);

}  // namespace rnncells::gpu
