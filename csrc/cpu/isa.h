// Which instruction set the CPU engine runs with.
#pragma once

#include <string>
#include <vector>

#include "cpu/engine.h"

namespace rnncells {

// Compiled into this build, narrowest first, and those of them that this processor has.
std::vector<std::string> compiled_isas();
std::vector<std::string> supported_isas();

// In use: the widest that the processor has, unless the environment (RNNCELLS_ISA) or set_isa says
// otherwise.
std::string current_isa();

// Throws std::invalid_argument with a message for a name that is unknown or that the processor
// lacks.
void set_isa(const std::string& name);

// Takes the choice from the environment variable; called once, when the module is loaded.
void choose_isa_from_environment();

CellTable cpu_engine();

// Multiply-adds below which a call stays on one thread. Results do not depend on it.
int64_t thread_threshold();
void set_thread_threshold(int64_t multiply_adds);

}  // namespace rnncells
