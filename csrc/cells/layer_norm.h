// What both engines know of layer norm (Ba, Kiros and Hinton 2016). By itself, as what includes it
// may be compiled for any machine.
#pragma once

namespace rnncells {

// `gates`: W_ih x and W_hh h are normalised apart, each over all gates' units, with a scale each;
// the biases are the shifts. `preactivation`: the sum that a gate's activation takes is normalised
// over its units, with a scale and a shift.
enum class Norm : int { none, gates, preactivation };

// Added to a variance.
constexpr double norm_epsilon = 1e-5;

}  // namespace rnncells
