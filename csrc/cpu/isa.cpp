#include "cpu/isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace rnncells {
namespace {

struct Isa {
  const char* name;
  bool supported;
  CellTable (*engine)();
};

const std::vector<Isa>& isas() {
  static const std::vector<Isa> all = {
      {"baseline", true, baseline::engine},
#if defined(__x86_64__)
      {"avx2",
       __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c"),
       avx2::engine},
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma"),
       avx512::engine},
#endif
  };
  return all;
}

size_t widest() {
  size_t best = 0;
  for (size_t i = 0; i < isas().size(); ++i) {
    if (isas()[i].supported) best = i;
  }
  return best;
}

std::atomic<size_t>& current() {
  static std::atomic<size_t> index{widest()};
  return index;
}

std::atomic<int64_t> least_threaded_work{200000};  // some tens of microseconds on one core

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

std::vector<std::string> compiled_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : isas()) names.push_back(isa.name);
  return names;
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : isas()) {
    if (isa.supported) names.push_back(isa.name);
  }
  return names;
}

std::string current_isa() { return isas()[current()].name; }

void set_isa(const std::string& name) {
  for (size_t i = 0; i < isas().size(); ++i) {
    if (name != isas()[i].name) continue;
    if (!isas()[i].supported) {
      throw std::invalid_argument("rnncells: this processor lacks the instruction set '" + name +
                                  "'; it has: " + joined(supported_isas()));
    }
    current() = i;
    return;
  }
  throw std::invalid_argument("rnncells: unknown instruction set '" + name +
                              "'; this build has: " + joined(compiled_isas()));
}

void choose_isa_from_environment() {
  const char* name = std::getenv("RNNCELLS_ISA");
  if (name != nullptr && *name != '\0') set_isa(name);
}

CellTable cpu_engine() { return isas()[current()].engine(); }

int64_t thread_threshold() { return least_threaded_work; }

void set_thread_threshold(int64_t multiply_adds) {
  if (multiply_adds < 0) throw std::invalid_argument("rnncells: the threshold is not negative");
  least_threaded_work = multiply_adds;
}

}  // namespace rnncells
