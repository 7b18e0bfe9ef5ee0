// The choice of a kernel: named cases, and that every plan covers its layer and fits its device.
// Usage: choose_check
#include <cstdio>
#include <cstring>
#include <initializer_list>

#include "cuda/choose.h"

namespace rnncells::gpu {
namespace {

int failures = 0, checks = 0;

const DeviceFacts h100 = {90, 132, 227 * 1024}, a100 = {80, 108, 163 * 1024},
                  rtx5090 = {120, 170, 99 * 1024}, v100 = {70, 80, 96 * 1024};

enum class Type { float32, tf32, float64, float16 };

LayerFacts layer(const char* cell, Type type, int64_t units, int64_t batch, int64_t steps = 100) {
  return {cell_place(cell),
          type == Type::float32 || type == Type::tf32,
          type == Type::float16,
          type == Type::tf32,
          steps,
          batch,
          units,
          false};
}

void expect(const char* what, const Choice& choice, Kernel kernel) {
  ++checks;
  if (choice.kernel == kernel) return;
  ++failures;
  std::printf("FAILED: %s: expected %s, got %s\n", what, kernel_name(kernel),
              kernel_name(choice.kernel));
}

void expect_cases() {
  const auto chosen = [](const DeviceFacts& device, const LayerFacts& facts, bool backward) {
    return choose(device, facts, backward);
  };
  for (const bool backward : {false, true}) {
    for (const char* cell : {"rnn_tanh", "rnn_relu", "lstm", "gru"}) {
      for (const Type type : {Type::float32, Type::tf32, Type::float16}) {
        for (const int64_t units : {1, 20, 64, 128}) {
          for (const int64_t batch : {1, 32, 256}) {
            expect("narrow on an H100", chosen(h100, layer(cell, type, units, batch), backward),
                   Kernel::resident);
          }
        }
      }
    }
    const LayerFacts wide = layer("lstm", Type::float16, 768, 16, 1024);
    // Backward the operand, four times as wide, leaves too little of a cluster's shared memory.
    expect("wide on an H100", chosen(h100, wide, backward),
           backward ? Kernel::grid : Kernel::cluster);
    expect("narrower", chosen(h100, layer("lstm", Type::float16, 384, 16), backward),
           Kernel::cluster);
    expect("wide on an A100", chosen(a100, wide, backward), Kernel::grid);
    expect("widest", chosen(h100, layer("lstm", Type::float32, 4096, 16), backward), Kernel::step);
    expect("float64", chosen(h100, layer("lstm", Type::float64, 32, 16), backward), Kernel::step);
    expect("two phases", chosen(h100, layer("mgu", Type::float32, 32, 16), backward), Kernel::step);
    expect("old", chosen(v100, layer("gru", Type::float16, 32, 16), backward), Kernel::step);
    expect("few steps", chosen(h100, layer("gru", Type::float32, 32, 16, 2), backward),
           Kernel::step);
    expect("empty", chosen(h100, layer("gru", Type::float32, 32, 0), backward), Kernel::step);
    expect("too many rows",
           chosen(h100, layer("gru", Type::float32, 1, 1 << 20, 1 << 20), backward), Kernel::step);
    LayerFacts projected = layer("lstm", Type::float32, 32, 16);
    projected.projected = true;
    expect("projection", chosen(h100, projected, backward), Kernel::step);
    LayerFacts varied = layer("lstm", Type::float32, 32, 16);
    varied.varied = true;
    expect("variant", chosen(h100, varied, backward), Kernel::step);
    expect("open cell", chosen(h100, layer("gru_open", Type::float32, 32, 16), backward),
           Kernel::step);
  }
}

void expect_forced() {
  const LayerFacts narrow = layer("lstm", Type::float32, 64, 8),
                   wide = layer("lstm", Type::float32, 1000, 8);
  for (const Kernel kernel : {Kernel::resident, Kernel::cluster, Kernel::grid, Kernel::step}) {
    const Choice choice = choose(h100, narrow, false, &kernel);
    expect("forced", choice, kernel);
    failures += choice.refused != nullptr;
    Kernel named;
    failures += !kernel_of(kernel_name(kernel), named) || named != kernel;
  }
  const Kernel resident = Kernel::resident, cluster = Kernel::cluster;
  const Choice refused = choose(h100, wide, false, &resident);
  failures += refused.kernel == resident || refused.refused == nullptr;
  const Choice old = choose(a100, narrow, false, &cluster);
  failures += old.kernel == cluster || old.refused == nullptr;
  Kernel named;
  failures += kernel_of("fastest", named);
  checks += 3;
}

// Nothing of the layer is left out, and nothing is larger than the device allows.
void expect_whole(const DeviceFacts& device, const LayerFacts& facts, bool backward,
                  Kernel forced) {
  const Choice choice = choose(device, facts, backward, &forced);
  if (choice.kernel != forced) return;
  const PersistentPlan& plan = choice.plan;
  const ProductPlan& product = plan.product;
  const ProductFacts step = product_facts(choice.operand);
  const CellTraits& cell = cell_traits(facts.cell);
  const int64_t depth = facts.units * (backward ? cell.recurrent_shares : 1);
  const int64_t parts = int64_t{product.column_groups} * product.slices * step.lanes;
  const bool whole =
      plan.groups * plan.rows >= facts.batch && (plan.groups - 1) * plan.rows < facts.batch &&
      int64_t{plan.ranks} * plan.units >= facts.units &&
      int64_t{product.column_groups} * step.step_columns >= product.columns &&
      int64_t{product.slices} * product.slice_steps * step.step_depth >= depth &&
      product.operand_stride >= product.slices * product.slice_steps * step.step_depth &&
      plan.exchange_stride <= product.operand_stride && product.sums_stride >= product.columns &&
      plan.threads >= parts && plan.threads >= plan.rows * plan.units;
  const bool fits = plan.threads <= most_threads && plan.shared_bytes <= device.shared_bytes &&
                    plan.ranks <= (forced == Kernel::cluster ? 16 : device.multiprocessors) &&
                    (forced != Kernel::grid || plan.groups * plan.ranks <= device.multiprocessors);
  ++checks;
  if (whole && fits) return;
  ++failures;
  std::printf("FAILED: %s H=%d B=%d backward=%d %s: whole %d, fits %d\n", cell.name,
              int(facts.units), int(facts.batch), backward, kernel_name(forced), whole, fits);
}

void expect_whole_plans() {
  for (const DeviceFacts& device : {h100, a100, rtx5090}) {
    for (const char* cell : {"rnn_tanh", "lstm", "gru"}) {
      for (const Type type : {Type::float32, Type::tf32, Type::float16}) {
        for (const int64_t units :
             {1, 2, 7, 20, 33, 64, 100, 128, 200, 256, 511, 768, 1024, 2048}) {
          for (const int64_t batch : {1, 3, 16, 131, 256, 1000}) {
            for (int which = 0; which < 6; ++which) {
              expect_whole(device, layer(cell, type, units, batch), which % 2,
                           static_cast<Kernel>(which / 2));
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace rnncells::gpu

int main() {
  using namespace rnncells::gpu;
  expect_cases();
  expect_forced();
  expect_whole_plans();
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures == 0 && checks > 1000 ? 0 : 1;
}
