// What a call does besides the plain recurrence: masks on the recurrent product's operand, states
// that stay (zoneout), states that start anew (resets). All of it acts on whole rows, before and
// after the loops over panels, which know nothing of it.
#pragma once

#include "cells/masks.h"
#include "cpu/row_sums.h"
#include "cpu/steps.h"

namespace rnncells {
namespace RNNCELLS_ISA {

// Draws n values of one row, each `event` with probability `rate` or else `otherwise`.
template <class T>
RNNCELLS_OUT_OF_LINE void draw_row(const Variant& variant, uint32_t purpose, int64_t step,
                                   int64_t sequence, double rate, T event, T otherwise, int64_t n,
                                   T* out) {
  const uint32_t threshold = draw_threshold(rate);
  for (int64_t group = 0; group * draw_group < n; ++group) {
    const PhiloxBlocks<draw_counters> drawn = philox<draw_counters>(
        variant.seed, static_cast<uint32_t>(group * draw_counters), static_cast<uint32_t>(sequence),
        static_cast<uint32_t>(step), purpose + variant.stream * 16);
    const int64_t first = group * draw_group;
    for (int w = 0; w < 4; ++w) {
      const int64_t begin = first + w * draw_counters;
      const int64_t count = smaller(draw_counters, n - begin);
      for (int64_t j = 0; j < count; ++j) {
        out[begin + j] = drawn.word[w][j] < threshold ? event : otherwise;
      }
    }
  }
}

// The mask on h of one sequence, for all its time steps: 0 or 1 / (1 - rate).
template <class T>
RNNCELLS_OUT_OF_LINE void draw_recurrent_mask(const Variant& variant, int64_t sequence, int64_t n,
                                              T* out) {
  const double rate = variant.recurrent_dropout;
  draw_row(variant, draw_recurrent_dropout, 0, sequence, rate, T(0),
           static_cast<T>(dropout_scale(rate)), n, out);
}

// How much of state i stays in one step: 0 or 1, or, where nothing is drawn, what is expected.
template <class T>
RNNCELLS_OUT_OF_LINE void zoneout_row(const Variant& variant, int i, int64_t step, int64_t sequence,
                                      int64_t n, T* out) {
  const double rate = variant.zoneout[i];
  if (variant.draws) {
    draw_row(variant, draw_zoneout + i, step, sequence, rate, T(1), T(0), n, out);
  } else {
    for (int64_t j = 0; j < n; ++j) out[j] = static_cast<T>(rate);
  }
}

// out = a * b, rounded as it is stored.
template <class S>
RNNCELLS_OUT_OF_LINE void multiply_row(const S* a, const Compute<S>* b, int64_t n, S* out) {
  using V = Vec<Compute<S>>;
  int64_t j = 0;
  for (; j + V::lanes <= n; j += V::lanes) {
    store_vector(load_vector(a + j) * V::load(b + j), out + j);
  }
  const int left = static_cast<int>(n - j);
  if (left > 0) store_vector(load_vector(a + j, left) * V::load(b + j, left), out + j, left);
}

// out = what stays of `before` and the rest of `made`.
template <class S>
RNNCELLS_OUT_OF_LINE void mix_row(const S* before, const S* made, const Compute<S>* stays,
                                  int64_t n, S* out) {
  using T = Compute<S>;
  for (int64_t j = 0; j < n; ++j) {
    const T mixed = mix_states<T>(widen(before[j]), widen(made[j]), stays[j]);
    out[j] = narrow(mixed, S());
  }
}

// Whether the states of row `row` start anew before time step t. The mark of step t stands for the
// boundary between it and step t - 1, whoever walks over it.
RNNCELLS_INLINE bool starts_anew(const Variant& variant, const TimeSteps& steps, int64_t t,
                                 int64_t row) {
  if (variant.resets == nullptr) return false;
  const int64_t begin = larger(t, steps.before(t));
  return row < steps.rows(begin) &&
         variant.resets[(variant.first_time + begin) * variant.resets_step_stride +
                        steps.sequence(row) * variant.resets_batch_stride];
}

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
