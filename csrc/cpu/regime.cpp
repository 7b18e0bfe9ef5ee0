#include "cpu/regime.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace rnncells {
namespace {

enum class Forced { none, units, batch };
std::atomic<Forced> forced{Forced::none};

int64_t whole_groups(int64_t n) { return (n + lane_group - 1) / lane_group * lane_group; }

// How much of the lanes n values fill.
double filled(int64_t n) { return static_cast<double>(n) / static_cast<double>(whole_groups(n)); }

bool better_over_the_batch(const CellFacts& cell, const Sizes& sizes, bool keeps) {
  // Lanes over units need packed weights, which a few steps of a few rows do not pay for; a
  // backward pass needs as much of either.
  constexpr int64_t few_rows = 64, least_batch = 4;
  if (!keeps && sizes.batch >= least_batch && sizes.steps * whole_groups(sizes.batch) <= few_rows) {
    return true;
  }
  // A cell with one gate has too little to do for what it costs to turn rows into lanes.
  constexpr double worth_turning = 1.15, well_filled = 0.85;
  return cell.gates > 1 && filled(sizes.batch) >= well_filled &&
         filled(sizes.batch) >= worth_turning * filled(sizes.units);
}

}  // namespace

Regime choose_regime(const CellFacts& cell, const Sizes& sizes, bool ragged, bool projected,
                     bool keeps) {
  if (ragged || projected || cell.phases > 1 || forced == Forced::units) return Regime::units;
  if (forced == Forced::batch || better_over_the_batch(cell, sizes, keeps)) return Regime::batch;
  return Regime::units;
}

void force_regime(const std::string& name) {
  if (name == "auto") {
    forced = Forced::none;
  } else if (name == "units") {
    forced = Forced::units;
  } else if (name == "batch") {
    forced = Forced::batch;
  } else {
    throw std::invalid_argument("rnncells: unknown regime '" + name +
                                "'; known: auto, units, batch");
  }
}

void force_regime_from_environment() {
  const char* name = std::getenv("RNNCELLS_REGIME");
  if (name != nullptr && *name != '\0') force_regime(name);
}

const char* name_of(Regime regime) { return regime == Regime::batch ? "batch" : "units"; }

}  // namespace rnncells
