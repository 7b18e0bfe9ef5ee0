// Streaming: a few rows of one layer, or of a cell, for inference, straight from Python's tensors
// to the engine. An operator takes longer to call than such a step takes to compute.
#pragma once

#include <Python.h>

namespace rnncells {

// Functions for the module, ended by a null entry.
extern PyMethodDef streaming_methods[];

}  // namespace rnncells
