// The Python module rnncells._C_cuda. Loading it registers the operators' CUDA kernels too.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include "cuda_glue/kernels.h"

namespace py = pybind11;
using namespace rnncells;

namespace {

gpu::LayerFacts layer_facts(const std::string& cell, const std::string& dtype, int64_t steps,
                            int64_t batch, int64_t units, bool projected, bool varied) {
  const int place = gpu::cell_place(cell.c_str());
  if (place < 0) throw std::invalid_argument("rnncells: unknown cell '" + cell + "'");
  const bool single = dtype == "float32", half = dtype == "float16" || dtype == "bfloat16";
  if (!single && !half && dtype != "float64") {
    throw std::invalid_argument(
        "rnncells: dtype: expected float32, float64, float16 or bfloat16, got " + dtype);
  }
  if (steps < 1 || batch < 0 || units < 1) {
    throw std::invalid_argument("rnncells: T, B and H: expected at least 1, 0 and 1, got " +
                                std::to_string(steps) + ", " + std::to_string(batch) + " and " +
                                std::to_string(units));
  }
  return {place, single, half, false, steps, batch, units, projected, varied};
}

std::string kernel_name(int device, const std::string& cell, const std::string& dtype,
                        int64_t steps, int64_t batch, int64_t units, bool projected, bool backward,
                        bool varied) {
  gpu::LayerFacts facts = layer_facts(cell, dtype, steps, batch, units, projected, varied);
  const gpu::DeviceFacts& on = device_facts(device);
  facts.tensor_floats = facts.single && tensor_floats_allowed();
  return gpu::kernel_name(choose_kernel(on, facts, backward).kernel);
}

std::string kernel_name_for(int architecture, int multiprocessors, int64_t shared_bytes,
                            const std::string& cell, const std::string& dtype, int64_t steps,
                            int64_t batch, int64_t units, bool projected, bool backward,
                            bool varied) {
  const gpu::LayerFacts facts = layer_facts(cell, dtype, steps, batch, units, projected, varied);
  const gpu::DeviceFacts device{architecture, multiprocessors, shared_bytes};
  return gpu::kernel_name(choose_kernel(device, facts, backward).kernel);
}

}  // namespace

PYBIND11_MODULE(_C_cuda, module) {
  module.doc() = "The CUDA engine of rnncells.";
  module.attr("runtime") =
      std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
  module.def("kernel_name", &kernel_name, py::arg("device"), py::arg("cell"), py::arg("dtype"),
             py::arg("steps"), py::arg("batch"), py::arg("units"), py::arg("projected"),
             py::arg("backward"), py::arg("varied") = false,
             "The kernel that serves such a layer on a device.");
  module.def("kernel_name_for", &kernel_name_for, py::arg("architecture"),
             py::arg("multiprocessors"), py::arg("shared_bytes"), py::arg("cell"), py::arg("dtype"),
             py::arg("steps"), py::arg("batch"), py::arg("units"), py::arg("projected"),
             py::arg("backward"), py::arg("varied") = false,
             "The same on a device that need not be here, without TF32.");
  module.def("force_kernel", &force_kernel, py::arg("name"),
             "Serves every layer by this kernel from now on; '' by what suits.");
}
