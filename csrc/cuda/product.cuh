// The product of every time step: sums[slice][row][column] = operand[row][slice's depth] x weights.
// plan.h has the split.
#pragma once

#include "cuda/weights.cuh"

namespace rnncells::gpu {

// With tiles: a warp has 32 columns, as two tiles of 16, by a slice of the depth, and multiplies
// eight rows at once. A step is two tiles deep, and within it the depth is permuted, the same way
// in both factors, so that what a lane needs of the operand lies side by side: lane 4 g + q reads
// the q-th quarter of the step's 64 bytes of row g.
template <class E>
class Product {
  static constexpr ProductFacts facts = product_facts(operand_of<E>());
  static constexpr int each = 4 / sizeof(E);  // elements of a word

 public:
  RNNCELLS_DEVICE Product(const ProductPlan& plan, SharedMemory& memory,
                          Global<const uint32_t> packed, int rank)
      : plan_(plan),
        weights_(plan, memory, packed, rank),
        slice_(thread_index() / warp_lanes / plan.column_groups),
        column_(thread_index() / warp_lanes % plan.column_groups * facts.step_columns +
                lane() / 4) {}

  // operand: [rows, operand_stride] from `first` on.
  RNNCELLS_DEVICE void run(const Shared<E>& operand, int first, int rows,
                           const Shared<float>& sums) const {
    if (!weights_.multiplies()) return;
    for (int row = 0; row < rows; row += facts.row_tile) {
      float total[2][4] = {};
      const bool has_row = row + lane() / 4 < rows;
      const int begin = first + (row + lane() / 4) * plan_.operand_stride +
                        slice_ * plan_.slice_steps * facts.step_depth + lane() % 4 * 4 * each;
      RNNCELLS_UNROLL
      for (int step = 0; step < facts.kept_steps; ++step) {
        if (step < plan_.slice_steps) {
          const Words words = words_at(operand, begin + step * facts.step_depth, has_row);
          const Words(&weights)[4] = weights_.kept(step);
          multiply(total, weights[0], weights[1], words.values[0], words.values[1]);
          multiply(total, weights[2], weights[3], words.values[2], words.values[3]);
        }
      }
      RNNCELLS_ROLLED
      for (int step = facts.kept_steps; step < plan_.slice_steps; ++step) {
        const Words words = words_at(operand, begin + step * facts.step_depth, has_row);
        multiply(total, weights_.more(step, 0), weights_.more(step, 1), words.values[0],
                 words.values[1]);
        multiply(total, weights_.more(step, 2), weights_.more(step, 3), words.values[2],
                 words.values[3]);
      }
      store(total, row, rows, sums);
    }
  }

 private:
  RNNCELLS_DEVICE static int lane() { return thread_index() % warp_lanes; }

  // Half a step.
  RNNCELLS_DEVICE static void multiply(float (&total)[2][4], const Words& left, const Words& right,
                                       uint32_t first, uint32_t second) {
    const uint32_t operand[2] = {first, second};
    multiply_tile(total[0], left.values, operand, E());
    multiply_tile(total[1], right.values, operand, E());
  }

  // Zeros for rows beyond the last.
  RNNCELLS_DEVICE static Words words_at(const Shared<E>& operand, int i, bool has_row) {
    Words words = {};
    if (has_row) {
      const Pack<E, 4 * each> pack = read_pack<4 * each>(operand, i);
      RNNCELLS_UNROLL
      for (int w = 0; w < 4; ++w) words.values[w] = word_of(pack.values + w * each);
    }
    return words;
  }

  RNNCELLS_DEVICE void store(const float (&total)[2][4], int row, int rows,
                             const Shared<float>& sums) const {
    RNNCELLS_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int column = column_ + i / 4 * 16 + i % 4 / 2 * 8;
      const int r = row + lane() % 4 * 2 + i % 2;
      if (r < rows && column < plan_.columns) {
        write(sums, (slice_ * rows + r) * plan_.sums_stride + column, total[i / 4][i % 4]);
      }
    }
  }

  const ProductPlan& plan_;
  const KeptWeights<E> weights_;
  const int slice_, column_;
};

// One by one: a thread has four columns by a slice of the depth.
template <>
class Product<float> {
  static constexpr ProductFacts facts = product_facts(Operand::singles);
  using Four = Pack<float, 4>;

 public:
  RNNCELLS_DEVICE Product(const ProductPlan& plan, SharedMemory& memory,
                          Global<const uint32_t> packed, int rank)
      : plan_(plan),
        weights_(plan, memory, packed, rank),
        slice_(thread_index() / plan.column_groups),
        column_(thread_index() % plan.column_groups * 4) {}

  RNNCELLS_DEVICE void run(const Shared<float>& operand, int first, int rows,
                           const Shared<float>& sums) const {
    if (!weights_.multiplies()) return;
    int row = 0;
    for (; row + 2 <= rows; row += 2) run_rows<2>(operand, first, row, rows, sums);
    if (row < rows) run_rows<1>(operand, first, row, rows, sums);
  }

 private:
  template <int Rows>
  RNNCELLS_DEVICE void run_rows(const Shared<float>& operand, int first, int row, int rows,
                                const Shared<float>& sums) const {
    Four total[Rows] = {};
    const int begin =
        first + row * plan_.operand_stride + slice_ * plan_.slice_steps * facts.step_depth;
    RNNCELLS_UNROLL
    for (int step = 0; step < facts.kept_steps; ++step) {
      if (step < plan_.slice_steps) {
        RNNCELLS_UNROLL
        for (int r = 0; r < Rows; ++r) {
          const Four h = read_pack<4>(operand, begin + r * plan_.operand_stride + step * 4);
          RNNCELLS_UNROLL
          for (int k = 0; k < 4; ++k) add(total[r], h.values[k], weights_.kept(step)[k]);
        }
      }
    }
    for (int step = facts.kept_steps; step < plan_.slice_steps; ++step) {
      Words weights[4];
      RNNCELLS_UNROLL
      for (int k = 0; k < 4; ++k) weights[k] = weights_.more(step, k);
      RNNCELLS_UNROLL
      for (int r = 0; r < Rows; ++r) {
        const Four h = read_pack<4>(operand, begin + r * plan_.operand_stride + step * 4);
        RNNCELLS_UNROLL
        for (int k = 0; k < 4; ++k) add(total[r], h.values[k], weights[k]);
      }
    }
    RNNCELLS_UNROLL
    for (int r = 0; r < Rows; ++r) {
      write_pack(sums, (slice_ * rows + row + r) * plan_.sums_stride + column_, total[r]);
    }
  }

  RNNCELLS_DEVICE static void add(Four& total, float h, const Words& weights) {
    RNNCELLS_UNROLL
    for (int c = 0; c < 4; ++c) {
      float weight;
      memcpy(&weight, &weights.values[c], sizeof weight);
      total.values[c] = fused_multiply_add(h, weight, total.values[c]);
    }
  }

  const ProductPlan& plan_;
  const KeptWeights<float> weights_;
  const int slice_, column_;
};

}  // namespace rnncells::gpu
