// Which rows of the series a time step has.
#pragma once

#include "cuda/engine.h"
#include "cuda/values.cuh"

namespace rnncells::gpu {

class Steps {
 public:
  RNNCELLS_DEVICE explicit Steps(const Timeline& time)
      : time_(time), lengths_(time.lengths), offsets_(time.offsets) {}

  // The time step that is visited as number s, and those visited before and after step t.
  RNNCELLS_DEVICE int64_t at(int64_t s) const { return time_.reverse ? time_.steps - 1 - s : s; }
  RNNCELLS_DEVICE int64_t before(int64_t t) const { return time_.reverse ? t + 1 : t - 1; }
  RNNCELLS_DEVICE int64_t after(int64_t t) const { return time_.reverse ? t - 1 : t + 1; }

  RNNCELLS_DEVICE int64_t length(int64_t sequence) const {
    return time_.lengths == nullptr ? time_.steps : read(lengths_, sequence);
  }
  RNNCELLS_DEVICE bool packed() const { return time_.offsets != nullptr; }
  RNNCELLS_DEVICE int64_t row(int64_t t, int64_t sequence) const {
    return (packed() ? read(offsets_, t) : t * time_.batch) + sequence;
  }
  // Where y's gradient has it, which may have any strides.
  RNNCELLS_DEVICE int64_t place(int64_t t, int64_t sequence, int64_t step_stride,
                                int64_t row_stride) const {
    return packed() ? row(t, sequence) * row_stride : t * step_stride + sequence * row_stride;
  }

 private:
  const Timeline& time_;
  const Global<const int64_t> lengths_, offsets_;
};

}  // namespace rnncells::gpu
