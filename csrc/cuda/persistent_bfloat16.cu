// The persistent kernels for bfloat16, with matrix tiles.
#include "cuda/launches.cuh"

namespace rnncells::gpu {

template const char* launch_forward<BFloat16, BFloat16>(int, const PersistentForward<BFloat16>&,
                                                        Stream);
template const char* launch_backward<BFloat16, BFloat16>(int, const PersistentBackward<BFloat16>&,
                                                         Stream);

}  // namespace rnncells::gpu
