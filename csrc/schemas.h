// The operators as torch knows them.
#pragma once

namespace rnncells {

constexpr const char* schemas[] = {
    "layer_forward(Tensor x, Tensor[] states, Tensor[] weights, Tensor? lengths, "
    "Tensor? batch_sizes, str cell, bool bidirectional, bool save, bool tidy=True, "
    "bool rowwise=False, bool recompute=False, Tensor? packed=None, str variant='', "
    "Tensor? seed=None, Tensor? resets=None) "
    "-> (Tensor y, Tensor[] last, Tensor reserve)",
    "layer_backward(Tensor? grad_y, Tensor[] grad_last, Tensor x, Tensor[] states, "
    "Tensor[] weights, Tensor? lengths, Tensor? batch_sizes, Tensor y, Tensor reserve, "
    "str cell, bool bidirectional, int[] needs, bool rowwise=False, bool recompute=False, "
    "str variant='', Tensor? seed=None, Tensor? resets=None) "
    "-> Tensor[]",
    "layer_pack(Tensor[] weights, str cell, bool bidirectional) -> Tensor",
    "layer_draw(Tensor seed, int purpose, int stream, SymInt[] sizes, float rate) -> Tensor"};

}  // namespace rnncells
