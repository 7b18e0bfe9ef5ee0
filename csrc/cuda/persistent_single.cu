// The persistent kernels for float32, multiplied one by one.
#include "cuda/launches.cuh"

namespace rnncells::gpu {

template const char* launch_forward<float, float>(int, const PersistentForward<float>&, Stream);
template const char* launch_backward<float, float>(int, const PersistentBackward<float>&, Stream);

}  // namespace rnncells::gpu
