// One direction of a layer by the CUDA engine, the way that the operators take, on the emulated
// card: the kernels' very source, and plain loops for the library's products.
#pragma once

#include <stdexcept>
#include <vector>

#include "cuda/layer_backward.h"
#include "cuda/layer_forward.h"
#include "native/scalar_layer.h"
#include "plain_library.h"

namespace rnncells::emulation {

using scalar::Problem;
using scalar::Result;

struct Way {
  bool steps = false;  // one launch a step; else persistent, as below
  gpu::Operand operand = gpu::Operand::singles;
  gpu::Exchange exchange = gpu::Exchange::block;
  int ranks = 1, rows = 1;
  bool packed = false;  // else padded
  bool y_gradient = true, last_gradient = true;
};

template <class Cell, class T>
class Layer {
  using C = Compute<T>;
  static constexpr int states = Cell::states, gates = Cell::gates;

 public:
  Layer(const Problem& problem, const Way& way, int cell)
      : p_(problem),
        way_(way),
        cell_(cell),
        steps_(p_.size.steps),
        batch_(p_.size.batch),
        inputs_(p_.size.inputs),
        units_(p_.size.units),
        outputs_(p_.size.outputs),
        slots_(reserve_slots<Cell>() + p_.projected),
        w_ih_(p_.w_ih),
        w_hh_(p_.w_hh),
        b_ih_(p_.b_ih),
        b_hh_(p_.b_hh),
        w_hr_(p_.w_hr) {
    lay_out();
  }

  Result run() {
    forward(true);
    const Numbers kept = y_.numbers();
    backward();
    forward(false);
    if (y_.numbers() != kept) throw std::runtime_error("inference differs from training");
    return result_;
  }

 private:
  // Sequence b of the problem stands elsewhere in a padded batch, in no order of lengths.
  int64_t place(int64_t b) const { return way_.packed ? b : (b * 5 + 2) % batch_; }
  int64_t row(int64_t t, int64_t b) const {
    return way_.packed ? offsets_[t] + b : t * batch_ + place(b);
  }
  int64_t width(int n) const { return n == 0 ? outputs_ : units_; }

  void lay_out() {
    if (batch_ % 5 == 0 && !way_.packed) throw std::runtime_error("choose another batch");
    lengths_.resize(batch_);
    for (int64_t b = 0; b < batch_; ++b) {
      int64_t length = 0;
      while (length < steps_ && p_.counts[length] > b) ++length;
      lengths_.data()[place(b)] = length;
      ragged_ = ragged_ || length < steps_;
    }
    int64_t before = 0;
    offset_array_.resize(steps_);
    for (int64_t t = 0; t < steps_; ++t) {
      offsets_.push_back(before);
      offset_array_.data()[t] = before;
      before += p_.counts[t];
    }
    count_ = way_.packed ? before : steps_ * batch_;
    time_ = {steps_, batch_, ragged_ ? lengths_.data() : nullptr,
             way_.packed ? offset_array_.data() : nullptr, p_.reverse};
    x_ = spread(p_.x, inputs_);
    y_gradient_ = spread(p_.y_gradient, outputs_);
    for (int n = 0; n < states; ++n) {
      initial_.push_back(placed(p_.states[n], width(n)));
      last_gradient_.push_back(placed(p_.last_gradient[n], width(n)));
    }
  }

  // The problem's rows, packed, where this layer has them; padding is not a number.
  DeviceArray<T> spread(const Numbers& rows, int64_t columns) const {
    DeviceArray<T> result(count_ * columns);
    for (int64_t t = 0; t < steps_; ++t) {
      for (int64_t b = 0; b < p_.counts[t]; ++b) {
        for (int64_t j = 0; j < columns; ++j) {
          result.set(row(t, b) * columns + j, rows[(offsets_[t] + b) * columns + j]);
        }
      }
    }
    return result;
  }
  // And back; padding must be zero.
  Numbers gathered(const DeviceArray<T>& rows, int64_t columns) const {
    Numbers result;
    for (int64_t t = 0; t < steps_; ++t) {
      for (int64_t b = 0; b < batch_; ++b) {
        const bool inside = b < p_.counts[t];
        for (int64_t j = 0; j < columns && (inside || !way_.packed); ++j) {
          const double value = rows.at(row(t, b) * columns + j);
          if (inside) result.push_back(value);
          if (!inside && value != 0) throw std::runtime_error("padding is not zero");
        }
      }
    }
    return result;
  }
  DeviceArray<T> placed(const Numbers& state, int64_t columns) const {
    DeviceArray<T> result(batch_ * columns);
    for (int64_t b = 0; b < batch_; ++b) {
      for (int64_t j = 0; j < columns; ++j)
        result.set(place(b) * columns + j, state[b * columns + j]);
    }
    return result;
  }
  Numbers in_order(const DeviceArray<T>& state, int64_t columns) const {
    Numbers result;
    for (int64_t b = 0; b < batch_; ++b) {
      for (int64_t j = 0; j < columns; ++j) result.push_back(state.at(place(b) * columns + j));
    }
    return result;
  }

  gpu::Choice choice(bool backward) const {
    gpu::Choice choice{};
    choice.kernel = gpu::Kernel::step;
    choice.operand = way_.operand;
    if (way_.steps) return choice;
    choice.kernel = gpu::Kernel::resident;  // any persistent one: the plan says how
    const gpu::CellTraits& traits = gpu::cell_traits(cell_);
    const gpu::PersistentProblem problem{
        way_.operand, traits.recurrent_shares, traits.shares, units_, batch_, backward};
    if (!gpu::make_plan(problem, way_.exchange, way_.ranks, way_.rows,
                        Machine::instance().shared_limit, choice.plan)) {
      throw std::runtime_error("no plan");
    }
    return choice;
  }

  void fill(gpu::LayerCall<T>& call, PlainLibrary& library, bool backward) {
    call.cell = cell_;
    call.choice = choice(backward);
    call.time = time_;
    call.rows = count_;
    call.inputs = inputs_;
    call.units = units_;
    call.outputs = outputs_;
    call.x = gpu::rows_of_input<T>(library, time_, count_, inputs_, x_.data(), batch_ * inputs_,
                                   inputs_, 1, backward);
    call.input_weight = gpu::matrix<T>(w_ih_.data(), gates * units_, inputs_);
    call.recurrent_weight = gpu::matrix<T>(w_hh_.data(), gates * units_, outputs_);
    if (p_.projected) call.projection = gpu::matrix<T>(w_hr_.data(), outputs_, units_);
    if (p_.bias) call.biases = {b_ih_.data(), 1, b_hh_.data(), 1};
    for (int n = 0; n < states && p_.initial; ++n) call.initial[n] = initial_[n].data();
  }

  void forward(bool keeps) {
    PlainLibrary library;
    y_.resize(count_ * outputs_);
    reserve_.resize(keeps ? count_ * slots_ * units_ : 0);
    last_.clear();
    for (int n = 0; n < states; ++n) last_.emplace_back(batch_ * width(n));
    gpu::LayerForward<T> call{};
    fill(call, library, false);
    call.y = y_.data();
    call.y_stride = outputs_;
    call.reserve = reserve_.data();
    for (int n = 0; n < states; ++n) call.last[n] = last_[n].data();
    gpu::run_forward(library, call);
    if (!keeps) return;
    result_.y = gathered(y_, outputs_);
    for (int n = 0; n < states; ++n) result_.last.push_back(in_order(last_[n], width(n)));
  }

  void backward() {
    PlainLibrary library;
    const int64_t columns = gates * units_;
    DeviceArray<T> dw_ih(columns * inputs_), dw_hh(columns * outputs_), db_ih(columns);
    DeviceArray<T> db_hh(columns), dw_hr(p_.projected ? outputs_ * units_ : 0);
    DeviceArray<T> dx(count_ * inputs_);
    DeviceArray<C> share(count_ * inputs_);
    std::vector<DeviceArray<T>> dstates;
    for (int n = 0; n < states; ++n) dstates.emplace_back(batch_ * width(n));
    gpu::LayerBackward<T> call{};
    fill(call, library, true);
    call.y = y_.data();
    call.y_stride = outputs_;
    call.reserve = reserve_.data();
    call.y_gradient = way_.y_gradient ? y_gradient_.data() : nullptr;
    call.y_gradient_step_stride = batch_ * outputs_;
    call.y_gradient_row_stride = outputs_;
    call.y_gradient_column_stride = 1;
    for (int n = 0; n < states; ++n) {
      call.last_gradient[n] = way_.last_gradient ? last_gradient_[n].data() : nullptr;
      call.initial_gradient[n] = dstates[n].data();
    }
    call.x_gradient = share.data();
    call.input_weight_gradient = dw_ih.data();
    call.recurrent_weight_gradient = dw_hh.data();
    call.input_bias_gradient = db_ih.data();
    call.recurrent_bias_gradient = db_hh.data();
    call.projection_gradient = dw_hr.data();
    gpu::run_backward(library, call);
    gpu::check_call(gpu::narrow_sum(
        gpu::NarrowSum<T>{share.data(), nullptr, dx.data(), count_ * inputs_}, nullptr));
    result_.dx = gathered(dx, inputs_);
    result_.dw_ih = dw_ih.numbers();
    result_.dw_hh = dw_hh.numbers();
    result_.db_ih = db_ih.numbers();
    result_.db_hh = db_hh.numbers();
    result_.dw_hr = dw_hr.numbers();
    for (int n = 0; n < states; ++n) result_.dstates.push_back(in_order(dstates[n], width(n)));
  }

  const Problem& p_;
  const Way way_;
  const int cell_;
  const int64_t steps_, batch_, inputs_, units_, outputs_, slots_;
  int64_t count_ = 0;
  bool ragged_ = false;
  std::vector<int64_t> offsets_;
  DeviceArray<int64_t> lengths_, offset_array_;
  gpu::Timeline time_{};
  DeviceArray<T> w_ih_, w_hh_, b_ih_, b_hh_, w_hr_, x_, y_, reserve_, y_gradient_;
  std::vector<DeviceArray<T>> initial_, last_gradient_, last_;
  Result result_;
};

}  // namespace rnncells::emulation
