// The persistent kernels for float32, multiplied in TF32, with matrix tiles.
#include "cuda/launches.cuh"

namespace rnncells::gpu {

template const char* launch_forward<float, TensorFloat>(int, const PersistentForward<float>&,
                                                        Stream);
template const char* launch_backward<float, TensorFloat>(int, const PersistentBackward<float>&,
                                                         Stream);

}  // namespace rnncells::gpu
