// The adjoint of normed.cuh.
#pragma once

#include "cuda/normed.cuh"
#include "cuda/step_backward.cuh"

namespace rnncells::gpu {

// One sequence in one step.
template <class Cell, class T>
class NormedAdjoint {
  using V = Value<T>;
  using C = Compute<T>;
  using F = CellPhase<Cell, 0>;
  using Row = NormedRow<Cell, T>;
  static constexpr int shares = share_count<Cell>(), last = Cell::phases - 1;
  // The share that a middle made.
  static constexpr int middle = Cell::phase(last).shares.first;

 public:
  RNNCELLS_DEVICE NormedAdjoint(const NormedBackward<T>& call, const Steps& steps, int64_t sequence)
      : call_(call),
        step_(call.step),
        steps_(steps),
        b_(sequence),
        units_(call.step.units),
        row_(steps.row(call.step.step, sequence)),
        anew_(starts_anew(call.step.varied, steps, call.step.step, sequence)),
        partial_(call.step.partial + sequence * shares * units_),
        sums_(call.sums + sequence * call.sums_width),
        input_gradient_(call.step.input_gradient),
        recurrent_gradient_(call.step.recurrent_gradient),
        step_gradient_(call.step.step_gradient) {}

  RNNCELLS_DEVICE void run(const Shared<C>& space) const {
    const int64_t width = Cell::gates * units_;
    Row row(units_, call_.norms, call_.biases, call_.input + row_ * width,
            call_.recurrent + row_ * width);
    row.find_statistics(space);
    if constexpr (Cell::middle) {
      through_middle(row, space);
    } else {
      for (int64_t unit = first(); unit < units_; unit += row_threads) adjoin<0>(unit, C(0));
    }
    if (row.apart()) {
      one_side<true>(row, space);
      one_side<false>(row, space);
    } else {
      through_sums(row, space);
    }
  }

 private:
  RNNCELLS_DEVICE static int64_t first() { return thread_index(); }
  RNNCELLS_DEVICE C gradient(int k, int64_t unit) const {
    return read(partial_, k * units_ + unit);
  }
  RNNCELLS_DEVICE void add(int64_t place, C value) const {
    write(sums_, place, read(sums_, place) + value);
  }

  // The cell's own: from the gradients of its states to those of its shares, which `partial` keeps.
  template <int P>
  RNNCELLS_DEVICE void adjoin(int64_t unit, C operand) const {
    const int64_t own = b_ * units_ + unit;
    V carry[Cell::states], gradients[shares];
    C passed[Cell::states];
    RNNCELLS_UNROLL
    for (int n = 0; n < Cell::states; ++n) {
      carry[n] = V(read(Global<C>(step_.carry[n]), own));
      passed[n] = 0;
    }
    RNNCELLS_UNROLL
    for (int k = 0; k < shares; ++k) gradients[k] = P < last ? V(gradient(k, unit)) : V(0);
    if constexpr (P == last) {
      C arrived = y_gradient_at(step_, steps_, b_, unit);
      if (step_.product != nullptr) {
        arrived += leaving_value(step_.varied, steps_, steps_.after(step_.step), b_, own,
                                 read(Global<const C>(step_.product), own));
      }
      carry[0] = V(number(carry[0]) + arrived);
      add_series_gradients<Cell>(step_, row_, unit, carry);
      if (step_.varied.zones) part_gradients<Cell>(step_, b_, unit, carry, passed);
    }
    const StepRecord<Cell, T> record(step_, steps_, b_, unit, row_, step_.varied.zones, anew_);
    const UnitTerms<Cell, T> terms(step_.varied, units_, unit);
    cell_backward<Cell, P>(terms.terms(step_.varied), record.save, record.previous, record.next,
                           V(operand), carry, gradients);
    if constexpr (P == 0) {
      if (step_.unit_sums != nullptr) add_unit_sums<Cell>(step_, b_, unit, record, gradients);
    }
    close_states<Cell, T, P>(step_, own, true, anew_, passed, carry);
    RNNCELLS_UNROLL
    for (int n = 0; n < Cell::states; ++n) write(Global<C>(step_.carry[n]), own, number(carry[n]));
    RNNCELLS_UNROLL
    for (int k = 0; k < shares; ++k) write(partial_, k * units_ + unit, number(gradients[k]));
  }

  RNNCELLS_DEVICE void through_middle(const Row& row, const Shared<C>& space) const {
    constexpr int operand = Cell::phase(last).operand;
    const int64_t slots = reserve_slots<Cell>() + (step_.varied.zones ? Cell::states : 0);
    const Global<const T> reserve(step_.reserve);
    const auto made = [&](int64_t j) {
      return widen(read(reserve, (row_ * slots + operand) * units_ + j));
    };
    const RowStatistics<C> statistics = row_statistics<C>(units_, made, space);
    RowAdjoint<C> adjoint;
    for (int64_t unit = first(); unit < units_; unit += row_threads) {
      const C normal = statistics.normal(made(unit));
      adjoin<last>(unit, normal * row.value(2, unit) + row.value(3, unit));
      const C own = gradient(middle, unit);
      add(call_.middle_scale + unit, own * normal);
      add(call_.middle_shift + unit, own);
      adjoint.add(own * row.value(2, unit), normal);
    }
    adjoint.finish(units_, statistics.scale, space);
    for (int64_t unit = first(); unit < units_; unit += row_threads) {
      const C own = gradient(middle, unit) * row.value(2, unit);
      adjoin<0>(unit, adjoint(own, statistics.normal(made(unit))));
    }
  }

  // Writes the gradient of one product's gate.
  template <bool Input>
  RNNCELLS_DEVICE void keep(int64_t j, C value) const {
    const int64_t width = Cell::gates * units_, place = row_ * width + j;
    const T rounded = stored<T>(value);
    if (Input) {
      write(input_gradient_, place, rounded);
    } else {
      if (step_.recurrent_gradient != nullptr) write(recurrent_gradient_, place, rounded);
      write(step_gradient_, b_ * width + j, rounded);
    }
  }

  // Gates apart: the way back through the norm of W_ih x, or of W_hh h.
  template <bool Input>
  RNNCELLS_DEVICE void one_side(const Row& row, const Shared<C>& space) const {
    const int64_t width = Cell::gates * units_;
    const auto normal_at = [&](int64_t j) {
      return Input ? row.input_normal(j) : row.recurrent_normal(j);
    };
    // Calls body(place in the row, the share's gradient) for each unit of each gate.
    const auto each = [&](const auto& body) {
      RNNCELLS_UNROLL
      for (int k = 0; k < F::shares; ++k) {
        if (!(Input ? Row::has_input(k) : Row::has_recurrent(k))) continue;
        for (int64_t unit = first(); unit < units_; unit += row_threads) {
          body(F::gate(k) * units_ + unit, gradient(k, unit));
        }
      }
    };
    RowAdjoint<C> adjoint;
    each([&](int64_t j, C own) {
      const C normal = normal_at(j);
      add((Input ? 0 : width) + j, own * normal);
      add((Input ? 2 : 3) * width + j, own);
      adjoint.add(own * row.value(Input ? 0 : 1, j), normal);
    });
    adjoint.finish(width, Input ? row.input_scale() : row.recurrent_scale(), space);
    each([&](int64_t j, C own) {
      keep<Input>(j, adjoint(own * row.value(Input ? 0 : 1, j), normal_at(j)));
    });
  }

  // One norm for each gate whose products meet; the others' gradients go on as they are.
  RNNCELLS_DEVICE void through_sums(const Row& row, const Shared<C>& space) const {
    const int64_t width = Cell::gates * units_;
    RNNCELLS_UNROLL
    for (int k = 0; k < F::shares; ++k) {
      RowAdjoint<C> adjoint;
      for (int64_t unit = first(); unit < units_ && Row::sums(k); unit += row_threads) {
        const int64_t j = F::gate(k) * units_ + unit;
        const C own = gradient(k, unit), normal = row.sum_normal(k, j);
        add(j, own * normal);
        add(width + j, own);
        adjoint.add(own * row.value(0, j), normal);
      }
      if (Row::sums(k)) adjoint.finish(units_, row.sum_scale(k), space);
      for (int64_t unit = first(); unit < units_; unit += row_threads) {
        const int64_t j = F::gate(k) * units_ + unit;
        C value = gradient(k, unit);
        if (Row::sums(k)) value = adjoint(value * row.value(0, j), row.sum_normal(k, j));
        if (Row::has_input(k)) keep<true>(j, value);
        if (Row::has_recurrent(k)) keep<false>(j, value);
      }
    }
  }

  const NormedBackward<T>& call_;
  const StepBackward<T>& step_;
  const Steps& steps_;
  const int64_t b_, units_, row_;
  const bool anew_;
  const Global<C> partial_, sums_;  // of this sequence
  const Global<T> input_gradient_, recurrent_gradient_, step_gradient_;
};

template <class Cell, class T>
RNNCELLS_KERNEL(row_threads)
run_normed_backward(RNNCELLS_PARAMETER(NormedBackward<T>) call) {
  using C = Compute<T>;
  const StepBackward<T>& step = call.step;
  const int64_t b = block_index(), width = Cell::gates * step.units;
  const Steps steps(step.time);
  SharedMemory memory;
  const Shared<C> space = memory.take<C>(row_warps);
  if (step.step < steps.length(b)) {
    NormedAdjoint<Cell, T>(call, steps, b).run(space);
    return;
  }
  // Padding: what arrived is the initial state's, and nothing goes on.
  const Global<C> carry(step.carry[0]);
  for (int64_t unit = thread_index(); unit < step.units && step.product != nullptr;
       unit += row_threads) {
    const int64_t own = b * step.units + unit;
    const C arrived = leaving_value(step.varied, steps, steps.after(step.step), b, own,
                                    read(Global<const C>(step.product), own));
    write(carry, own, read(carry, own) + arrived);
  }
  const T zero = stored<T>(C(0));
  const Global<T> input(step.input_gradient), recurrent(step.recurrent_gradient);
  for (int64_t j = thread_index(); j < width; j += row_threads) {
    write(Global<T>(step.step_gradient), b * width + j, zero);
    if (steps.packed()) continue;
    const int64_t place = steps.row(step.step, b) * width + j;
    write(input, place, zero);
    if (step.recurrent_gradient != nullptr) write(recurrent, place, zero);
  }
}

}  // namespace rnncells::gpu
