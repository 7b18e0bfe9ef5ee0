// Philox 4x32-10 (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2,
// 3"): 128 random bits from a counter and a key. It has no state, so that a mask is never stored:
// forward, backward and recomputation draw it anew, on whatever device.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cells/host_device.h"

namespace rnncells {

// What is drawn; zoneout is followed by one purpose for each further state.
enum DrawPurpose : uint32_t { draw_recurrent_dropout = 0, draw_zoneout = 1 };

// N counters side by side, which differ in their first word.
template <int N>
struct PhiloxBlocks {
  uint32_t word[4][N];
};

template <int N>
RNNCELLS_INLINE PhiloxBlocks<N> philox(uint64_t key, uint32_t first, uint32_t second,
                                       uint32_t third, uint32_t fourth) {
  // Side by side, words take 64 bits each, so that a product needs no shuffle; nobody reads their
  // upper halves.
  using Word = std::conditional_t<N == 1, uint32_t, uint64_t>;
  Word word[4][N];
  for (int j = 0; j < N; ++j) {
    word[0][j] = first + static_cast<uint32_t>(j);
    word[1][j] = second;
    word[2][j] = third;
    word[3][j] = fourth;
  }
  auto low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  // Unrolled, or else it is not vectorised.
  RNNCELLS_UNROLL
  for (int round = 0; round < 10; ++round) {
    for (int j = 0; j < N; ++j) {
      const uint64_t a = uint64_t{0xD2511F53u} * static_cast<uint32_t>(word[0][j]);
      const uint64_t b = uint64_t{0xCD9E8D57u} * static_cast<uint32_t>(word[2][j]);
      word[0][j] = static_cast<Word>(b >> 32) ^ word[1][j] ^ low;
      word[2][j] = static_cast<Word>(a >> 32) ^ word[3][j] ^ high;
      word[1][j] = static_cast<Word>(b);
      word[3][j] = static_cast<Word>(a);
    }
    low += 0x9E3779B9u;
    high += 0xBB67AE85u;
  }
  PhiloxBlocks<N> x;
  for (int w = 0; w < 4; ++w) {
    for (int j = 0; j < N; ++j) x.word[w][j] = static_cast<uint32_t>(word[w][j]);
  }
  return x;
}

// A row's values come in groups of 64: value 64 g + 16 w + j is word w of the counter whose first
// word is 16 g + j.
constexpr int draw_counters = 16, draw_group = 4 * draw_counters;

// The event of probability `rate` happens where the 32 bits are below this.
RNNCELLS_INLINE uint32_t draw_threshold(double rate) {
  return static_cast<uint32_t>(rate * 4294967296.0);
}

}  // namespace rnncells
