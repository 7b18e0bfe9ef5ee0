// The kernels of one time step, for all types.
#include "cuda/launches.cuh"

namespace rnncells::gpu {

template const char* step_forward(int, const StepForward<float>&, Stream);
template const char* step_backward(int, const StepBackward<float>&, Stream);
template const char* store_outputs(const StoreOutputs<float>&, Stream);
template const char* gather_output_gradient(const GatherOutputGradient<float>&, Stream);

template const char* step_forward(int, const StepForward<double>&, Stream);
template const char* step_backward(int, const StepBackward<double>&, Stream);
template const char* store_outputs(const StoreOutputs<double>&, Stream);
template const char* gather_output_gradient(const GatherOutputGradient<double>&, Stream);

template const char* step_forward(int, const StepForward<Float16>&, Stream);
template const char* step_backward(int, const StepBackward<Float16>&, Stream);
template const char* store_outputs(const StoreOutputs<Float16>&, Stream);
template const char* gather_output_gradient(const GatherOutputGradient<Float16>&, Stream);

template const char* step_forward(int, const StepForward<BFloat16>&, Stream);
template const char* step_backward(int, const StepBackward<BFloat16>&, Stream);
template const char* store_outputs(const StoreOutputs<BFloat16>&, Stream);
template const char* gather_output_gradient(const GatherOutputGradient<BFloat16>&, Stream);

}  // namespace rnncells::gpu
