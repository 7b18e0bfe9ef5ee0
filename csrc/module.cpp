// The Python module rnncells._C: facts about the build. Loading it registers the operators too.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/api/include/torch/version.h>

#include "cpu/isa.h"
#include "cpu/packed_bytes.h"
#include "cpu/regime.h"
#include "streaming.h"

#ifndef RNNCELLS_VERSION
#error "the build passes RNNCELLS_VERSION"
#endif
#define RNNCELLS_TEXT_OF(x) #x
#define RNNCELLS_TEXT(x) RNNCELLS_TEXT_OF(x)

namespace py = pybind11;

namespace {

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

py::dict build_info() {
  py::dict info;
  info["version"] = RNNCELLS_VERSION;
  info["torch"] = TORCH_VERSION;
  info["compiler"] = compiler();
  info["isas"] = rnncells::compiled_isas();
  info["isa"] = rnncells::current_isa();
  return info;
}

py::dict cells() {
  py::dict all;
  for (const rnncells::CellEngine& engine : rnncells::cpu_engine()) {
    py::dict facts;
    facts["gates"] = engine.facts.gates;
    facts["states"] = engine.facts.states;
    facts["phases"] = engine.facts.phases;
    facts["reserve"] = engine.facts.reserve_slots;
    facts["projects"] = engine.facts.projects;
    facts["unit_parameters"] = engine.facts.unit_parameters;
    facts["per_unit_recurrence"] = engine.facts.per_unit_recurrence;
    facts["units_only"] = engine.facts.units_only;
    facts["open"] = engine.facts.open;
    facts["middle"] = engine.facts.middle;
    all[engine.facts.name] = facts;
  }
  return all;
}

// Throws for a cell that is not there.
const rnncells::CellEngine& engine_of(const std::string& cell) {
  for (const rnncells::CellEngine& engine : rnncells::cpu_engine()) {
    if (cell == engine.facts.name) return engine;
  }
  throw std::invalid_argument("rnncells: unknown cell '" + cell + "'");
}

std::string regime(const std::string& cell, int64_t steps, int64_t batch, int64_t inputs,
                   int64_t units, bool training) {
  const rnncells::Sizes sizes{steps, batch, inputs, units, units};
  return rnncells::name_of(
      rnncells::choose_regime(engine_of(cell).facts, sizes, {false, false, training, false, true}));
}

int64_t packed_bytes(const std::string& cell, int64_t inputs, int64_t units, int64_t outputs,
                     bool projected, const std::string& dtype) {
  const rnncells::CellEngine& engine = engine_of(cell);
  const rnncells::Sizes sizes{1, 1, inputs, units, outputs};
  if (dtype == "float64") return rnncells::packed_bytes<double>(engine, sizes, projected);
  if (dtype == "float16")
    return rnncells::packed_bytes<rnncells::Float16>(engine, sizes, projected);
  if (dtype == "bfloat16") {
    return rnncells::packed_bytes<rnncells::BFloat16>(engine, sizes, projected);
  }
  return rnncells::packed_bytes<float>(engine, sizes, projected);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  // pybind11's own way in would cost as much as the call.
  if (PyModule_AddFunctions(module.ptr(), rnncells::streaming_methods) != 0) {
    throw py::error_already_set();
  }
  module.doc() = "The compiled part of rnncells.";
  try {
    rnncells::choose_isa_from_environment();
  } catch (const std::invalid_argument& error) {
    throw py::import_error(std::string(error.what()) + " (environment variable RNNCELLS_ISA)");
  }
  try {
    rnncells::force_regime_from_environment();
  } catch (const std::invalid_argument& error) {
    throw py::import_error(std::string(error.what()) + " (environment variable RNNCELLS_REGIME)");
  }
  module.def("build_info", &build_info,
             "Version, torch and compiler of the build, instruction sets compiled and in use.");
  module.def("cells", &cells,
             "Every cell by name: its gates, its states, its product phases, and the values per "
             "unit and time step that its reserve holds.");
  module.def("supported_isas", &rnncells::supported_isas,
             "The instruction sets of this build that this processor has, narrowest first.");
  module.def("get_isa", &rnncells::current_isa, "The instruction set in use.");
  module.def("thread_threshold", &rnncells::thread_threshold,
             "The multiply-adds below which a call stays on one thread.");
  module.def("set_thread_threshold", &rnncells::set_thread_threshold, py::arg("multiply_adds"),
             "Changes it; 0 uses torch's threads for the smallest call. No result depends on it.");
  module.def("set_isa", &rnncells::set_isa, py::arg("name"),
             "Uses another instruction set from now on; ValueError if it cannot be had.");
  module.def(
      "regime", &regime, py::arg("cell"), py::arg("steps"), py::arg("batch"), py::arg("inputs"),
      py::arg("units"), py::arg("training"),
      "What the lanes of a vector hold for a contiguous layer of these sizes, without lengths "
      "or a projection: 'units' of one sequence, sequences of the 'batch', or the 'depth' of a "
      "product.");
  module.def("packed_bytes", &packed_bytes, py::arg("cell"), py::arg("inputs"), py::arg("units"),
             py::arg("outputs"), py::arg("projected"), py::arg("dtype"),
             "How many bytes layer_pack makes of one direction's weights.");
  module.def(
      "force_regime", &rnncells::force_regime, py::arg("name"),
      "Uses 'units', 'batch' or 'depth' wherever it can be had, or again what suits ('auto'); "
      "ValueError for another name. Not between a forward pass and its backward pass.");
}
