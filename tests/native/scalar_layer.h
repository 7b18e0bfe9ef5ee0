// One direction of a layer in plain loops over the very cell headers that the engines run, one
// scalar at a time: what a CUDA thread does, and the reference for the engine without torch.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "cells/registry.h"
#include "cpu/engine.h"

namespace rnncells::scalar {

using Numbers = std::vector<double>;

struct Problem {
  Sizes size;
  std::vector<int64_t> counts;  // the rows of each time step
  bool reverse, bias, initial, projected;
  Numbers x, w_ih, w_hh, b_ih, b_hh, w_hr;
  std::vector<Numbers> states;         // [B, P], every other [B, H]
  Numbers y_gradient;                  // [N, P]
  std::vector<Numbers> last_gradient;  // [B, P], every other [B, H]
};

struct Result {
  Numbers y, streamed, dx, dw_ih, dw_hh, db_ih, db_hh, dw_hr;
  std::vector<Numbers> last, dstates;
};

template <class Cell>
class Layer {
  static constexpr int states = Cell::states, shares = share_count<Cell>();
  static constexpr int saved = Cell::saved > 0 ? Cell::saved : 1;

 public:
  explicit Layer(const Problem& problem)
      : p_(problem),
        T(p_.size.steps),
        B(p_.size.batch),
        I(p_.size.inputs),
        H(p_.size.units),
        P(p_.size.outputs) {
    for (int64_t t = 0; t < T; ++t) {
      offsets_.push_back(N);
      N += p_.counts[t];
    }
  }

  Result run() {
    forward();
    backward();
    return r_;
  }

 private:
  int64_t width(int i) const { return i == 0 ? P : H; }
  double state(int i, int64_t s, int64_t b, int64_t j) const {  // after step s; s = -1: initial
    if (j >= width(i)) return 0.0;                              // with a projection nobody looks
    if (s < 0) return p_.initial ? p_.states[i][b * width(i) + j] : 0.0;
    return history_[((i * T + s) * B + b) * H + j];
  }
  // What the cell computed; the hidden state without a projection.
  double& computed(int64_t s, int64_t b, int64_t j) { return computed_[(s * B + b) * H + j]; }
  int64_t length(int64_t b) const {
    int64_t steps = 0;
    while (steps < T && p_.counts[steps] > b) ++steps;
    return steps;
  }
  // Where sequence b's step s stands among all rows.
  int64_t row_of(int64_t s, int64_t b) const {
    return offsets_[p_.reverse ? length(b) - 1 - s : s] + b;
  }
  double& save(int64_t s, int64_t b, int64_t j, int k) {
    return saves_[((s * B + b) * H + j) * saved + k];
  }

  template <int Part>
  void forward_phase(int64_t s, int64_t b) {
    constexpr Phase phase = Cell::phase(Part);
    for (int64_t j = 0; j < H; ++j) {
      double share[8], previous[states], next[states];
      for (int k = 0; k < phase.shares.count; ++k) {
        const int index = phase.shares.first + k;
        const int64_t row = phase.gate_of_share[k] * H + j;
        share[k] = 0;
        if (index >= phase.input.first && index < phase.input.end()) {
          for (int64_t i = 0; i < I; ++i) share[k] += p_.w_ih[row * I + i] * x(s, b, i);
          if (p_.bias) share[k] += p_.b_ih[row];
        }
        if (index >= phase.recurrent.first && index < phase.recurrent.end()) {
          for (int64_t i = 0; i < P; ++i) {
            const double operand =
                phase.operand < 0 ? state(0, s - 1, b, i) : save(s, b, i, phase.operand);
            share[k] += p_.w_hh[row * P + i] * operand;
          }
          if (p_.bias) share[k] += p_.b_hh[row];
        }
      }
      for (int i = 0; i < states; ++i) previous[i] = state(i, s - 1, b, j);
      Cell::template forward<Part>(share, previous, next, &save(s, b, j, 0));
      if (Part < Cell::phases - 1) continue;
      computed(s, b, j) = next[0];
      for (int i = 0; i < states; ++i) history_[((i * T + s) * B + b) * H + j] = next[i];
    }
    if constexpr (Part + 1 < Cell::phases) forward_phase<Part + 1>(s, b);
  }
  double x(int64_t s, int64_t b, int64_t i) const { return p_.x[row_of(s, b) * I + i]; }

  void project(int64_t s, int64_t b) {
    for (int64_t j = 0; j < P; ++j) {
      double h = 0;
      for (int64_t i = 0; i < H; ++i) h += p_.w_hr[j * H + i] * computed(s, b, i);
      history_[(s * B + b) * H + j] = h;
    }
  }

  void forward() {
    history_.assign(states * T * B * H, 0.0);
    computed_.assign(T * B * H, 0.0);
    saves_.assign(T * B * H * saved, 0.0);
    r_.y.assign(N * P, 0.0);
    for (int i = 0; i < states; ++i) r_.last.emplace_back(B * width(i));
    for (int64_t b = 0; b < B; ++b) {
      for (int64_t s = 0; s < length(b); ++s) {
        forward_phase<0>(s, b);
        if (p_.projected) project(s, b);
        for (int64_t j = 0; j < P; ++j) r_.y[row_of(s, b) * P + j] = state(0, s, b, j);
      }
      for (int i = 0; i < states; ++i) {
        for (int64_t j = 0; j < width(i); ++j) {
          r_.last[i][b * width(i) + j] = state(i, length(b) - 1, b, j);
        }
      }
    }
  }

  // Adds the products of the phase's share gradients [shares, H] to everything they feed, and to
  // `operand`, the gradient of what the phase multiplied.
  template <int Part>
  void spread(int64_t s, int64_t b, const Numbers& gradient, Numbers& operand) {
    constexpr Phase phase = Cell::phase(Part);
    for (int k = 0; k < phase.shares.count; ++k) {
      const int index = phase.shares.first + k;
      for (int64_t j = 0; j < H; ++j) {
        const int64_t row = phase.gate_of_share[k] * H + j;
        const double g = gradient[index * H + j];
        if (index >= phase.input.first && index < phase.input.end()) {
          for (int64_t i = 0; i < I; ++i) {
            r_.dw_ih[row * I + i] += g * x(s, b, i);
            r_.dx[row_of(s, b) * I + i] += g * p_.w_ih[row * I + i];
          }
          r_.db_ih[row] += g;
        }
        if (index >= phase.recurrent.first && index < phase.recurrent.end()) {
          for (int64_t i = 0; i < P; ++i) {
            const double factor =
                phase.operand < 0 ? state(0, s - 1, b, i) : save(s, b, i, phase.operand);
            r_.dw_hh[row * P + i] += g * factor;
            operand[i] += g * p_.w_hh[row * P + i];
          }
          r_.db_hh[row] += g;
        }
      }
    }
  }

  template <int Part>
  void backward_phase(int64_t s, int64_t b, std::vector<Numbers>& carry, const Numbers& operand,
                      Numbers& gradient) {
    for (int64_t j = 0; j < H; ++j) {
      double previous[states], next[states], state_gradient[states], share_gradient[shares];
      for (int i = 0; i < states; ++i) {
        previous[i] = state(i, s - 1, b, j);
        next[i] = i == 0 ? computed(s, b, j) : state(i, s, b, j);
        state_gradient[i] = carry[i][j];
      }
      for (int k = 0; k < shares; ++k) share_gradient[k] = gradient[k * H + j];
      Cell::template backward<Part>(&save(s, b, j, 0), previous, next, operand[j], state_gradient,
                                    share_gradient);
      for (int k = 0; k < shares; ++k) gradient[k * H + j] = share_gradient[k];
      for (int i = 0; i < states; ++i) carry[i][j] = state_gradient[i];
    }
    Numbers below(H, 0.0);
    spread<Part>(s, b, gradient, below);
    if constexpr (Part > 0) {
      backward_phase<Part - 1>(s, b, carry, below, gradient);
    } else {
      for (int64_t j = 0; j < P; ++j) carry[0][j] += below[j];
    }
  }

  // From the gradient of h, in carry[0], to that of what the cell computed.
  void project_back(int64_t s, int64_t b, Numbers& carry) {
    Numbers below(H, 0.0);
    for (int64_t j = 0; j < P; ++j) {
      for (int64_t i = 0; i < H; ++i) {
        below[i] += carry[j] * p_.w_hr[j * H + i];
        r_.dw_hr[j * H + i] += carry[j] * computed(s, b, i);
      }
    }
    carry = below;
  }

  void backward() {
    r_.dx.assign(N * I, 0.0);
    r_.dw_ih.assign(Cell::gates * H * I, 0.0);
    r_.dw_hh.assign(Cell::gates * H * P, 0.0);
    r_.db_ih.assign(Cell::gates * H, 0.0);
    r_.db_hh.assign(Cell::gates * H, 0.0);
    r_.dw_hr.assign(p_.projected ? P * H : 0, 0.0);
    for (int i = 0; i < states; ++i) r_.dstates.emplace_back(B * width(i));
    for (int64_t b = 0; b < B; ++b) {
      std::vector<Numbers> carry(states, Numbers(H));
      for (int i = 0; i < states; ++i) {
        for (int64_t j = 0; j < width(i); ++j) carry[i][j] = p_.last_gradient[i][b * width(i) + j];
      }
      for (int64_t s = length(b) - 1; s >= 0; --s) {
        for (int64_t j = 0; j < P; ++j) carry[0][j] += p_.y_gradient[row_of(s, b) * P + j];
        if (p_.projected) project_back(s, b, carry[0]);
        Numbers gradient(shares * H, 0.0);
        backward_phase<Cell::phases - 1>(s, b, carry, Numbers(H, 0.0), gradient);
      }
      for (int i = 0; i < states; ++i) {
        for (int64_t j = 0; j < width(i); ++j) r_.dstates[i][b * width(i) + j] = carry[i][j];
      }
    }
  }

  const Problem& p_;
  const int64_t T, B, I, H, P;
  int64_t N = 0;
  std::vector<int64_t> offsets_;
  Numbers history_, computed_, saves_;
  Result r_;
};

}  // namespace rnncells::scalar
