// Activations that a caller may choose. By itself, as what includes it may be compiled for any
// machine.
#pragma once

namespace rnncells {

enum class Activation : int { tanh, relu, sigmoid, hard_sigmoid, silu, softsign, identity };
constexpr int activation_count = 7;

struct ActivationChoice {
  Activation of_candidate, of_gate;
};
constexpr ActivationChoice usual_activations = {Activation::tanh, Activation::sigmoid};

}  // namespace rnncells
