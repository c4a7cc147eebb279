"""Makes `image_int8.onnx` beside the built-in weights: run it when `image.onnx` has changed.

    python scripts/quantise_builtin.py FOLDER [FOLDER ...]

100 photos of the FOLDERs, evenly spread, say how large the values between layers become (static quantisation, QDQ:
ONNX Runtime, "Quantize ONNX models"). Weights have a scale for each channel. The first convolution stays in float32:
it sees pixels through three channels, costs little, and alone makes a seventh of the error. What follows the mean
features, heads and classes, stays as it is, and its weights are not stored twice: they are read out of `image.onnx`, as
external data of ONNX. A value is quantised by scales that are fixed, so a vector does not depend on its batch.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder

PHOTOS, A_BATCH = 100, 10
FILE = "image_int8.onnx"
FEATURES, OUTPUTS = "mean", ["vector", "logits", "grid"]
"""Where the heads begin, and what the image graph gives."""
SHARED = 1024
"""Weights of so many bytes and more are read out of `image.onnx`."""


class Pictures(CalibrationDataReader):
    """Batches of pictures for the quantiser."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._batches = iter(np.split(pixels, range(A_BATCH, len(pixels), A_BATCH)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch."""
        batch = next(self._batches, None)
        return None if batch is None else {"pixels": batch}


def pictures(folders: list[Path]) -> np.ndarray:
    """(n, size, size, 3) of the photos to look at."""
    files = [file for folder in folders for file in sorted(folder.iterdir())]
    chosen = [files[place] for place in np.linspace(0, len(files) - 1, min(PHOTOS, len(files))).astype(int)]
    encoder = BuiltinEncoder()
    return np.stack([encoder.prepare_image(Image.open(file).convert("RGB")) for file in chosen])


def in_float32(graph: Path, target: Path) -> None:
    """The same graph with its weights widened."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def needed(graph: Any, outputs: Iterable[str], given: Iterable[str]) -> list[Any]:
    """The nodes that work ``outputs`` out from what is ``given``, in their order."""
    wanted, kept = set(outputs), []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input) - set(given)
    return kept[::-1]


def weights_of(graph: Any, nodes: list[Any]) -> Iterator[Any]:
    """The stored values that nodes read."""
    read = {name for node in nodes for name in node.input}
    return (tensor for tensor in graph.initializer if tensor.name in read)


def shared(tensor: Any, stored: bytes, name: str) -> Any:
    """A tensor of the file ``name``, which holds the bytes ``stored``, as a reference to its place there."""
    values = tensor.raw_data
    if len(values) < SHARED:
        return tensor
    place = stored.index(values)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", str(place)), ("length", str(len(values)))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def main(folders: list[Path]) -> None:
    """Quantises, writes the file and names it in ``encoder.json``."""
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser gives advice there
    source = SHIPPED_WEIGHTS / "image.onnx"
    with tempfile.TemporaryDirectory() as folder:
        wide, narrow = Path(folder) / "wide.onnx", Path(folder) / "narrow.onnx"
        in_float32(source, wide)
        first = next(node.name for node in onnx.load(str(wide)).graph.node if node.op_type == "Conv")
        quantize_static(
            str(wide), str(narrow), Pictures(pictures(folders)), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=["Conv", "Clip", "Add"], nodes_to_exclude=[first],
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        model, whole = onnx.load(str(narrow)), onnx.load(str(source))
    trunk, heads = needed(model.graph, [FEATURES, "grid"], ["pixels"]), needed(whole.graph, OUTPUTS[:2], [FEATURES])
    stored = [*weights_of(model.graph, trunk)]
    names = {tensor.name for tensor in stored} | {name for node in trunk for name in node.output}
    stored += [
        shared(tensor, source.read_bytes(), source.name)
        for tensor in weights_of(whole.graph, heads) if tensor.name not in names
    ]  # fmt: skip
    graph = onnx.helper.make_graph([*trunk, *heads], "image", whole.graph.input, whole.graph.output, stored)
    made = onnx.helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)
    (SHIPPED_WEIGHTS / FILE).write_bytes(made.SerializeToString())
    path = SHIPPED_WEIGHTS / "encoder.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    description["image"]["int8"] = FILE
    path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
