// Sequences of unequal lengths: from padded [T, B, ...] to packed rows and back.
//
// Packed, the sequences are sorted, the longest first, and the rows of each time step follow each
// other, those of the sequences that are so long: the layout of torch's PackedSequence.
#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>

#include "tensors.h"

namespace rnncells {

struct Ragged {
  std::vector<int64_t> counts;   // [longest]: the rows of each time step
  int64_t rows = 0;              // of all time steps
  std::vector<int64_t> lengths;  // [B], by sequence; empty where the rows are given packed
  std::vector<int64_t> order;    // [B]: the sequence that stands at each place
  std::vector<int64_t> place;    // [B]: where each sequence stands

  bool padded() const { return !order.empty(); }

  // lengths: int64 [B], each from 1 to `steps`. None where all are `steps`.
  static std::optional<Ragged> from_lengths(const Tensor& lengths, int64_t steps, int64_t batch) {
    check("lengths", lengths);
    RNNCELLS_REQUIRE(lengths.size(0) == batch, "lengths must have one entry for each of the ",
                     batch, " sequences, got ", lengths.size(0));
    const Tensor values = as_contiguous(lengths);
    const int64_t* length = data<int64_t>(values);
    Ragged ragged;
    ragged.lengths.assign(length, length + batch);
    bool equal = true;
    for (const int64_t value : ragged.lengths) {
      RNNCELLS_REQUIRE(value >= 1 && value <= steps, "lengths must be from 1 to ", steps,
                       ", the number of time steps, got ", value);
      equal = equal && value == steps;
    }
    if (equal) return std::nullopt;
    ragged.order.resize(batch);
    std::iota(ragged.order.begin(), ragged.order.end(), 0);
    std::stable_sort(ragged.order.begin(), ragged.order.end(),
                     [&](int64_t a, int64_t b) { return length[a] > length[b]; });
    ragged.place.resize(batch);
    for (int64_t i = 0; i < batch; ++i) ragged.place[ragged.order[i]] = i;
    ragged.counts.assign(length[ragged.order[0]], 0);
    for (int64_t t = 0, count = batch; t < static_cast<int64_t>(ragged.counts.size()); ++t) {
      while (length[ragged.order[count - 1]] <= t) --count;
      ragged.counts[t] = count;
      ragged.rows += count;
    }
    return ragged;
  }

  // batch_sizes: int64 [T], above zero and not growing, `rows` in all.
  static Ragged from_batch_sizes(const Tensor& batch_sizes, int64_t rows) {
    check("batch_sizes", batch_sizes);
    const Tensor values = as_contiguous(batch_sizes);
    const int64_t* count = data<int64_t>(values);
    Ragged ragged;
    ragged.counts.assign(count, count + batch_sizes.size(0));
    for (size_t t = 0; t < ragged.counts.size(); ++t) {
      RNNCELLS_REQUIRE(ragged.counts[t] > 0, "batch_sizes must be above zero, got ",
                       ragged.counts[t]);
      RNNCELLS_REQUIRE(t == 0 || ragged.counts[t] <= ragged.counts[t - 1],
                       "batch_sizes must not grow, got ", ragged.counts[t], " after ",
                       ragged.counts[t - 1]);
      ragged.rows += ragged.counts[t];
    }
    RNNCELLS_REQUIRE(ragged.rows == rows, "batch_sizes must sum to the ", rows,
                     " rows of the input, got ", ragged.rows);
    return ragged;
  }

  // [T, B, C] of any strides to [rows, C].
  Tensor pack(const Tensor& padded) const {
    const bool dense = padded.stride(2) == 1 || padded.size(2) == 1;
    const Tensor source = dense ? padded : torch::stable::contiguous(padded);
    const Tensor result = empty({rows, source.size(2)}, source.scalar_type());
    const int64_t item = source.element_size(), row_bytes = source.size(2) * item;
    const char* from = data<char>(source);
    char* to = mutable_data<char>(result);
    for (size_t t = 0; t < counts.size(); ++t) {
      const char* step = from + static_cast<int64_t>(t) * source.stride(0) * item;
      for (int64_t i = 0; i < counts[t]; ++i, to += row_bytes) {
        std::memcpy(to, step + order[i] * source.stride(1) * item, row_bytes);
      }
    }
    return result;
  }

  // [rows, C] to [steps, B, C], with zeros behind each sequence's end.
  Tensor pad(const Tensor& packed, int64_t steps) const {
    const auto batch = static_cast<int64_t>(order.size());
    const Tensor result = empty({steps, batch, packed.size(1)}, packed.scalar_type());
    const int64_t row_bytes = packed.size(1) * packed.element_size();
    const char* from = data<char>(packed);
    char* to = mutable_data<char>(result);
    for (int64_t t = 0; t < steps; ++t) {
      for (int64_t b = 0; b < batch; ++b, to += row_bytes) {
        if (t < lengths[b]) {
          std::memcpy(to, from + place[b] * row_bytes, row_bytes);
        } else {
          std::memset(to, 0, row_bytes);
        }
      }
      if (t < static_cast<int64_t>(counts.size())) from += counts[t] * row_bytes;
    }
    return result;
  }

  // The sequences of [D, B, C], contiguous, in the order of the rows; and back.
  Tensor sorted(const Tensor& states) const { return reordered(states, order); }
  Tensor unsorted(const Tensor& states) const { return reordered(states, place); }

 private:
  static void check(const char* name, const Tensor& tensor) {
    RNNCELLS_REQUIRE(tensor.is_cpu(), name, " must be on the CPU");
    RNNCELLS_REQUIRE(tensor.scalar_type() == ScalarType::Long, name, " must be int64, got ",
                     torch::headeronly::toString(tensor.scalar_type()));
    RNNCELLS_REQUIRE(tensor.dim() == 1, name, " must have one dimension, got ",
                     text(sizes_of(tensor)));
  }

  static Tensor reordered(const Tensor& states, const std::vector<int64_t>& from) {
    const Tensor result = empty(sizes_of(states), states.scalar_type());
    const int64_t row_bytes = states.size(2) * states.element_size(), batch = states.size(1);
    const char* source = data<char>(states);
    char* target = mutable_data<char>(result);
    for (int64_t d = 0; d < states.size(0); ++d) {
      for (int64_t i = 0; i < batch; ++i, target += row_bytes) {
        std::memcpy(target, source + (d * batch + from[i]) * row_bytes, row_bytes);
      }
    }
    return result;
  }
};

}  // namespace rnncells
