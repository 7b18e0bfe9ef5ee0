#include "cpu/regime.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace rnncells {
namespace {

std::atomic<int> forced{-1};  // a regime, or none

int64_t whole_groups(int64_t n) { return (n + lane_group - 1) / lane_group * lane_group; }

// How much of the lanes n values fill.
double filled(int64_t n) { return static_cast<double>(n) / static_cast<double>(whole_groups(n)); }

// Packed weights cost several times as much as reading them once.
bool too_few_rows_to_pack(const Sizes& sizes) {
  constexpr int64_t few_rows = 64, least_batch = 4;
  return sizes.batch >= least_batch && sizes.steps * whole_groups(sizes.batch) <= few_rows;
}
bool reads_weights_in_place(const Sizes& sizes) {
  return sizes.steps * sizes.batch <= streamed_rows;
}

bool better_over_the_batch(const CellFacts& cell, const Sizes& sizes, const CallFacts& call) {
  // A cell with one gate has too little to do, going back, for what it costs to turn rows into
  // lanes. Without a reserve each pass may go its own way.
  constexpr double worth_turning = 1.15, well_filled = 0.85;
  const bool enough_to_do = cell.gates > 1 || (cell.reserve_slots == 0 && !call.backward);
  return enough_to_do && filled(sizes.batch) >= well_filled &&
         filled(sizes.batch) >= worth_turning * filled(sizes.units);
}

// What suits a call that can have any regime.
Regime wanted(const CellFacts& cell, const Sizes& sizes, const CallFacts& call) {
  if (forced >= 0) return static_cast<Regime>(forced.load());
  if (reads_weights_in_place(sizes)) return Regime::depth;
  if (!call.keeps && !call.packed && too_few_rows_to_pack(sizes)) return Regime::batch;
  return better_over_the_batch(cell, sizes, call) ? Regime::batch : Regime::units;
}

}  // namespace

Regime choose_regime(const CellFacts& cell, const Sizes& sizes, const CallFacts& call) {
  if (call.ragged || call.projected || call.varied || cell.units_only) return Regime::units;
  const Regime regime = wanted(cell, sizes, call);
  if (regime == Regime::depth && !call.unit_strides) return Regime::units;
  if (regime == Regime::batch && call.keeps && (call.rowwise || call.recompute)) {
    return Regime::units;
  }
  return regime;
}

void force_regime(const std::string& name) {
  if (name == "auto") {
    forced = -1;
    return;
  }
  for (const Regime regime : {Regime::units, Regime::batch, Regime::depth}) {
    if (name != name_of(regime)) continue;
    forced = static_cast<int>(regime);
    return;
  }
  throw std::invalid_argument("rnncells: unknown regime '" + name +
                              "'; known: auto, units, batch, depth");
}

void force_regime_from_environment() {
  const char* name = std::getenv("RNNCELLS_REGIME");
  if (name != nullptr && *name != '\0') force_regime(name);
}

const char* name_of(Regime regime) {
  return regime == Regime::units ? "units" : regime == Regime::batch ? "batch" : "depth";
}

}  // namespace rnncells
