#include "cuda/plan.h"

namespace rnncells::gpu {
namespace {

// So many columns and slices that all threads have work, but no slice less than a full set of
// registers.
bool split_product(const ProductFacts& facts, ProductPlan& product) {
  const int64_t steps = ceil_divide(product.depth, facts.step_depth);
  const int64_t parts = most_threads / facts.lanes;
  const int64_t groups = ceil_divide(product.columns, facts.step_columns);
  if (groups > parts) return false;
  const int64_t shortest = facts.lanes == 1 ? facts.kept_steps : facts.kept_steps / 2;
  const int64_t wanted = smaller(parts / groups, ceil_divide(steps, shortest));
  product.column_groups = static_cast<int>(groups);
  product.slice_steps = static_cast<int>(ceil_divide(steps, wanted));
  product.slices = static_cast<int>(ceil_divide(steps, product.slice_steps));
  const int64_t depth = int64_t{product.slices} * product.slice_steps * facts.step_depth;
  // Two rows of a tile's operand, read at once, in different banks.
  const int64_t line = 128 / facts.element_bytes, shift = 64 / facts.element_bytes;
  product.operand_stride =
      static_cast<int>(facts.lanes == 1 ? depth : round_up(depth - shift, line) + shift);
  // So that two rows of a tile's sums lie 8 banks apart.
  product.sums_stride = static_cast<int>(round_up(product.columns, 16) + 4);
  return true;
}

}  // namespace

bool make_plan(const PersistentProblem& problem, Exchange exchange, int ranks, int rows,
               int64_t shared_limit, PersistentPlan& plan) {
  const ProductFacts facts = product_facts(problem.operand);
  if (problem.units > 1 << 20 || rows < 1 || ranks < 1 || ranks > problem.units) return false;
  plan = {};
  plan.exchange = exchange;
  plan.ranks = ranks;
  plan.rows = rows;
  plan.units = static_cast<int>(ceil_divide(problem.units, ranks));
  plan.groups = ceil_divide(problem.batch, rows);
  ProductPlan& product = plan.product;
  product.columns = plan.units * (problem.backward ? 1 : problem.recurrent_shares);
  product.depth =
      static_cast<int>(problem.units) * (problem.backward ? problem.recurrent_shares : 1);
  if (!split_product(facts, product)) return false;
  plan.exchange_stride = static_cast<int>(round_up(product.depth, 16 / facts.element_bytes));
  const int64_t pairs = int64_t{rows} * plan.units;
  if (pairs > most_threads) return false;
  const int64_t multiplying = int64_t{product.column_groups} * product.slices * facts.lanes;
  plan.threads = static_cast<int>(round_up(larger(multiplying, pairs), 32));
  plan.shared_bytes = round_up(operand_elements(plan) * facts.element_bytes, 16) +
                      round_up(sums_elements(plan) * 4, 16) +
                      round_up(weight_bytes(product, problem.operand), 16) +
                      round_up(int64_t{problem.shares} * plan.units * 4, 16);
  return plan.shared_bytes <= shared_limit;
}

}  // namespace rnncells::gpu
