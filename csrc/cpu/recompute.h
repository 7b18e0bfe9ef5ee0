// What a forward pass with `recompute` did not keep: the forward pass once more, for one chunk of
// time steps after another, from the states before the chunk.
#pragma once

#include "cpu/forward.h"

namespace rnncells {
namespace RNNCELLS_ISA {

template <class Cell, class S>
class Recompute {
  using T = Compute<S>;
  static constexpr int states = Cell::states;

 public:
  // A chunk has at most `rows` rows in `steps` time steps.
  Recompute(const BackwardCall<S>& call, const TimeSteps& time, int64_t rows, int64_t steps)
      : call_(call),
        size_(call.sizes),
        time_(time),
        where_(size_, call.weights.projection != nullptr),
        width_((reserve_slots<Cell>() + (call.weights.projection != nullptr) +
                (call.variant.zones() ? states : 0)) *
               size_.units),
        packed_(where_.elements()),
        saved_(rows * width_),
        y_(steps * size_.batch * size_.outputs),
        before_(states * state_size()),
        last_(states * state_size()) {
    where_.pack(call.weights, packed_.get());
  }

  // The reserve of the steps [s0, s1), the first of which in time is first_time: [rows, R*H].
  const S* run(int64_t s0, int64_t s1, int64_t first_time) {
    find_states_before(s0, first_time);
    ForwardCall<S> part{};
    part.sizes = size_;
    part.sizes.steps = s1 - s0;
    part.regime = Regime::units;
    part.row_counts = call_.row_counts == nullptr ? nullptr : call_.row_counts + first_time;
    part.order = call_.order;
    part.reverse = call_.reverse;
    part.x = time_.rows_of(call_.x, first_time, 0, call_.x_step_stride, call_.x_batch_stride).base;
    part.x_step_stride = call_.x_step_stride;
    part.x_batch_stride = call_.x_batch_stride;
    part.x_column_stride = call_.x_column_stride;
    part.weights = call_.weights;
    part.y = y_.get();
    part.y_batch_stride = size_.outputs;
    part.y_step_stride = size_.batch * size_.outputs;
    for (int i = 0; i < states; ++i) {
      part.initial[i] = before_ + i * state_size();
      part.last[i] = last_ + i * state_size();
    }
    part.reserve = saved_.get();
    part.packed = packed_.get();
    part.variant = call_.variant;
    part.variant.first_time += first_time;
    part.variant.whole_states = false;
    part.pool = call_.pool;
    ForwardPass<Cell, S, true>(part).run();
    return saved_.get();
  }

 private:
  int64_t state_size() const { return size_.batch * larger(size_.units, size_.outputs); }

  // Sequences that begin inside the chunk have their initial states.
  RNNCELLS_OUT_OF_LINE void find_states_before(int64_t s0, int64_t first_time) {
    const int64_t t = time_.before(time_.at(s0)), rows = time_.rows(first_time);
    const int64_t going_on = smaller(rows, time_.rows(t));
    for (int i = 0; i < states; ++i) {
      const int64_t width = i == 0 ? size_.outputs : size_.units;
      const OrderedRows<S> target = time_.state_rows(before_ + i * state_size(), 0, width);
      OrderedRows<const S> source{nullptr, 0, nullptr};
      if (going_on > 0 && i == 0) {
        source = time_.rows_of(call_.y, t, 0, call_.y_step_stride, call_.y_batch_stride);
      } else if (going_on > 0) {
        source =
            time_.rows_of(call_.reserve + (i - 1) * size_.units, t, 0, (states - 1) * size_.units);
      }
      for (int64_t row = 0; row < going_on; ++row) {
        // The forward pass over the chunk alone does not see a mark behind its end.
        if (starts_anew(call_.variant, time_, time_.at(s0), row)) {
          clear_row(target[row], width);
        } else {
          copy_row(source[row], width, target[row]);
        }
      }
      if (call_.initial[i] != nullptr) source = time_.state_rows(call_.initial[i], 0, width);
      for (int64_t row = going_on; row < rows; ++row) {
        if (call_.initial[i] != nullptr) {
          copy_row(source[row], width, target[row]);
        } else {
          clear_row(target[row], width);
        }
      }
    }
  }

  const BackwardCall<S>& call_;
  const Sizes size_;
  const TimeSteps& time_;
  const PackedWeights<Cell, S> where_;
  const int64_t width_;  // of a row of the reserve
  const Buffer<T> packed_;
  const Buffer<S> saved_;          // [rows, width]
  const Buffer<S> y_;              // [steps, B, P]
  const Buffer<S> before_, last_;  // of each state [B, P or H]
};

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
