// One direction of a layer by the CUDA engine, with plain loops for the library's products: what
// the operators do around the kernels, in the same order.
#pragma once

#include <memory>
#include <stdexcept>
#include <vector>

#include "cuda/engine.h"
#include "cuda/primitives.cuh"
#include "native/scalar_layer.h"

namespace rnncells::emulation {

using scalar::Numbers;
using scalar::Problem;
using scalar::Result;

// Memory of the card: exactly so large, and not a number where nobody wrote.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t count = 0) { resize(count); }
  explicit DeviceArray(const Numbers& numbers) {
    resize(static_cast<int64_t>(numbers.size()));
    for (size_t i = 0; i < numbers.size(); ++i) set(i, numbers[i]);
  }
  ~DeviceArray() { forget(); }
  DeviceArray(DeviceArray&&) = default;
  DeviceArray& operator=(DeviceArray&& other) {
    forget();
    values_ = std::move(other.values_);
    count_ = other.count_;
    return *this;
  }
  void resize(int64_t count) {
    forget();
    values_.reset(new T[count]);
    count_ = count;
    std::memset(static_cast<void*>(values_.get()), 0xff, count * sizeof(T));
    Machine::instance().buffers.add(values_.get(), count * sizeof(T));
  }
  void clear() { std::memset(static_cast<void*>(values_.get()), 0, count_ * sizeof(T)); }
  T* data() { return count_ > 0 ? values_.get() : nullptr; }
  int64_t size() const { return count_; }
  double at(int64_t i) const { return gpu::widen(values_[i]); }
  void set(int64_t i, double value) {
    if constexpr (sizeof(T) == 8) {
      values_[i] = value;
    } else {
      gpu::narrow(static_cast<float>(value), values_[i]);
    }
  }
  Numbers numbers() const {
    Numbers result;
    for (int64_t i = 0; i < count_; ++i) result.push_back(at(i));
    return result;
  }

 private:
  void forget() {
    if (values_ != nullptr) Machine::instance().buffers.remove(values_.get());
  }

  std::unique_ptr<T[]> values_;
  int64_t count_ = 0;
};

// out [m, n] = a [m, depth] b, where b(k, j) is a number.
template <class A, class Out, class B>
void multiply(const DeviceArray<A>& a, int64_t a_first, int64_t a_stride, const B& b,
              DeviceArray<Out>& out, int64_t m, int64_t n, int64_t depth) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < depth; ++k) sum += a.at(a_first + i * a_stride + k) * b(k, j);
      out.set(i * n + j, sum);
    }
  }
}

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
    DeviceArray<T> given = spread(p_.x, inputs_);
    x_.resize(count_ * inputs_);
    if (way_.packed || !ragged_) {
      for (int64_t i = 0; i < count_ * inputs_; ++i) x_.set(i, given.at(i));
    } else {
      check(gpu::copy_rows(
          gpu::CopyRows<T>{time_, inputs_, given.data(), batch_ * inputs_, inputs_, 1, x_.data()},
          nullptr));
    }
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

  static void check(const char* wrong) {
    if (wrong != nullptr) throw std::runtime_error(wrong);
  }

  gpu::PersistentPlan plan(bool backward, DeviceArray<char>& workspace) const {
    gpu::PersistentPlan plan;
    const gpu::CellTraits& traits = gpu::cell_traits(cell_);
    const gpu::PersistentProblem problem{
        way_.operand, traits.recurrent_shares, traits.shares, units_, batch_, backward};
    if (!gpu::make_plan(problem, way_.exchange, way_.ranks, way_.rows,
                        Machine::instance().shared_limit, plan)) {
      throw std::runtime_error("no plan");
    }
    workspace.resize(gpu::workspace_bytes(plan, problem.operand));
    return plan;
  }
  gpu::Biases<T> biases() {
    if (!p_.bias) return {nullptr, 0, nullptr, 0};
    return {b_ih_.data(), 1, b_hh_.data(), 1};
  }

  void forward(bool keeps) {
    DeviceArray<C> input(count_ * gates * units_);
    multiply(
        x_, 0, inputs_, [&](int64_t k, int64_t j) { return w_ih_.at(j * inputs_ + k); }, input,
        count_, gates * units_, inputs_);
    y_.resize(count_ * outputs_);
    reserve_.resize(keeps ? count_ * slots_ * units_ : 0);
    last_.clear();
    for (int n = 0; n < states; ++n) last_.emplace_back(batch_ * width(n));
    if (way_.steps) {
      forward_steps(input);
    } else if constexpr (Cell::phases == 1 && sizeof(T) < 8) {
      gpu::PersistentForward<T> call{};
      DeviceArray<char> workspace;
      call.time = time_;
      call.units = units_;
      call.plan = plan(false, workspace);
      call.operand = way_.operand;
      call.input = input.data();
      call.recurrent = {w_hh_.data(), units_, 1};
      call.biases = biases();
      for (int n = 0; n < states; ++n) {
        call.initial[n] = p_.initial ? initial_[n].data() : nullptr;
        call.last[n] = last_[n].data();
      }
      call.y = y_.data();
      call.y_stride = outputs_;
      call.reserve = reserve_.data();
      call.workspace = workspace.data();
      check(gpu::persistent_forward(cell_, call, nullptr));
    }
    if (!keeps) return;
    result_.y = gathered(y_, outputs_);
    for (int n = 0; n < states; ++n) result_.last.push_back(in_order(last_[n], width(n)));
  }

  void forward_steps(DeviceArray<C>& input) {
    DeviceArray<T> hidden(batch_ * outputs_), computed(p_.projected ? batch_ * units_ : 0);
    DeviceArray<T> operand(batch_ * units_), projected(batch_ * outputs_);
    DeviceArray<C> saved(batch_ * Cell::saved * units_);
    std::vector<DeviceArray<C>> wide(states);
    for (int64_t i = 0; i < hidden.size(); ++i) hidden.set(i, p_.initial ? initial_[0].at(i) : 0);
    for (int n = 1; n < states; ++n) {
      wide[n].resize(batch_ * units_);
      check(gpu::widen_values(gpu::WidenValues<T>{p_.initial ? initial_[n].data() : nullptr,
                                                  wide[n].data(), batch_ * units_},
                              nullptr));
    }
    for (int64_t s = 0; s < steps_; ++s) {
      gpu::StepForward<T> call{};
      call.time = time_;
      call.units = units_;
      call.step = p_.reverse ? steps_ - 1 - s : s;
      call.input = input.data();
      call.biases = biases();
      call.hidden = p_.projected ? nullptr : hidden.data();
      for (int n = 1; n < states; ++n) call.state[n] = wide[n].data();
      call.y = p_.projected ? nullptr : y_.data();
      call.y_stride = outputs_;
      call.computed = computed.data();
      call.saved = Cell::phases > 1 ? saved.data() : nullptr;
      call.reserve = reserve_.data();
      for (call.phase = 0; call.phase < Cell::phases; ++call.phase) {
        const Phase phase = Cell::phase(call.phase);
        const int64_t columns = phase.recurrent.count * units_;
        const int64_t first = phase_gate(call.phase) * units_;
        DeviceArray<C> product(batch_ * columns);
        multiply(
            call.phase == 0 ? hidden : operand, 0, outputs_,
            [&](int64_t k, int64_t j) { return w_hh_.at((first + j) * outputs_ + k); }, product,
            batch_, columns, outputs_);
        call.product = product.data();
        call.operand = call.phase + 1 < Cell::phases ? operand.data() : nullptr;
        check(gpu::step_forward(cell_, call, nullptr));
      }
      if (!p_.projected) continue;
      multiply(
          computed, 0, units_, [&](int64_t k, int64_t j) { return w_hr_.at(j * units_ + k); },
          projected, batch_, outputs_, units_);
      check(gpu::store_outputs(gpu::StoreOutputs<T>{time_, outputs_, call.step, projected.data(),
                                                    hidden.data(), y_.data(), outputs_},
                               nullptr));
    }
    for (int64_t i = 0; i < hidden.size(); ++i) last_[0].set(i, hidden.at(i));
    for (int n = 1; n < states; ++n) {
      check(gpu::narrow_sum(
          gpu::NarrowSum<T>{wide[n].data(), nullptr, last_[n].data(), batch_ * units_}, nullptr));
    }
  }
  // The gate of a phase's first recurrent share.
  static int64_t phase_gate(int p) {
    const Phase phase = Cell::phase(p);
    return phase.gate_of_share[phase.recurrent.first - phase.shares.first];
  }

  void backward() {
    DeviceArray<T> input_gradient(count_ * gates * units_);
    DeviceArray<T> recurrent_gradient(
        gpu::cell_traits(cell_).separate_gradients ? count_ * gates * units_ : 0);
    DeviceArray<T> hidden_gradient(p_.projected ? count_ * outputs_ : 0);
    std::vector<DeviceArray<T>> dstates;
    for (int n = 0; n < states; ++n) dstates.emplace_back(batch_ * width(n));
    if (way_.steps) {
      backward_steps(input_gradient, recurrent_gradient, hidden_gradient, dstates);
    } else if constexpr (Cell::phases == 1 && sizeof(T) < 8) {
      gpu::PersistentBackward<T> call{};
      DeviceArray<char> workspace;
      call.time = time_;
      call.units = units_;
      call.plan = plan(true, workspace);
      call.operand = way_.operand;
      call.recurrent = {w_hh_.data(), units_, 1};
      for (int n = 0; n < states; ++n) {
        call.initial[n] = p_.initial ? initial_[n].data() : nullptr;
        call.last_gradient[n] = way_.last_gradient ? last_gradient_[n].data() : nullptr;
        call.initial_gradient[n] = dstates[n].data();
      }
      call.y = y_.data();
      call.y_stride = outputs_;
      call.reserve = reserve_.data();
      call.y_gradient = way_.y_gradient ? y_gradient_.data() : nullptr;
      call.y_gradient_step_stride = batch_ * outputs_;
      call.y_gradient_row_stride = outputs_;
      call.y_gradient_column_stride = 1;
      call.input_gradient = input_gradient.data();
      call.recurrent_gradient = recurrent_gradient.data();
      call.workspace = workspace.data();
      check(gpu::persistent_backward(cell_, call, nullptr));
    }
    for (int n = 0; n < states; ++n) result_.dstates.push_back(in_order(dstates[n], width(n)));
    weight_gradients(input_gradient,
                     recurrent_gradient.size() > 0 ? recurrent_gradient : input_gradient,
                     hidden_gradient);
  }

  void backward_steps(DeviceArray<T>& input_gradient, DeviceArray<T>& recurrent_gradient,
                      DeviceArray<T>& hidden_gradient, std::vector<DeviceArray<T>>& dstates) {
    std::vector<DeviceArray<C>> carry(states);
    for (int n = 0; n < states; ++n) {
      carry[n].resize(batch_ * width(n));
      check(gpu::widen_values(
          gpu::WidenValues<T>{way_.last_gradient ? last_gradient_[n].data() : nullptr,
                              carry[n].data(), batch_ * width(n)},
          nullptr));
    }
    DeviceArray<C> partial(Cell::phases > 1 ? batch_ * share_count<Cell>() * units_ : 0);
    DeviceArray<C> by_hidden(batch_ * outputs_), by_computed(batch_ * units_);
    DeviceArray<T> output_gradient(batch_ * outputs_);
    for (int64_t s = steps_ - 1; s >= 0; --s) {
      const int64_t t = p_.reverse ? steps_ - 1 - s : s;
      const C* arrived = s + 1 < steps_ ? by_hidden.data() : nullptr;
      if (p_.projected) {
        gpu::GatherOutputGradient<T> call{};
        call.time = time_;
        call.outputs = outputs_;
        call.step = t;
        call.product = arrived;
        call.y_gradient = way_.y_gradient ? y_gradient_.data() : nullptr;
        call.y_gradient_step_stride = batch_ * outputs_;
        call.y_gradient_row_stride = outputs_;
        call.y_gradient_column_stride = 1;
        call.carry = carry[0].data();
        call.hidden_gradient = hidden_gradient.data();
        call.step_gradient = output_gradient.data();
        check(gpu::gather_output_gradient(call, nullptr));
        multiply(
            output_gradient, 0, outputs_,
            [&](int64_t k, int64_t j) { return w_hr_.at(k * units_ + j); }, by_computed, batch_,
            units_, outputs_);
        arrived = by_computed.data();
      }
      for (int phase = Cell::phases - 1; phase >= 0; --phase) {
        const int64_t columns = Cell::phase(phase).recurrent.count * units_;
        const int64_t first = phase_gate(phase) * units_;
        DeviceArray<T> step_gradient(batch_ * columns);
        gpu::StepBackward<T> call{};
        call.time = time_;
        call.units = units_;
        call.step = t;
        call.phase = phase;
        call.projected = p_.projected;
        call.product = arrived;
        for (int n = 0; n < states; ++n) {
          call.initial[n] = p_.initial ? initial_[n].data() : nullptr;
          call.carry[n] = carry[n].data();
        }
        call.y = y_.data();
        call.y_stride = outputs_;
        call.reserve = reserve_.data();
        call.y_gradient = way_.y_gradient && !p_.projected ? y_gradient_.data() : nullptr;
        call.y_gradient_step_stride = batch_ * outputs_;
        call.y_gradient_row_stride = outputs_;
        call.y_gradient_column_stride = 1;
        call.partial = partial.data();
        call.input_gradient = input_gradient.data();
        call.recurrent_gradient = recurrent_gradient.data();
        call.step_gradient = step_gradient.data();
        check(gpu::step_backward(cell_, call, nullptr));
        multiply(
            step_gradient, 0, columns,
            [&](int64_t k, int64_t j) { return w_hh_.at((first + k) * outputs_ + j); }, by_hidden,
            batch_, outputs_, columns);
        arrived = by_hidden.data();
      }
    }
    for (int n = 0; n < states; ++n) {
      check(gpu::narrow_sum(gpu::NarrowSum<T>{carry[n].data(), n == 0 ? by_hidden.data() : nullptr,
                                              dstates[n].data(), batch_ * width(n)},
                            nullptr));
    }
  }

  // result [rows of a gate range, n] of gradient^T factor.
  void accumulate(const DeviceArray<T>& gradient, int64_t first, int64_t rows, int64_t stride,
                  const DeviceArray<T>& factor, int64_t factor_first, int64_t factor_stride,
                  int64_t n, Numbers& result) const {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t r = 0; r < count_; ++r) {
          sum +=
              gradient.at(r * stride + first + i) * factor.at(r * factor_stride + factor_first + j);
        }
        result.push_back(sum);
      }
    }
  }

  void weight_gradients(DeviceArray<T>& input_gradient, DeviceArray<T>& recurrent_gradient,
                        DeviceArray<T>& hidden_gradient) {
    const int64_t columns = gates * units_;
    DeviceArray<T> dx(count_ * inputs_), previous(count_ * outputs_);
    multiply(
        input_gradient, 0, columns, [&](int64_t k, int64_t j) { return w_ih_.at(k * inputs_ + j); },
        dx, count_, inputs_, columns);
    result_.dx = gathered(dx, inputs_);
    accumulate(input_gradient, 0, columns, columns, x_, 0, inputs_, inputs_, result_.dw_ih);
    check(gpu::previous_outputs(
        gpu::PreviousOutputs<T>{time_, outputs_, y_.data(), outputs_,
                                p_.initial ? initial_[0].data() : nullptr, previous.data()},
        nullptr));
    for (int p = 0; p < Cell::phases; ++p) {
      const Phase phase = Cell::phase(p);
      const bool hidden = phase.operand < 0;
      accumulate(recurrent_gradient, phase_gate(p) * units_, phase.recurrent.count * units_,
                 columns, hidden ? previous : reserve_, hidden ? 0 : phase.operand * units_,
                 hidden ? outputs_ : slots_ * units_, outputs_, result_.dw_hh);
    }
    if (p_.projected) {
      accumulate(hidden_gradient, 0, outputs_, outputs_, reserve_, reserve_slots<Cell>() * units_,
                 slots_ * units_, units_, result_.dw_hr);
    }
    result_.db_ih = summed(input_gradient);
    result_.db_hh = summed(recurrent_gradient);
  }
  Numbers summed(DeviceArray<T>& rows) const {
    const int64_t columns = gates * units_;
    DeviceArray<C> partial(gpu::sum_parts(count_) * columns);
    DeviceArray<T> sum(columns);
    check(gpu::sum_rows(gpu::SumRows<T>{rows.data(), count_, columns, partial.data(), sum.data()},
                        nullptr));
    return sum.numbers();
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
