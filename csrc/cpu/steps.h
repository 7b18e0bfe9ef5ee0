// Which rows (sequences) each time step has, in which order the steps are visited, and how the work
// is split over threads.
#pragma once

#include "cpu/engine.h"
#include "cpu/memory.h"

namespace rnncells {
namespace RNNCELLS_ISA {

// The rows of one series at one time step, evenly apart.
template <class T>
struct Rows {
  T* base;
  int64_t stride;
  RNNCELLS_INLINE T* operator[](int64_t row) const { return base + row * stride; }
};

// The same in a series of the caller's: its rows, or those that `order` names.
template <class T>
struct OrderedRows {
  T* base;
  int64_t stride;
  const int64_t* order;
  OrderedRows() = default;
  RNNCELLS_INLINE OrderedRows(T* first, int64_t distance, const int64_t* rows)
      : base(first), stride(distance), order(rows) {}
  template <class U>
  RNNCELLS_INLINE OrderedRows(const Rows<U>& rows) : OrderedRows(rows.base, rows.stride, nullptr) {}
  template <class U>
  RNNCELLS_INLINE OrderedRows(const OrderedRows<U>& rows)
      : OrderedRows(rows.base, rows.stride, rows.order) {}
  RNNCELLS_INLINE T* operator[](int64_t row) const {
    return base + (order == nullptr ? row : order[row]) * stride;
  }
};

class TimeSteps {
 public:
  TimeSteps(const Sizes& sizes, const int64_t* row_counts, const int64_t* order, bool reverse)
      : steps_(sizes.steps),
        batch_(sizes.batch),
        counts_(row_counts),
        order_(order),
        reverse_(reverse),
        offsets_(row_counts == nullptr ? 0 : sizes.steps + 1) {
    if (counts_ == nullptr) return;
    int64_t rows = 0;
    for (int64_t t = 0; t < steps_; ++t) {
      offsets_.get()[t] = rows;
      rows += counts_[t];
    }
    offsets_.get()[steps_] = rows;
  }

  // Whether the steps have unequal numbers of rows; and whether x and y are padded all the same.
  RNNCELLS_INLINE bool ragged() const { return counts_ != nullptr; }
  RNNCELLS_INLINE bool padded() const { return order_ != nullptr; }
  // The time step that is visited as number s, and the ones visited before and after step t.
  RNNCELLS_INLINE int64_t at(int64_t s) const { return reverse_ ? steps_ - 1 - s : s; }
  RNNCELLS_INLINE int64_t before(int64_t t) const { return reverse_ ? t + 1 : t - 1; }
  RNNCELLS_INLINE int64_t after(int64_t t) const { return reverse_ ? t - 1 : t + 1; }

  // Step t's rows; none where t is no time step.
  RNNCELLS_INLINE int64_t rows(int64_t t) const {
    if (t < 0 || t >= steps_) return 0;
    return ragged() ? counts_[t] : batch_;
  }
  // The sequence, as the caller counts them, that row `row` of every step belongs to.
  RNNCELLS_INLINE int64_t sequence(int64_t row) const { return padded() ? order_[row] : row; }
  // How many of the rows [begin, end) step t has: the first ones.
  RNNCELLS_INLINE int64_t rows(int64_t t, int64_t begin, int64_t end) const {
    return larger(0, smaller(rows(t), end) - begin);
  }
  // The rows of all steps before t, up to t = T.
  RNNCELLS_INLINE int64_t offset(int64_t t) const {
    return ragged() ? offsets_.get()[t] : t * batch_;
  }

  // The rows of step t from `row` on, in a series that has one row after another.
  template <class T>
  RNNCELLS_INLINE Rows<T> rows_of(T* base, int64_t t, int64_t row, int64_t stride) const {
    return {base + (offset(t) + row) * stride, stride};
  }
  // The same in a series of the caller's.
  template <class T>
  RNNCELLS_INLINE OrderedRows<T> rows_of(T* base, int64_t t, int64_t row, int64_t step_stride,
                                         int64_t stride) const {
    if (padded()) return {base + t * step_stride, stride, order_ + row};
    if (ragged()) return rows_of(base, t, row, stride);
    return {base + t * step_stride + row * stride, stride, nullptr};
  }
  // The same in y, which may have room for two steps alone.
  template <class Call>
  RNNCELLS_INLINE auto output_rows(const Call& call, int64_t t, int64_t row) const {
    if (!call.two_steps) return rows_of(call.y, t, row, call.y_step_stride, call.y_batch_stride);
    const auto base = call.y + t % 2 * call.y_step_stride;
    if (padded()) return OrderedRows(base, call.y_batch_stride, order_ + row);
    return OrderedRows(base + row * call.y_batch_stride, call.y_batch_stride, nullptr);
  }
  // The rows of a state of the caller's [B, width] from `row` on.
  template <class T>
  RNNCELLS_INLINE OrderedRows<T> state_rows(T* base, int64_t row, int64_t width) const {
    if (padded()) return {base, width, order_ + row};
    return {base + row * width, width, nullptr};
  }

  // The first row of part `part` of `parts`, which have nearly equal numbers of time steps.
  int64_t boundary(int64_t part, int64_t parts) const {
    if (!ragged()) return batch_ * part / parts;
    const int64_t wanted = offset(steps_) * part / parts;
    int64_t row = 0, t = steps_;
    for (int64_t sum = 0; row < batch_; ++row) {
      while (counts_[t - 1] <= row) --t;  // t is now the length of this row's sequence
      if (sum + t / 2 >= wanted) break;
      sum += t;
    }
    return part == parts ? batch_ : row;
  }

 private:
  const int64_t steps_, batch_;
  const int64_t *counts_, *order_;
  const bool reverse_;
  Buffer<int64_t> offsets_;
};

// Runs body(begin, end) over [0, n), on the pool's threads if the work (multiply-adds) is worth
// it.
template <class Body>
RNNCELLS_INLINE void in_parallel(const Pool& pool, int64_t n, int64_t work, const Body& body) {
  if (pool.threads <= 1 || n <= 1 || work < pool.least_work) {
    body(0, n);
    return;
  }
  pool.run(
      n,
      [](int64_t begin, int64_t end, void* context) {
        (*static_cast<const Body*>(context))(begin, end);
      },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// The same over the rows of the batch, split so that the threads have as many time steps each.
template <class Body>
RNNCELLS_INLINE void in_parallel_rows(const TimeSteps& steps, const Pool& pool, int64_t work,
                                      const Body& body) {
  const int64_t batch = steps.rows(0), parts = smaller(pool.threads, batch);
  if (parts <= 1 || work < pool.least_work) {
    body(0, batch);
    return;
  }
  in_parallel(pool, parts, work, [&](int64_t first, int64_t last) {
    const int64_t begin = steps.boundary(first, parts), end = steps.boundary(last, parts);
    if (begin < end) body(begin, end);
  });
}

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
