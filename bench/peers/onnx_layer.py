"""One recurrent layer in ONNX Runtime: a graph of ONNX's RNN, LSTM or GRU node alone.

The weights are constants of the graph, as in an exported model, so that the session packs them
once, where torch.nn and we read them afresh at each call.
"""

from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from bench.peers import LayerRun

# ONNX's gates by their numbers in torch.nn: LSTM i o f g of i f g o, GRU z r n of r z n.
ORDER = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
OPSET, IR_VERSION = 17, 8


def make_model(cell: str, state: dict[str, Tensor]) -> bytes:
    """Return the model of one node: x [T, B, I] in, y [T, 1, B, H] out."""

    def in_order(name: str) -> Tensor:
        chunks = state[name].chunk(len(ORDER[cell]))
        return torch.cat([chunks[gate] for gate in ORDER[cell]])

    weights = {
        "W": in_order("weight_ih_l0"),
        "R": in_order("weight_hh_l0"),
        "B": torch.cat([in_order("bias_ih_l0"), in_order("bias_hh_l0")]),
    }
    H, I = state["weight_hh_l0"].shape[1], state["weight_ih_l0"].shape[1]
    options: dict[str, Any] = {"linear_before_reset": 1} if cell == "gru" else {}
    node = helper.make_node(cell.upper(), ["x", *weights], ["y"], hidden_size=H, **options)
    graph = helper.make_graph(
        [node],
        cell,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", I])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 1, "B", H])],
        [numpy_helper.from_array(value[None].numpy(), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return model.SerializeToString()


def make(cell: str, layer: nn.Module, x: Tensor, dy: Tensor, training: bool) -> LayerRun:
    """Return the layer in a session with as many threads as torch's pool has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Its threads would go on looking for work, on the cores of whoever is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    model = make_model(cell, layer.state_dict())
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    given = {"x": x.numpy()}

    def call() -> np.ndarray:
        return session.run(["y"], given)[0]

    return LayerRun(call, lambda: {"y": torch.from_numpy(call()).squeeze(1)})
