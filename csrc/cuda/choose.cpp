#include "cuda/choose.h"

#include <cstring>
#include <initializer_list>

namespace rnncells::gpu {
namespace {

constexpr const char* names[] = {"resident", "cluster", "grid", "step"};

// Loading the weights takes about as long as so many steps by a library.
constexpr int64_t fewest_steps = 4;
// Rounds of blocks, one after another, beyond which a library's products over all rows are quicker.
constexpr int64_t most_rounds = 8;
constexpr int64_t most_count = INT32_MAX;

struct Search {
  const DeviceFacts& device;
  PersistentProblem problem;

  // The plan with at most so many rows for a group, and as many as fit.
  bool with_rows(Exchange exchange, int ranks, int64_t rows, PersistentPlan& plan) const {
    for (rows = smaller(rows, most_threads); rows > 0; --rows) {
      if (make_plan(problem, exchange, ranks, static_cast<int>(rows), device.shared_bytes, plan)) {
        return true;
      }
    }
    return false;
  }
  bool in_registers(const PersistentPlan& plan) const {
    return weight_bytes(plan.product, problem.operand) == 0;
  }
  // How often the device is filled with the plan's blocks.
  int64_t rounds(const PersistentPlan& plan) const {
    const int64_t at_once = larger(1, device.multiprocessors / plan.ranks);
    return ceil_divide(plan.groups, at_once);
  }

  bool resident(PersistentPlan& plan) const {
    return with_rows(Exchange::block, 1, ceil_divide(problem.batch, device.multiprocessors), plan);
  }

  // The fewest blocks that hold all weights in registers, or else the most: less to read from
  // shared memory in every step.
  bool cluster(PersistentPlan& plan) const {
    const int most = device.architecture == 90 || device.architecture == 100 ? 16 : 8;
    bool found = false;
    for (int ranks = 2; ranks <= most && ranks <= problem.units; ranks *= 2) {
      PersistentPlan next;
      // Multiprocessors come in groups of unequal size, which large clusters do not fill.
      const int64_t whole = device.multiprocessors / ranks;
      const int64_t at_once = larger(1, ranks > 4 ? whole * 3 / 4 : whole);
      if (!with_rows(Exchange::cluster, ranks, ceil_divide(problem.batch, at_once), next)) continue;
      plan = next;
      found = true;
      if (in_registers(plan)) break;
    }
    return found;
  }

  // As for the cluster, but all groups must fit the device at once.
  bool grid(PersistentPlan& plan) const {
    bool found = false;
    for (int64_t units = problem.units; units > 0; units = units > 1 ? units / 2 : 0) {
      const int64_t ranks = ceil_divide(problem.units, units);
      if (ranks > device.multiprocessors) break;
      PersistentPlan next;
      const int64_t at_once = device.multiprocessors / ranks;
      const int64_t rows = ceil_divide(problem.batch, at_once);
      if (rows > most_threads || !make_plan(problem, Exchange::grid, static_cast<int>(ranks),
                                            static_cast<int>(rows), device.shared_bytes, next)) {
        continue;
      }
      plan = next;
      found = true;
      if (in_registers(plan)) return true;
    }
    // All multiprocessors, where halving the units has left some idle.
    PersistentPlan next;
    const int64_t ranks = smaller(device.multiprocessors, problem.units);
    if (problem.batch <= most_threads &&
        make_plan(problem, Exchange::grid, static_cast<int>(ranks), static_cast<int>(problem.batch),
                  device.shared_bytes, next)) {
      plan = next;
      found = true;
    }
    return found;
  }

  bool has_clusters() const { return device.architecture >= 90; }
  bool find(Kernel kernel, PersistentPlan& plan) const {
    if (kernel == Kernel::resident) return resident(plan);
    if (kernel == Kernel::cluster) return has_clusters() && cluster(plan);
    return grid(plan);
  }
  // Why there is none.
  const char* unfit(Kernel kernel) const {
    if (kernel == Kernel::cluster && !has_clusters()) {
      return "clusters need compute capability 9.0, of the device and of what was compiled";
    }
    return "the weights, or a batch of this size, do not fit the device that way";
  }
};

// Why a layer has no persistent kernel, or null.
const char* unserved(const DeviceFacts& device, const LayerFacts& layer) {
  const CellTraits& cell = cell_traits(layer.cell);
  if (cell.per_unit_recurrence) return "the cell has no recurrent product";
  if (layer.varied || cell.open) return "the layer has a variant";
  if (!is_plain(layer.cell)) return "the cell is served by steps alone";
  if (cell.phases > 1) return "the cell has two products a step";
  if (layer.projected) return "the layer has a projection";
  if (!layer.single && !layer.sixteen_bits) return "float64 is served by steps alone";
  if (device.architecture < 80) return "the device is older than compute capability 8.0";
  if (layer.steps > most_count / larger(1, layer.batch)) return "there are too many rows";
  return nullptr;
}

}  // namespace

const char* kernel_name(Kernel kernel) { return names[static_cast<int>(kernel)]; }

bool kernel_of(const char* name, Kernel& kernel) {
  for (int i = 0; i < 4; ++i) {
    if (std::strcmp(name, names[i]) != 0) continue;
    kernel = static_cast<Kernel>(i);
    return true;
  }
  return false;
}

Choice choose(const DeviceFacts& device, const LayerFacts& layer, bool backward,
              const Kernel* forced) {
  const CellTraits& cell = cell_traits(layer.cell);
  Choice choice{};
  choice.kernel = Kernel::step;
  choice.operand = layer.sixteen_bits    ? Operand::sixteen_bits
                   : layer.tensor_floats ? Operand::tensor_floats
                                         : Operand::singles;
  const char* reason = unserved(device, layer);
  const Search search{
      device,
      {choice.operand, cell.recurrent_shares, cell.shares, layer.units, layer.batch, backward}};
  if (forced != nullptr) {
    if (*forced == Kernel::step) return choice;
    if (reason == nullptr && search.find(*forced, choice.plan)) {
      choice.kernel = *forced;
      return choice;
    }
    choice.refused = reason != nullptr ? reason : search.unfit(*forced);
  }
  if (reason != nullptr || layer.steps < fewest_steps || layer.batch == 0) return choice;
  for (const Kernel kernel : {Kernel::resident, Kernel::cluster, Kernel::grid}) {
    if (!search.find(kernel, choice.plan)) continue;
    if (kernel != Kernel::grid && search.rounds(choice.plan) > most_rounds) continue;
    choice.kernel = kernel;
    return choice;
  }
  choice.plan = {};
  return choice;
}

}  // namespace rnncells::gpu
