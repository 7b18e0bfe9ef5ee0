// Back through a whole series in one launch, the recurrent weights on the chip: from y's gradient
// to those of the shares, from which a library makes the weights'.
#pragma once

#include "cuda/persistent.cuh"

namespace rnncells::gpu {

template <class Cell, class T, class E>
class BackwardLoop {
  using P = CellPhase<Cell, 0>;
  using V = Value<T>;
  static constexpr int saved = at_least_one<Cell::saved>();

 public:
  RNNCELLS_DEVICE BackwardLoop(const PersistentBackward<T>& call)
      : call_(call),
        plan_(call.plan),
        units_(static_cast<int>(call.units)),
        steps_(call.time),
        part_(plan_, call.time.batch, units_),
        exchange_(plan_, part_, memory_, call.workspace),
        sums_(memory_.take<float>(sums_elements(plan_))),
        y_(call.y),
        reserve_(call.reserve),
        y_gradient_(call.y_gradient),
        input_gradient_(call.input_gradient),
        recurrent_gradient_(call.recurrent_gradient) {}

  RNNCELLS_DEVICE void run() {
    const Product<E> product(plan_.product, memory_,
                             Global<const uint32_t>(static_cast<uint32_t*>(call_.workspace)),
                             part_.rank);
    start();
    for (int s = static_cast<int>(call_.time.steps) - 1; s >= 0; --s) {
      advance(s);
      ask(s - 1);
      exchange_.turn(round(s));
      product.run(exchange_.memory(), exchange_.first(round(s) + 1), part_.rows, sums_);
      block_barrier();
    }
    finish();
  }

 private:
  // How many steps came before step number s.
  RNNCELLS_DEVICE int round(int s) const { return static_cast<int>(call_.time.steps) - 1 - s; }
  // The pair's place in a state.
  RNNCELLS_DEVICE int64_t own() const { return int64_t{pair_.sequence} * units_ + pair_.column; }

  RNNCELLS_DEVICE void start() {
    pair_ = pair_of(part_, steps_);
    RNNCELLS_UNROLL
    for (int n = 0; n < Cell::states; ++n) {
      float gradient = 0;
      if (pair_.exists() && call_.last_gradient[n] != nullptr) {
        gradient = widen(read(Global<const T>(call_.last_gradient[n]), own()));
      }
      carry_[n] = V(gradient);
    }
    exchange_.clear();
    ask(static_cast<int>(call_.time.steps) - 1);
    exchange_.begin();
  }

  RNNCELLS_DEVICE float initial(int state) const {
    if (call_.initial[state] == nullptr) return 0;
    return widen(read(Global<const T>(call_.initial[state]), own()));
  }

  // Asks for what was kept of step number s.
  RNNCELLS_DEVICE void ask(int s) {
    if (s < 0) return;
    const int t = static_cast<int>(steps_.at(s)), before = static_cast<int>(steps_.before(t));
    if (!pair_.exists() || t >= pair_.length) return;
    const bool first = s == 0 || before >= pair_.length;  // of this sequence
    const int64_t row = steps_.row(t, pair_.sequence);
    const int64_t row_before = first ? 0 : steps_.row(before, pair_.sequence);
    const int64_t width = reserve_slots<Cell>() * units_;
    const int64_t place = row * width + pair_.column;
    RNNCELLS_UNROLL
    for (int k = 0; k < Cell::saved; ++k) {
      saved_[k] = widen(read_once(reserve_, place + k * units_));
    }
    RNNCELLS_UNROLL
    for (int n = 1; n < Cell::states; ++n) {
      const int slot = (Cell::saved + n - 1) * units_;
      next_[n] = widen(read(reserve_, place + slot));
      previous_[n] =
          first ? initial(n) : widen(read(reserve_, row_before * width + slot + pair_.column));
    }
    if constexpr (Cell::output_slope) {
      next_[0] = widen(read(y_, row * call_.y_stride + pair_.column));
    }
    if constexpr (Cell::direct_hidden) {
      previous_[0] =
          first ? initial(0) : widen(read(y_, row_before * call_.y_stride + pair_.column));
    }
    y_asked_ = 0;
    if (call_.y_gradient != nullptr) {
      y_asked_ =
          widen(read_once(y_gradient_, steps_.place(t, pair_.sequence, call_.y_gradient_step_stride,
                                                    call_.y_gradient_row_stride) +
                                           pair_.column * call_.y_gradient_column_stride));
    }
    if (!steps_.packed() && s >= steps_ahead) {
      const int64_t later = steps_.row(steps_.at(s - steps_ahead), pair_.sequence);
      for (int k = 0; k < reserve_slots<Cell>(); ++k) {
        will_read(reserve_, later * width + k * units_ + pair_.column);
      }
    }
  }

  // The gradient that came to the hidden state by the last step's product.
  RNNCELLS_DEVICE float by_product() const {
    float total[1] = {};
    add_slices(plan_.product, sums_, part_.rows, pair_, total);
    return total[0];
  }

  RNNCELLS_DEVICE void advance(int s) {
    const int t = static_cast<int>(steps_.at(s));
    if (!pair_.exists()) return;
    if (s + 1 < call_.time.steps) {
      carry_[0] = V(number(carry_[0]) + by_product());
    }
    V gradient[P::shares];
    const bool inside = t < pair_.length;
    if (inside) {
      step(gradient);
    } else {
      RNNCELLS_UNROLL
      for (int k = 0; k < P::shares; ++k) gradient[k] = V(0);
    }
    if (inside || !steps_.packed()) keep(steps_.row(t, pair_.sequence), gradient);
    RNNCELLS_UNROLL
    for (int k = 0; k < P::recurrents; ++k) {
      exchange_.publish(round(s), pair_.row, k * units_ + pair_.column,
                        number(gradient[P::recurrent_first + k]));
    }
  }

  RNNCELLS_DEVICE void step(V* gradient) {
    V save[saved], previous[Cell::states], next[Cell::states];
    RNNCELLS_UNROLL
    for (int k = 0; k < Cell::saved; ++k) save[k] = V(saved_[k]);
    RNNCELLS_UNROLL
    for (int n = 0; n < Cell::states; ++n) {
      previous[n] = V(n > 0 || Cell::direct_hidden ? previous_[n] : 0.0f);
      next[n] = V(n > 0 || Cell::output_slope ? next_[n] : 0.0f);
    }
    carry_[0] = V(number(carry_[0]) + y_asked_);
    Cell::template backward<0>(save, previous, next, V(0), carry_, gradient);
  }

  RNNCELLS_DEVICE void keep(int64_t row, const V* gradient) {
    const int64_t place = row * Cell::gates * units_ + pair_.column;
    RNNCELLS_UNROLL
    for (int k = 0; k < P::inputs; ++k) {
      write(input_gradient_, place + P::gate(k) * units_, stored<T>(number(gradient[k])));
    }
    if constexpr (has_separate_shares<Cell>()) {
      RNNCELLS_UNROLL
      for (int k = P::recurrent_first; k < P::shares; ++k) {
        write(recurrent_gradient_, place + P::gate(k) * units_, stored<T>(number(gradient[k])));
      }
    }
  }

  RNNCELLS_DEVICE void finish() {
    if (!pair_.exists()) return;
    carry_[0] = V(number(carry_[0]) + by_product());
    RNNCELLS_UNROLL
    for (int n = 0; n < Cell::states; ++n) {
      if (call_.initial_gradient[n] == nullptr) continue;
      write(Global<T>(call_.initial_gradient[n]), own(), stored<T>(number(carry_[n])));
    }
  }

  const PersistentBackward<T>& call_;
  const PersistentPlan& plan_;
  const int units_;
  const Steps steps_;
  const Part part_;
  SharedMemory memory_;
  OperandExchange<E> exchange_;
  const Shared<float> sums_;
  const Global<const T> y_, reserve_, y_gradient_;
  const Global<T> input_gradient_, recurrent_gradient_;
  Pair pair_;
  V carry_[Cell::states];
  float saved_[saved], y_asked_;
  float previous_[Cell::states], next_[Cell::states];
};

template <class Cell, class T, class E>
RNNCELLS_KERNEL(most_threads)
run_backward(RNNCELLS_PARAMETER(PersistentBackward<T>) call) {
  BackwardLoop<Cell, T, E>(call).run();
}

}  // namespace rnncells::gpu
