// The product of every time step: sums[slice][row][column] = operand[row][slice's depth] x weights,
// with the weights in registers, and in shared memory where those are full. plan.h has the split.
#pragma once

#include "cuda/plan.h"
#include "cuda/values.cuh"

namespace rnncells::gpu {

template <class E>
constexpr Operand operand_of() {
  return sizeof(E) == 2 ? Operand::sixteen_bits : Operand::tensor_floats;
}
template <>
constexpr Operand operand_of<float>() {
  return Operand::singles;
}

// With tiles: a warp has 32 columns, as two tiles of 16, by a slice of the depth, and multiplies
// eight rows at once. Within a tile the depth is permuted, the same way in both factors, so that
// what a lane needs of the operand lies side by side: lane 4 g + q reads the q-th quarter of the 32
// bytes of row g.
template <class E>
class Product {
  static constexpr ProductFacts facts = product_facts(operand_of<E>());
  static constexpr int each = 4 / sizeof(E);  // elements of a word

 public:
  // weight(column, k) is a float, zero outside of the matrix.
  template <class Weight>
  RNNCELLS_DEVICE Product(const ProductPlan& plan, SharedMemory& memory, const Weight& weight)
      : plan_(plan), warp_(thread_index() / warp_lanes), lane_(thread_index() % warp_lanes) {
    const int warps = plan.column_groups * plan.slices;
    const int left = plan.slice_steps - facts.kept_steps;
    more_ = memory.take<uint32_t>(left > 0 ? left * warps * 2 * warp_lanes * 4 : 0);
    if (warp_ >= warps) return;
    slice_ = warp_ / plan.column_groups;
    column_ = warp_ % plan.column_groups * facts.step_columns;
    RNNCELLS_UNROLL
    for (int step = 0; step < facts.kept_steps; ++step) {
      if (step < plan.slice_steps) {
        fetch(step, 0, weight, kept_[step][0]);
        fetch(step, 1, weight, kept_[step][1]);
      }
    }
    for (int step = facts.kept_steps; step < plan.slice_steps; ++step) {
      for (int m = 0; m < 2; ++m) {
        Pack<uint32_t, 4> tile;
        fetch(step, m, weight, tile.values);
        write_pack(more_, place(step, m), tile);
      }
    }
  }

  // operand: [rows in eights, operand_stride] from `first` on.
  RNNCELLS_DEVICE void run(const Shared<E>& operand, int first, int rows,
                           const Shared<float>& sums) const {
    if (warp_ >= plan_.column_groups * plan_.slices) return;
    for (int row = 0; row < rows; row += facts.row_tile) {
      float tile[2][4] = {};
      const int begin = first + (row + lane_ / 4) * plan_.operand_stride +
                        slice_ * plan_.slice_steps * facts.step_depth + lane_ % 4 * 2 * each;
      RNNCELLS_UNROLL
      for (int step = 0; step < facts.kept_steps; ++step) {
        if (step < plan_.slice_steps) {
          uint32_t right[2];
          words_at(operand, begin + step * facts.step_depth, right);
          multiply_tile(tile[0], kept_[step][0], right, E());
          multiply_tile(tile[1], kept_[step][1], right, E());
        }
      }
      for (int step = facts.kept_steps; step < plan_.slice_steps; ++step) {
        uint32_t right[2];
        words_at(operand, begin + step * facts.step_depth, right);
        const Pack<uint32_t, 4> a = read_pack<4>(more_, place(step, 0));
        const Pack<uint32_t, 4> b = read_pack<4>(more_, place(step, 1));
        multiply_tile(tile[0], a.values, right, E());
        multiply_tile(tile[1], b.values, right, E());
      }
      store(tile, row, rows, sums);
    }
  }

 private:
  RNNCELLS_DEVICE int place(int step, int m) const {
    const int warps = plan_.column_groups * plan_.slices;
    return ((((step - facts.kept_steps) * warps + warp_) * 2 + m) * warp_lanes + lane_) * 4;
  }

  RNNCELLS_DEVICE static uint32_t word_of(TensorFloat a) { return a.bits; }
  template <class H>
  RNNCELLS_DEVICE static uint32_t word_of(H low, H high) {
    return low.bits | static_cast<uint32_t>(high.bits) << 16;
  }

  RNNCELLS_DEVICE static void words_at(const Shared<E>& operand, int i, uint32_t (&words)[2]) {
    const Pack<E, 2 * each> pack = read_pack<2 * each>(operand, i);
    if constexpr (each == 1) {
      words[0] = pack.values[0].bits;
      words[1] = pack.values[1].bits;
    } else {
      words[0] = word_of(pack.values[0], pack.values[1]);
      words[1] = word_of(pack.values[2], pack.values[3]);
    }
  }

  template <class Weight>
  RNNCELLS_DEVICE void fetch(int step, int m, const Weight& weight, uint32_t (&words)[4]) const {
    RNNCELLS_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int column = column_ + m * 16 + lane_ / 4 + i % 2 * 8;
      const int k =
          (slice_ * plan_.slice_steps + step) * facts.step_depth + (lane_ % 4 * 2 + i / 2) * each;
      if constexpr (each == 1) {
        words[i] = word_of(stored<E>(weight(column, k)));
      } else {
        words[i] = word_of(stored<E>(weight(column, k)), stored<E>(weight(column, k + 1)));
      }
    }
  }

  RNNCELLS_DEVICE void store(const float (&tile)[2][4], int row, int rows,
                             const Shared<float>& sums) const {
    RNNCELLS_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int column = column_ + i / 4 * 16 + lane_ / 4 + i % 4 / 2 * 8;
      const int r = row + lane_ % 4 * 2 + i % 2;
      if (r < rows && column < plan_.columns) {
        write(sums, (slice_ * rows + r) * plan_.sums_stride + column, tile[i / 4][i % 4]);
      }
    }
  }

  const ProductPlan& plan_;
  const int warp_, lane_;
  int slice_ = 0, column_ = 0;
  uint32_t kept_[facts.kept_steps][2][4];
  Shared<uint32_t> more_;
};

// One by one: a thread has four columns by a slice of the depth.
template <>
class Product<float> {
  static constexpr ProductFacts facts = product_facts(Operand::singles);
  using Four = Pack<float, 4>;

 public:
  template <class Weight>
  RNNCELLS_DEVICE Product(const ProductPlan& plan, SharedMemory& memory, const Weight& weight)
      : plan_(plan), threads_(plan.column_groups * plan.slices) {
    const int left = plan.slice_steps - facts.kept_steps;
    more_ = memory.take<float>(left > 0 ? left * threads_ * 16 : 0);
    if (thread_index() >= threads_) return;
    slice_ = thread_index() / plan.column_groups;
    column_ = thread_index() % plan.column_groups * 4;
    RNNCELLS_UNROLL
    for (int step = 0; step < facts.kept_steps; ++step) {
      RNNCELLS_UNROLL
      for (int k = 0; k < 4; ++k) kept_[step][k] = fetch(step, k, weight);
    }
    for (int step = facts.kept_steps; step < plan.slice_steps; ++step) {
      for (int k = 0; k < 4; ++k) write_pack(more_, place(step, k), fetch(step, k, weight));
    }
  }

  RNNCELLS_DEVICE void run(const Shared<float>& operand, int first, int rows,
                           const Shared<float>& sums) const {
    if (thread_index() >= threads_) return;
    int row = 0;
    for (; row + 2 <= rows; row += 2) run_rows<2>(operand, first, row, rows, sums);
    if (row < rows) run_rows<1>(operand, first, row, rows, sums);
  }

 private:
  RNNCELLS_DEVICE int place(int step, int k) const {
    return (((step - facts.kept_steps) * 4 + k) * threads_ + thread_index()) * 4;
  }

  template <class Weight>
  RNNCELLS_DEVICE Four fetch(int step, int k, const Weight& weight) const {
    Four four;
    RNNCELLS_UNROLL
    for (int c = 0; c < 4; ++c) {
      four.values[c] =
          step < plan_.slice_steps
              ? weight(column_ + c, (slice_ * plan_.slice_steps + step) * facts.step_depth + k)
              : 0.0f;
    }
    return four;
  }

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
          for (int k = 0; k < 4; ++k) add(total[r], h.values[k], kept_[step][k]);
        }
      }
    }
    for (int step = facts.kept_steps; step < plan_.slice_steps; ++step) {
      Four weights[4];
      RNNCELLS_UNROLL
      for (int k = 0; k < 4; ++k) weights[k] = read_pack<4>(more_, place(step, k));
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

  RNNCELLS_DEVICE static void add(Four& total, float h, const Four& weights) {
    RNNCELLS_UNROLL
    for (int c = 0; c < 4; ++c) {
      total.values[c] = fused_multiply_add(h, weights.values[c], total.values[c]);
    }
  }

  const ProductPlan& plan_;
  const int threads_;
  int slice_ = 0, column_ = 0;
  Four kept_[facts.kept_steps][4];
  Shared<float> more_;
};

}  // namespace rnncells::gpu
