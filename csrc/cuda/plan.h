// How a persistent kernel is split over blocks, threads and time, and what fits. Plain arithmetic:
// the host makes a plan, the kernels read it.
//
// A group of blocks, `ranks` of them, works on `rows` sequences; each block on `units` of their
// units. In every time step a block multiplies an operand [rows, depth], the hidden state or the
// gradients of its shares, by its columns of the recurrent weights, [depth, columns], which it
// keeps on the chip. The depth is split into slices, whose partial sums are added in their order.
//
// The weights of a step, four units of depth by four columns for a thread that multiplies one by
// one, two tiles by two for a warp with matrix tiles, are kept in registers, the first `kept_steps`
// of each slice, or else in shared memory.
#pragma once

#include <cstdint>

#include "cells/host_device.h"

namespace rnncells::gpu {

// Where the blocks of a group exchange their parts of the operand.
enum class Exchange { block, cluster, grid };

// What the products multiply.
enum class Operand { singles, tensor_floats, sixteen_bits };

constexpr int most_threads = 512;  // with 128 registers each

struct ProductPlan {
  int columns, depth;
  int column_groups, slices;  // one for each thread, or for each warp with tiles
  int slice_steps;
  int operand_stride;  // elements between two rows of the operand
  int sums_stride;     // floats between two rows of partial sums
};

struct PersistentPlan {
  Exchange exchange;
  int ranks, rows, units, threads;
  int64_t groups;
  ProductPlan product;
  int exchange_stride;   // elements between two rows of the operand in global memory (grid)
  int64_t shared_bytes;  // of a block
};

struct ProductFacts {
  int element_bytes;  // of the operand
  int step_depth, step_columns, kept_steps;
  int lanes;  // threads that multiply one step together
  int row_tile;
};

constexpr ProductFacts product_facts(Operand operand) {
  return operand == Operand::singles         ? ProductFacts{4, 4, 4, 4, 1, 1}
         : operand == Operand::tensor_floats ? ProductFacts{4, 16, 32, 4, 32, 8}
                                             : ProductFacts{2, 32, 32, 4, 32, 8};
}

constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_divide(a, b) * b; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

// What a cell, a layer and a direction are to a plan.
struct PersistentProblem {
  Operand operand;
  int recurrent_shares, shares;
  int64_t units, batch;
  bool backward;
};

// Elements of the operand's buffers in shared memory.
constexpr int64_t operand_elements(const PersistentPlan& plan) {
  return (plan.exchange == Exchange::cluster ? 2 : 1) * int64_t{plan.rows} *
         plan.product.operand_stride;
}
constexpr int64_t sums_elements(const PersistentPlan& plan) {
  return int64_t{plan.product.slices} * plan.rows * plan.product.sums_stride;
}
// Bytes of weights that find no place in registers.
constexpr int64_t weight_bytes(const ProductPlan& product, Operand operand) {
  const ProductFacts facts = product_facts(operand);
  const int64_t threads = int64_t{product.column_groups} * product.slices * facts.lanes;
  const int64_t left = larger(0, product.slice_steps - facts.kept_steps);
  return threads * left * 64;
}
// The workspace in global memory: the packed weights of all ranks; for a grid, also two buffers for
// the operand, and a counter for each group, in a line of its own.
constexpr int64_t packed_bytes(const ProductPlan& product, Operand operand, int ranks) {
  return int64_t{product.column_groups} * product.slices * product_facts(operand).lanes *
         product.slice_steps * ranks * 64;
}
constexpr int64_t counter_stride = 128;
constexpr int64_t counters_begin(const PersistentPlan& plan, Operand operand) {
  const int64_t packed = packed_bytes(plan.product, operand, plan.ranks);
  if (plan.exchange != Exchange::grid) return packed;
  return packed +
         2 * plan.groups * plan.rows * plan.exchange_stride * product_facts(operand).element_bytes;
}
constexpr int64_t workspace_bytes(const PersistentPlan& plan, Operand operand) {
  return counters_begin(plan, operand) +
         (plan.exchange == Exchange::grid ? plan.groups * counter_stride : 0);
}

// The plan for so many rows and ranks; false if a block cannot hold it.
bool make_plan(const PersistentProblem& problem, Exchange exchange, int ranks, int rows,
               int64_t shared_limit, PersistentPlan& plan);

}  // namespace rnncells::gpu
