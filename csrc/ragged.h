// Sequences of unequal lengths: what the engine has to know of lengths, or of packed rows.
#pragma once

#include <algorithm>
#include <numeric>
#include <optional>

#include "tensors.h"

namespace rnncells {

struct Ragged {
  std::vector<int64_t> counts;  // [T]: the rows of each time step, the longest sequence first
  int64_t rows = 0;             // of all time steps
  std::vector<int64_t> order;   // [B]: the sequence of each row; empty where rows come packed

  // lengths: int64 [B], each from 1 to `steps`. None where all are `steps`.
  static std::optional<Ragged> from_lengths(const Tensor& lengths, int64_t steps, int64_t batch) {
    RNNCELLS_REQUIRE(lengths.is_cpu(), "lengths must be on the CPU");
    check_lengths(lengths, batch);
    const Tensor values = as_contiguous(lengths);
    const int64_t* length = data<int64_t>(values);
    bool equal = true;
    for (int64_t b = 0; b < batch; ++b) {
      RNNCELLS_REQUIRE(length[b] >= 1 && length[b] <= steps, "lengths must be from 1 to ", steps,
                       ", the number of time steps, got ", length[b]);
      equal = equal && length[b] == steps;
    }
    if (equal) return std::nullopt;
    Ragged ragged;
    ragged.order.resize(batch);
    std::iota(ragged.order.begin(), ragged.order.end(), 0);
    std::stable_sort(ragged.order.begin(), ragged.order.end(),
                     [&](int64_t a, int64_t b) { return length[a] > length[b]; });
    for (int64_t t = 0, count = batch; t < steps; ++t) {
      while (count > 0 && length[ragged.order[count - 1]] <= t) --count;
      ragged.counts.push_back(count);
      ragged.rows += count;
    }
    return ragged;
  }

  // Their dtype and number.
  static void check_lengths(const Tensor& lengths, int64_t batch) {
    check("lengths", lengths);
    RNNCELLS_REQUIRE(lengths.size(0) == batch, "lengths must have one entry for each of the ",
                     batch, " sequences, got ", lengths.size(0));
  }

  // batch_sizes: int64 [T], above zero and not growing, `rows` in all.
  static Ragged from_batch_sizes(const Tensor& batch_sizes, int64_t rows) {
    RNNCELLS_REQUIRE(batch_sizes.is_cpu(), "batch_sizes must be on the CPU");
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

 private:
  static void check(const char* name, const Tensor& tensor) {
    RNNCELLS_REQUIRE(tensor.scalar_type() == ScalarType::Long, name, " must be int64, got ",
                     torch::headeronly::toString(tensor.scalar_type()));
    RNNCELLS_REQUIRE(tensor.dim() == 1, name, " must have one dimension, got ",
                     text(sizes_of(tensor)));
  }
};

}  // namespace rnncells
