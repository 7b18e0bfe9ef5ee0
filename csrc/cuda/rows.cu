// The kernels over the rows of a series, and over states, for all types.
#include "cuda/launches.cuh"

namespace rnncells::gpu {

template const char* previous_outputs(const PreviousOutputs<float>&, Stream);
template const char* copy_rows(const CopyRows<float>&, Stream);
template const char* widen_values(const WidenValues<float>&, Stream);
template const char* narrow_sum(const NarrowSum<float>&, Stream);
template const char* sum_rows(const SumRows<float>&, Stream);

template const char* previous_outputs(const PreviousOutputs<double>&, Stream);
template const char* copy_rows(const CopyRows<double>&, Stream);
template const char* widen_values(const WidenValues<double>&, Stream);
template const char* narrow_sum(const NarrowSum<double>&, Stream);
template const char* sum_rows(const SumRows<double>&, Stream);

template const char* previous_outputs(const PreviousOutputs<Float16>&, Stream);
template const char* copy_rows(const CopyRows<Float16>&, Stream);
template const char* widen_values(const WidenValues<Float16>&, Stream);
template const char* narrow_sum(const NarrowSum<Float16>&, Stream);
template const char* sum_rows(const SumRows<Float16>&, Stream);

template const char* previous_outputs(const PreviousOutputs<BFloat16>&, Stream);
template const char* copy_rows(const CopyRows<BFloat16>&, Stream);
template const char* widen_values(const WidenValues<BFloat16>&, Stream);
template const char* narrow_sum(const NarrowSum<BFloat16>&, Stream);
template const char* sum_rows(const SumRows<BFloat16>&, Stream);

}  // namespace rnncells::gpu
