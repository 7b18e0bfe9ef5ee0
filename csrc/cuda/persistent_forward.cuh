// Forward through a whole series in one launch, the recurrent weights on the chip.
#pragma once

#include "cuda/persistent.cuh"

namespace rnncells::gpu {

template <class Cell, class T, class E>
class ForwardLoop {
  using P = CellPhase<Cell, 0>;
  using V = Value<T>;
  static constexpr int saved = at_least_one<Cell::saved>();

 public:
  RNNCELLS_DEVICE ForwardLoop(const PersistentForward<T>& call)
      : call_(call),
        plan_(call.plan),
        units_(static_cast<int>(call.units)),
        steps_(call.time),
        part_(plan_, call.time.batch, units_),
        exchange_(plan_, part_, memory_, call.workspace),
        sums_(memory_.take<float>(sums_elements(plan_))),
        bias_(memory_.take<float>(int64_t{P::shares} * plan_.units)),
        input_(call.input),
        y_(call.y),
        reserve_(call.reserve) {}

  RNNCELLS_DEVICE void run() {
    const Product<E> product(plan_.product, memory_,
                             Global<const uint32_t>(static_cast<uint32_t*>(call_.workspace)),
                             part_.rank);
    load_biases();
    start();
    for (int s = 0; s < call_.time.steps; ++s) {
      product.run(exchange_.memory(), exchange_.first(s), part_.rows, sums_);
      block_barrier();
      advance(s);
      ask(s + 1);
      exchange_.turn(s);
    }
    finish();
  }

 private:
  // The pair's place in a state.
  RNNCELLS_DEVICE int64_t own() const { return int64_t{pair_.sequence} * units_ + pair_.column; }

  RNNCELLS_DEVICE void load_biases() {
    const Biases<T>& biases = call_.biases;
    const Global<const T> input(biases.input), recurrent(biases.recurrent);
    for (int unit = thread_index(); unit < part_.units; unit += block_threads()) {
      RNNCELLS_UNROLL
      for (int k = 0; k < P::shares; ++k) {
        const int64_t i = P::gate(k) * units_ + part_.first_unit + unit;
        float bias = 0;
        if (k < P::inputs && biases.input != nullptr) {
          bias += widen(read(input, i * biases.input_stride));
        }
        if (k >= P::recurrent_first && biases.recurrent != nullptr) {
          bias += widen(read(recurrent, i * biases.recurrent_stride));
        }
        write(bias_, k * plan_.units + unit, bias);
      }
    }
  }

  RNNCELLS_DEVICE float initial(int state) const {
    if (call_.initial[state] == nullptr) return 0;
    return widen(read(Global<const T>(call_.initial[state]), own()));
  }

  RNNCELLS_DEVICE void start() {
    pair_ = pair_of(part_, steps_);
    RNNCELLS_UNROLL
    for (int n = 0; n < Cell::states; ++n) state_[n] = V(pair_.exists() ? initial(n) : 0.0f);
    exchange_.clear();
    exchange_.fill(Global<const T>(call_.initial[0]), call_.initial[0] != nullptr);
    ask(0);
    exchange_.begin();
  }

  // Asks for the input shares of step number s.
  RNNCELLS_DEVICE void ask(int s) {
    if (s >= call_.time.steps) return;
    const int t = static_cast<int>(steps_.at(s));
    if (!pair_.exists() || t >= pair_.length) return;
    const int64_t first = steps_.row(t, pair_.sequence) * Cell::gates * units_ + pair_.column;
    const bool ahead = !steps_.packed() && s + steps_ahead < call_.time.steps &&
                       steps_.at(s + steps_ahead) < pair_.length;
    const int64_t distance =
        (steps_.at(s + steps_ahead) - t) * call_.time.batch * Cell::gates * units_;
    RNNCELLS_UNROLL
    for (int k = 0; k < P::inputs; ++k) {
      const int64_t place = first + P::gate(k) * units_;
      asked_[k] = read_once(input_, place);
      if (ahead) will_read(input_, place + distance);
    }
  }

  RNNCELLS_DEVICE void advance(int s) {
    const int t = static_cast<int>(steps_.at(s));
    if (!pair_.exists()) return;
    if (t < pair_.length) {
      step(steps_.row(t, pair_.sequence));
    } else if (!steps_.packed()) {
      pad(steps_.row(t, pair_.sequence));
    }
    exchange_.publish(s, pair_.row, pair_.column, number(state_[0]));
  }

  RNNCELLS_DEVICE void step(int64_t row) {
    float product[P::recurrents] = {};
    add_slices(plan_.product, sums_, part_.rows, pair_, product);
    V share[P::shares], next[Cell::states], save[saved];
    RNNCELLS_UNROLL
    for (int k = 0; k < P::shares; ++k) {
      float sum = read(bias_, k * plan_.units + pair_.unit);
      if (k < P::inputs) sum += asked_[k];
      if (k >= P::recurrent_first) sum += product[k - P::recurrent_first];
      share[k] = V(sum);
    }
    Cell::template forward<0>(share, state_, next, save);
    const T h = stored<T>(number(next[0]));
    state_[0] = V(widen(h));
    RNNCELLS_UNROLL
    for (int n = 1; n < Cell::states; ++n) state_[n] = next[n];
    if (call_.y != nullptr) write(y_, row * call_.y_stride + pair_.column, h);
    if (call_.reserve == nullptr) return;
    const int64_t place = row * reserve_slots<Cell>() * units_ + pair_.column;
    RNNCELLS_UNROLL
    for (int k = 0; k < Cell::saved; ++k) {
      write(reserve_, place + k * units_, stored<T>(number(save[k])));
    }
    RNNCELLS_UNROLL
    for (int n = 1; n < Cell::states; ++n) {
      write(reserve_, place + (Cell::saved + n - 1) * units_, stored<T>(number(next[n])));
    }
  }

  RNNCELLS_DEVICE void pad(int64_t row) {
    if (call_.y != nullptr) write(y_, row * call_.y_stride + pair_.column, stored<T>(0.0f));
    if (call_.reserve == nullptr) return;
    const int64_t place = row * reserve_slots<Cell>() * units_ + pair_.column;
    for (int k = 0; k < reserve_slots<Cell>(); ++k) {
      write(reserve_, place + k * units_, stored<T>(0.0f));
    }
  }

  RNNCELLS_DEVICE void finish() {
    if (!pair_.exists()) return;
    RNNCELLS_UNROLL
    for (int n = 0; n < Cell::states; ++n) {
      write(Global<T>(call_.last[n]), own(), stored<T>(number(state_[n])));
    }
  }

  const PersistentForward<T>& call_;
  const PersistentPlan& plan_;
  const int units_;
  const Steps steps_;
  const Part part_;
  SharedMemory memory_;
  OperandExchange<E> exchange_;
  const Shared<float> sums_, bias_;
  const Global<const float> input_;
  const Global<T> y_, reserve_;
  Pair pair_;
  V state_[Cell::states];
  float asked_[P::inputs];
};

template <class Cell, class T, class E>
RNNCELLS_KERNEL(most_threads)
run_forward(RNNCELLS_PARAMETER(PersistentForward<T>) call) {
  ForwardLoop<Cell, T, E>(call).run();
}

}  // namespace rnncells::gpu
