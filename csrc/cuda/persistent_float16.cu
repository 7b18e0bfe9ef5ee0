// The persistent kernels for float16, with matrix tiles.
#include "cuda/launches.cuh"

namespace rnncells::gpu {

template const char* launch_forward<Float16, Float16>(int, const PersistentForward<Float16>&,
                                                      Stream);
template const char* launch_backward<Float16, Float16>(int, const PersistentBackward<Float16>&,
                                                       Stream);

}  // namespace rnncells::gpu
