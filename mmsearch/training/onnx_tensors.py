"""Weights out of an ONNX graph whose tensors are stored as int8 or fp16, under the names of the torch modules.

The graphs are those that ``builtin_export`` writes: each narrow tensor is widened by nodes with constant inputs,
so working those out gives the tensor. The exporter keeps the names of parameters but for two: a bias that came
from a batch norm is ``X.weight_bias``, and the matrix of a linear layer has no name, only its bias has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def read_tensors(path: Path) -> dict[str, Array]:
    """Every parameter of the graph as fp32, by its torch name; matrices of linear layers are (out, in)."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    known: dict[str, Array] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        inputs = [known[name] for name in node.input if name in known]
        if len(inputs) == len(node.input) and (value := _widened(node.op_type, inputs)) is not None:
            known[node.output[0]] = value
    if "words.int8" in known:
        known["words.weight"] = known["words.int8"].astype(np.float32) * known["words.scale"]
    known.update(_linear_matrices(graph, known))
    renamed = {name.replace(".weight_bias", ".bias"): value for name, value in known.items()}
    return {name: value.astype(np.float32) for name, value in renamed.items() if value.dtype.kind == "f"}


def _widened(operator: str, inputs: list[Array]) -> Array | None:
    if operator == "Cast" and inputs[0].dtype in (np.int8, np.float16):
        return inputs[0].astype(np.float32)
    if operator == "Mul":
        return np.asarray(inputs[0] * inputs[1])
    if operator == "Reshape":
        return np.reshape(inputs[0], inputs[1])
    return None


def _linear_matrices(graph: Any, known: dict[str, Array]) -> dict[str, Array]:
    """``X.weight`` for each ``MatMul`` by a constant whose product is then added to ``X.bias``."""
    products = {n.output[0]: n.input[1] for n in graph.node if n.op_type == "MatMul" and n.input[1] in known}
    found = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        matrix = next((products[name] for name in node.input if name in products), None)
        bias = next((name for name in node.input if name.endswith(".bias") and name in known), None)
        if matrix is not None and bias is not None:
            found[bias.removesuffix("bias") + "weight"] = np.ascontiguousarray(known[matrix].T)
    return found
