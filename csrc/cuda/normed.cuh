// One time step with layer norm: a block for each sequence, whose threads add up the row of its
// products, always in the same order.
#pragma once

#include <cmath>

#include "cuda/step.cuh"

namespace rnncells::gpu {

constexpr int row_threads = 128, row_warps = row_threads / warp_lanes;

// Layer norm is for cells that know all shares after one product.
template <class Cell>
constexpr bool can_be_normed() {
  return Cell::row_statistics && (Cell::phases == 1 || Cell::middle);
}

// The sum of what each thread of the block brings.
template <class C>
RNNCELLS_DEVICE C block_sum(C value, const Shared<C>& space) {
  RNNCELLS_UNROLL
  for (int distance = warp_lanes / 2; distance > 0; distance /= 2) {
    value += shuffle_down(value, distance);
  }
  const int warp = thread_index() / warp_lanes;
  if (thread_index() % warp_lanes == 0) write(space, warp, value);
  block_barrier();
  C total = read(space, 0);
  for (int w = 1; w < row_warps; ++w) total += read(space, w);
  block_barrier();
  return total;
}

template <class C>
struct RowStatistics {
  C mean, scale;  // one over the standard deviation
  RNNCELLS_DEVICE C normal(C value) const { return (value - mean) * scale; }
};

// Of value(j), j from 0 to n.
template <class C, class At>
RNNCELLS_DEVICE RowStatistics<C> row_statistics(int64_t n, const At& value,
                                                const Shared<C>& space) {
  C sum = 0, squares = 0;
  for (int64_t j = thread_index(); j < n; j += row_threads) sum += value(j);
  const C mean = block_sum(sum, space) / static_cast<C>(n);
  for (int64_t j = thread_index(); j < n; j += row_threads) {
    const C centred = value(j) - mean;
    squares += centred * centred;
  }
  const double variance = static_cast<double>(block_sum(squares, space)) / static_cast<double>(n);
  return {mean, static_cast<C>(1 / sqrt(variance + norm_epsilon))};
}

// From the gradient of a normalised row to that of the row, value by value.
template <class C>
struct RowAdjoint {
  C mean = 0, slope = 0, scale = 0;
  RNNCELLS_DEVICE void add(C gradient, C normal) {
    mean += gradient;
    slope += gradient * normal;
  }
  RNNCELLS_DEVICE void finish(int64_t n, C row_scale, const Shared<C>& space) {
    mean = block_sum(mean, space) / static_cast<C>(n);
    slope = block_sum(slope, space) / static_cast<C>(n);
    scale = row_scale;
  }
  RNNCELLS_DEVICE C operator()(C gradient, C normal) const {
    return scale * (gradient - mean - normal * slope);
  }
};

// The two products of one sequence in one step, and the shares that their norms make.
template <class Cell, class T>
class NormedRow {
  using C = Compute<T>;
  using F = CellPhase<Cell, 0>;
  static constexpr int gates = Cell::gates;
  static_assert(F::recurrents == gates && F::inputs == gates, "one product has all gates");

 public:
  static constexpr bool has_input(int k) { return k < F::inputs; }
  static constexpr bool has_recurrent(int k) { return k >= F::recurrent_first; }
  // Whether the two products of a gate meet in one share.
  static constexpr bool sums(int k) { return has_input(k) && has_recurrent(k); }

  RNNCELLS_DEVICE NormedRow(int64_t units, const RowNorms<T>& norms, const Biases<T>& biases,
                            const C* input, const C* recurrent)
      : units_(units), norms_(norms), biases_(biases), input_(input), recurrent_(recurrent) {}

  RNNCELLS_DEVICE bool apart() const { return norms_.norm == Norm::gates; }

  RNNCELLS_DEVICE void find_statistics(const Shared<C>& space) {
    if (apart()) {
      const auto of_input = [&](int64_t j) { return read(input_, j); };
      const auto of_recurrent = [&](int64_t j) { return read(recurrent_, j); };
      statistics_[0] = row_statistics<C>(gates * units_, of_input, space);
      second_ = row_statistics<C>(gates * units_, of_recurrent, space);
      return;
    }
    RNNCELLS_UNROLL
    for (int k = 0; k < F::shares; ++k) {
      if (!sums(k)) continue;
      const auto sum = [&](int64_t j) { return whole(F::gate(k) * units_ + j); };
      statistics_[k] = row_statistics<C>(units_, sum, space);
    }
  }

  // Normalised: W_ih x and W_hh h, where they are apart; or the sum of share k.
  RNNCELLS_DEVICE C input_normal(int64_t j) const { return statistics_[0].normal(read(input_, j)); }
  RNNCELLS_DEVICE C recurrent_normal(int64_t j) const {
    return second_.normal(read(recurrent_, j));
  }
  RNNCELLS_DEVICE C sum_normal(int k, int64_t j) const { return statistics_[k].normal(whole(j)); }
  RNNCELLS_DEVICE C input_scale() const { return statistics_[0].scale; }
  RNNCELLS_DEVICE C recurrent_scale() const { return second_.scale; }
  RNNCELLS_DEVICE C sum_scale(int k) const { return statistics_[k].scale; }
  RNNCELLS_DEVICE C value(int i, int64_t j) const {
    return widen(read(Global<const T>(norms_.values[i]), j));
  }

  // Phase 0's shares of a unit.
  RNNCELLS_DEVICE void shares(int64_t unit, Value<T>* share) const {
    RNNCELLS_UNROLL
    for (int k = 0; k < F::shares; ++k) {
      const int64_t j = F::gate(k) * units_ + unit;
      C sum = 0;
      if (apart()) {
        if (has_input(k)) sum += input_normal(j) * value(0, j) + input_bias(j);
        if (has_recurrent(k)) sum += recurrent_normal(j) * value(1, j) + recurrent_bias(j);
      } else if (sums(k)) {
        sum = sum_normal(k, j) * value(0, j) + value(1, j);
      } else {
        sum = has_input(k) ? read(input_, j) + input_bias(j)
                           : read(recurrent_, j) + recurrent_bias(j);
      }
      share[k] = Value<T>(sum);
    }
  }

 private:
  RNNCELLS_DEVICE C input_bias(int64_t j) const {
    return bias_at<T>(biases_.input, j, biases_.input_stride);
  }
  RNNCELLS_DEVICE C recurrent_bias(int64_t j) const {
    return bias_at<T>(biases_.recurrent, j, biases_.recurrent_stride);
  }
  RNNCELLS_DEVICE C whole(int64_t j) const {
    return read(input_, j) + input_bias(j) + (read(recurrent_, j) + recurrent_bias(j));
  }

  const int64_t units_;
  const RowNorms<T>& norms_;
  const Biases<T>& biases_;
  const Global<const C> input_, recurrent_;  // [G*H]
  RowStatistics<C> statistics_[F::shares], second_;
};

// The row that a cell with a middle made, as the reserve has it.
template <class T>
RNNCELLS_DEVICE Compute<T> rounded(Compute<T> value) {
  return widen(stored<T>(value));
}

template <class Cell, class T>
RNNCELLS_KERNEL(row_threads)
run_normed_forward(RNNCELLS_PARAMETER(NormedForward<T>) call) {
  using V = Value<T>;
  using C = Compute<T>;
  constexpr int saved = at_least_one<Cell::saved>();
  const StepForward<T>& step = call.step;
  const int64_t b = block_index(), units = step.units;
  const Steps steps(step.time);
  SharedMemory memory;
  const Shared<C> space = memory.take<C>(row_warps);
  if (step.step >= steps.length(b)) {
    for (int64_t unit = thread_index(); unit < units; unit += row_threads) {
      UnitStates<Cell, T, true>(step, steps, b, unit).clear_padding();
    }
    return;
  }
  const int64_t width = Cell::gates * units;
  NormedRow<Cell, T> row(units, call.norms, step.biases,
                         step.input + steps.row(step.step, b) * width, step.product + b * width);
  row.find_statistics(space);
  const Global<C> between(step.saved);
  const auto place = [&](int k, int64_t unit) { return (b * Cell::saved + k) * units + unit; };
  for (int64_t unit = thread_index(); unit < units; unit += row_threads) {
    V share[CellPhase<Cell, 0>::shares], previous[Cell::states], next[Cell::states], save[saved];
    const UnitStates<Cell, T, true> states(step, steps, b, unit);
    const UnitTerms<Cell, T> terms(step.varied, units, unit);
    row.shares(unit, share);
    states.read_previous(previous);
    cell_forward<Cell, 0>(terms.terms(step.varied), share, previous, next, save);
    if constexpr (Cell::middle) {
      RNNCELLS_UNROLL
      for (int k = 0; k < Cell::saved; ++k) write(between, place(k, unit), number(save[k]));
    } else {
      states.keep(previous, next, save);
    }
  }
  if constexpr (Cell::middle) {
    constexpr int operand = Cell::phase(1).operand;
    const auto made = [&](int64_t j) { return rounded<T>(read(between, place(operand, j))); };
    const RowStatistics<C> statistics = row_statistics<C>(units, made, space);
    for (int64_t unit = thread_index(); unit < units; unit += row_threads) {
      V previous[Cell::states], next[Cell::states], save[saved];
      const UnitStates<Cell, T, true> states(step, steps, b, unit);
      const UnitTerms<Cell, T> terms(step.varied, units, unit);
      const V share(statistics.normal(made(unit)) * row.value(2, unit) + row.value(3, unit));
      RNNCELLS_UNROLL
      for (int k = 0; k < Cell::saved; ++k) save[k] = V(read(between, place(k, unit)));
      states.read_previous(previous);
      cell_forward<Cell, 1>(terms.terms(step.varied), &share, previous, next, save);
      states.keep(previous, next, save);
    }
  }
}

}  // namespace rnncells::gpu
