// The 16-bit types as bits: what a tensor of torch's half or bfloat16 holds.
#pragma once

#include <cstdint>

namespace rnncells {

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The type that values stored as S are computed in.
template <class S>
struct ComputeOf {
  using type = S;
};
template <>
struct ComputeOf<Float16> {
  using type = float;
};
template <>
struct ComputeOf<BFloat16> {
  using type = float;
};
template <class S>
using Compute = typename ComputeOf<S>::type;

}  // namespace rnncells
