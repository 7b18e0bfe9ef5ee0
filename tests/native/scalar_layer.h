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
  bool reverse, bias, initial;
  Numbers x, w_ih, w_hh, b_ih, b_hh;
  std::vector<Numbers> states;         // [B, H] each
  Numbers y_gradient;                  // [T, B, H]
  std::vector<Numbers> last_gradient;  // [B, H] each
};

struct Result {
  Numbers y, dx, dw_ih, dw_hh, db_ih, db_hh;
  std::vector<Numbers> last, dstates;
};

template <class Cell>
class Layer {
  static constexpr int states = Cell::states, shares = share_count<Cell>();
  static constexpr int saved = Cell::saved > 0 ? Cell::saved : 1;

 public:
  explicit Layer(const Problem& problem)
      : p_(problem), T(p_.size.steps), B(p_.size.batch), I(p_.size.inputs), H(p_.size.units) {}

  Result run() {
    forward();
    backward();
    return r_;
  }

 private:
  double state(int i, int64_t s, int64_t b, int64_t j) const {  // after step s; s = -1: initial
    if (s < 0) return p_.initial ? p_.states[i][b * H + j] : 0.0;
    return history_[((i * T + s) * B + b) * H + j];
  }
  int64_t time(int64_t s) const { return p_.reverse ? T - 1 - s : s; }
  double& save(int64_t s, int64_t b, int64_t j, int k) {
    return saves_[((s * B + b) * H + j) * saved + k];
  }

  template <int P>
  void forward_phase(int64_t s, int64_t b) {
    constexpr Phase phase = Cell::phase(P);
    for (int64_t j = 0; j < H; ++j) {
      double share[8], previous[states], next[states];
      for (int k = 0; k < phase.shares.count; ++k) {
        const int index = phase.shares.first + k;
        const int64_t row = phase.gate_of_share[k] * H + j;
        share[k] = 0;
        if (index >= phase.input.first && index < phase.input.end()) {
          for (int64_t i = 0; i < I; ++i) {
            share[k] += p_.w_ih[row * I + i] * p_.x[(time(s) * B + b) * I + i];
          }
          if (p_.bias) share[k] += p_.b_ih[row];
        }
        if (index >= phase.recurrent.first && index < phase.recurrent.end()) {
          for (int64_t i = 0; i < H; ++i) {
            const double operand =
                phase.operand < 0 ? state(0, s - 1, b, i) : save(s, b, i, phase.operand);
            share[k] += p_.w_hh[row * H + i] * operand;
          }
          if (p_.bias) share[k] += p_.b_hh[row];
        }
      }
      for (int i = 0; i < states; ++i) previous[i] = state(i, s - 1, b, j);
      Cell::template forward<P>(share, previous, next, &save(s, b, j, 0));
      if (P < Cell::phases - 1) continue;
      for (int i = 0; i < states; ++i) history_[((i * T + s) * B + b) * H + j] = next[i];
    }
    if constexpr (P + 1 < Cell::phases) forward_phase<P + 1>(s, b);
  }

  void forward() {
    history_.assign(states * T * B * H, 0.0);
    saves_.assign(T * B * H * saved, 0.0);
    r_.y.assign(T * B * H, 0.0);
    r_.last.assign(states, Numbers(B * H));
    for (int64_t b = 0; b < B; ++b) {
      for (int64_t s = 0; s < T; ++s) {
        forward_phase<0>(s, b);
        for (int64_t j = 0; j < H; ++j) r_.y[(time(s) * B + b) * H + j] = state(0, s, b, j);
      }
      for (int i = 0; i < states; ++i) {
        for (int64_t j = 0; j < H; ++j) r_.last[i][b * H + j] = state(i, T - 1, b, j);
      }
    }
  }

  // Adds the products of the phase's share gradients [shares, H] to everything they feed, and to
  // `operand`, the gradient of what the phase multiplied.
  template <int P>
  void spread(int64_t s, int64_t b, const Numbers& gradient, Numbers& operand) {
    constexpr Phase phase = Cell::phase(P);
    for (int k = 0; k < phase.shares.count; ++k) {
      const int index = phase.shares.first + k;
      for (int64_t j = 0; j < H; ++j) {
        const int64_t row = phase.gate_of_share[k] * H + j;
        const double g = gradient[index * H + j];
        if (index >= phase.input.first && index < phase.input.end()) {
          for (int64_t i = 0; i < I; ++i) {
            r_.dw_ih[row * I + i] += g * p_.x[(time(s) * B + b) * I + i];
            r_.dx[(time(s) * B + b) * I + i] += g * p_.w_ih[row * I + i];
          }
          r_.db_ih[row] += g;
        }
        if (index >= phase.recurrent.first && index < phase.recurrent.end()) {
          for (int64_t i = 0; i < H; ++i) {
            const double factor =
                phase.operand < 0 ? state(0, s - 1, b, i) : save(s, b, i, phase.operand);
            r_.dw_hh[row * H + i] += g * factor;
            operand[i] += g * p_.w_hh[row * H + i];
          }
          r_.db_hh[row] += g;
        }
      }
    }
  }

  template <int P>
  void backward_phase(int64_t s, int64_t b, std::vector<Numbers>& carry, const Numbers& operand,
                      Numbers& gradient) {
    for (int64_t j = 0; j < H; ++j) {
      double previous[states], next[states], state_gradient[states], share_gradient[shares];
      for (int i = 0; i < states; ++i) {
        previous[i] = state(i, s - 1, b, j);
        next[i] = state(i, s, b, j);
        state_gradient[i] = carry[i][j];
      }
      for (int k = 0; k < shares; ++k) share_gradient[k] = gradient[k * H + j];
      Cell::template backward<P>(&save(s, b, j, 0), previous, next, operand[j], state_gradient,
                                 share_gradient);
      for (int k = 0; k < shares; ++k) gradient[k * H + j] = share_gradient[k];
      for (int i = 0; i < states; ++i) carry[i][j] = state_gradient[i];
    }
    Numbers below(H, 0.0);
    spread<P>(s, b, gradient, below);
    if constexpr (P > 0) {
      backward_phase<P - 1>(s, b, carry, below, gradient);
    } else {
      for (int64_t j = 0; j < H; ++j) carry[0][j] += below[j];
    }
  }

  void backward() {
    r_.dx.assign(T * B * I, 0.0);
    r_.dw_ih.assign(Cell::gates * H * I, 0.0);
    r_.dw_hh.assign(Cell::gates * H * H, 0.0);
    r_.db_ih.assign(Cell::gates * H, 0.0);
    r_.db_hh.assign(Cell::gates * H, 0.0);
    r_.dstates.assign(states, Numbers(B * H));
    for (int64_t b = 0; b < B; ++b) {
      std::vector<Numbers> carry(states, Numbers(H));
      for (int i = 0; i < states; ++i) {
        for (int64_t j = 0; j < H; ++j) carry[i][j] = p_.last_gradient[i][b * H + j];
      }
      for (int64_t s = T - 1; s >= 0; --s) {
        for (int64_t j = 0; j < H; ++j) carry[0][j] += p_.y_gradient[(time(s) * B + b) * H + j];
        Numbers gradient(shares * H, 0.0);
        backward_phase<Cell::phases - 1>(s, b, carry, Numbers(H, 0.0), gradient);
      }
      for (int i = 0; i < states; ++i) {
        for (int64_t j = 0; j < H; ++j) r_.dstates[i][b * H + j] = carry[i][j];
      }
    }
  }

  const Problem& p_;
  const int64_t T, B, I, H;
  Numbers history_, saves_;
  Result r_;
};

}  // namespace rnncells::scalar
