"""Smaller ONNX files: weights are stored as int8 or fp16 and widened to fp32 when a session opens; and read back.

Only storage is narrow. The widening nodes have constant inputs, so onnxruntime folds them away at load and
then computes in fp32: a row never depends on its batch, and results do not depend on which int8 instructions
a processor has. The word table is the exception: it is gathered first, then the gathered rows are widened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmsearch.core.arrays import quantised

BLOCK = 32
"""Values of a matrix that share one scale, along the axis that is summed over."""


def narrow_words(model: onnx.ModelProto, name: str) -> None:
    """Stores the word table as int8 with one scale a word: Gather → Cast → Mul by the gathered scale."""
    graph = model.graph
    table = _take(model, name)
    steps, scale = quantised(table, axis=1, smallest=1e-9)
    _give(model, "words.int8", steps)
    _give(model, "words.scale", scale)
    [gather] = [node for node in graph.node if node.op_type == "Gather" and node.input[0] == name]
    at, ids = list(graph.node).index(gather), gather.input[1]
    graph.node.remove(gather)
    nodes = [
        helper.make_node("Gather", ["words.int8", ids], ["words.rows"]),
        helper.make_node("Cast", ["words.rows"], ["words.wide"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["words.scale", ids], ["words.scales"]),
        helper.make_node("Mul", ["words.wide", "words.scales"], [gather.output[0]]),
    ]
    for i, node in enumerate(nodes):
        graph.node.insert(at + i, node)


def narrow_matrices(model: onnx.ModelProto) -> None:
    """Stores the right side of each MatMul, (in, out), as int8 with one scale a column and 32 rows."""
    stored = {tensor.name for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type == "MatMul" and node.input[1] in stored:
            matrix = _take(model, node.input[1])
            _store_int8(model, node.input[1], matrix.reshape(-1, BLOCK, matrix.shape[1]), 1, matrix.shape)


def narrow_convolutions(model: onnx.ModelProto, smallest: int = 5000) -> None:
    """Stores kernels of convolutions and the classifier, (out, in, ...), as int8 with up to 32 values a scale."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type in ("Conv", "Gemm") and sizes.get(node.input[1], 0) >= smallest:
            kernel = _take(model, node.input[1])
            summed = kernel[0].size
            block = max(size for size in range(1, BLOCK + 1) if summed % size == 0)
            _store_int8(model, node.input[1], kernel.reshape(len(kernel), -1, block), 2, kernel.shape)


def store_half(model: onnx.ModelProto, smallest: int = 1000) -> None:
    """Stores every other fp32 tensor of at least ``smallest`` values as fp16."""
    for tensor in list(model.graph.initializer):
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= smallest:
            if tensor.name == "words.scale":  # gathered, so it would be widened at every run
                continue
            values = _take(model, tensor.name)
            _give(model, f"{tensor.name}.fp16", values.astype(np.float16))
            _widen(model, f"{tensor.name}.fp16", tensor.name)


def _store_int8(model: onnx.ModelProto, name: str, blocks: np.ndarray, axis: int, shape: tuple[int, ...]) -> None:
    """``name`` becomes Reshape(Cast(int8) * scale), one scale for all values along ``axis`` of blocks."""
    # Scales are rounded to fp16 first, so that the int8 values are the best for the scale that is used.
    values, scale = quantised(blocks, axis=axis, smallest=1e-6, dtype=np.float16)
    _give(model, f"{name}.int8", values)
    _give(model, f"{name}.scale", scale)
    _give(model, f"{name}.shape", np.array(shape, dtype=np.int64))
    nodes = [
        helper.make_node("Cast", [f"{name}.int8"], [f"{name}.wide"], to=TensorProto.FLOAT),
        helper.make_node("Cast", [f"{name}.scale"], [f"{name}.widescale"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}.wide", f"{name}.widescale"], [f"{name}.blocks"]),
        helper.make_node("Reshape", [f"{name}.blocks", f"{name}.shape"], [name]),
    ]
    for i, node in enumerate(nodes):
        model.graph.node.insert(i, node)


def _widen(model: onnx.ModelProto, name: str, wide: str) -> None:
    model.graph.node.insert(0, helper.make_node("Cast", [name], [wide], to=TensorProto.FLOAT))


def _take(model: onnx.ModelProto, name: str) -> np.ndarray:
    [tensor] = [tensor for tensor in model.graph.initializer if tensor.name == name]
    model.graph.initializer.remove(tensor)
    return numpy_helper.to_array(tensor)


def _give(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))


Array = npt.NDArray[Any]


def read_tensors(path: Path) -> dict[str, Array]:
    """Every parameter of a graph that ``builtin_export`` wrote as fp32, by its torch name; matrices of linear layers
    are (out, in).

    Each narrow tensor is widened by nodes with constant inputs, so working those out gives the tensor. The exporter
    keeps the names of parameters but for two: a bias that came from a batch norm is ``X.weight_bias``, and the matrix
    of a linear layer has no name, only its bias has.
    """
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
