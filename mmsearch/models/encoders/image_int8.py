"""Exported image encoders in int8: about twice as fast where most of the work is matrices, and only if good enough.

Weights have a scale for each column, activations one for each picture, computed as it runs (dynamic quantisation:
ONNX Runtime, "Quantize ONNX models"). A picture is run alone, so that its vector does not depend on its batch, and
nothing is calibrated on pictures, so that a graph follows from the weights.

Trained transformers have outliers that may spoil it, so the first photos are encoded both ways, and int8 is taken
only if their vectors hardly differ. Vectors that pass may meet those in float32 in one index: the digest is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.system import usable_cores
from mmsearch.models.encoders.base import FloatArray
from mmsearch.models.encoders.exports import Exports, ModelFiles
from mmsearch.models.encoders.machine_plan import machine
from mmsearch.models.encoders.weights import add_to_json, cache_dir, read_json

INT8_EXPORTS = Exports("image_encoders_int8", "int8.json", "the image encoder in int8")
INT8_GRAPH = "int8.onnx"
PHOTOS = 64
LOWEST_MEAN, LOWEST_WORST, LOWEST_OVERLAP = 0.995, 0.98, 0.9
_NEAREST = 10
_VERDICTS = "int8_verdicts.json"


@dataclass(frozen=True)
class Verdict:
    """Vectors in int8 against those in float32, of ``PHOTOS`` photos: the mean and the lowest cosine, and how many
    of the ten nearest others of a photo stay the same, 0 to 1.
    """

    mean: float
    worst: float
    overlap: float

    @property
    def passed(self) -> bool:
        """Whether int8 is good enough."""
        return self.mean >= LOWEST_MEAN and self.worst >= LOWEST_WORST and self.overlap >= LOWEST_OVERLAP

    def describe(self) -> str:
        """For a line of the log."""
        return (
            f"cosine to float32 {self.mean:.4f} on average and {self.worst:.4f} at worst, {self.overlap:.0%} of the ten"
            f" nearest the same; at least {LOWEST_MEAN}, {LOWEST_WORST} and {LOWEST_OVERLAP:.0%} are expected"
        )


def compare(exact: FloatArray, narrow: FloatArray) -> Verdict:
    """(n, dim) rows of length 1 of the same photos, n of 12 or more."""
    cosines = (exact * narrow).sum(axis=1)
    near, near_too = (_nearest(rows) for rows in (exact, narrow))
    same = np.mean([len(np.intersect1d(one, other)) for one, other in zip(near, near_too, strict=True)])
    return Verdict(float(cosines.mean()), float(cosines.min()), float(same) / _NEAREST)


def kept_verdict(graph: Path) -> Verdict | None:
    """What `keep_verdict` kept of a graph on this machine."""
    kept = read_json(cache_dir() / _VERDICTS).get(_key(graph))
    try:
        return Verdict(**kept) if isinstance(kept, dict) else None
    except TypeError:
        return None


def keep_verdict(graph: Path, verdict: Verdict) -> None:
    """Keeps a verdict: another processor may round otherwise, so it counts for this one."""
    add_to_json(cache_dir() / _VERDICTS, _key(graph), asdict(verdict))


def int8_graph(model: ModelFiles, graph: Path) -> Path | None:
    """The graph of a model in int8, made of the one in float32 at the first call, in seconds; ``None``, with a line in
    the log, where that cannot be.
    """

    def write(directory: Path) -> dict[str, Any]:
        _quantise(graph, directory / INT8_GRAPH)
        return {"spec": {"digest": model.digest}}

    directory = INT8_EXPORTS.make(model, write)
    return None if directory is None else directory / INT8_GRAPH


def _quantise(graph: Path, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Without VNNI, two products are added in 16 bits, where seven bits a weight cannot overflow.
    narrow = "vnni" not in machine(1)
    with _quiet_quantiser():
        quantize_dynamic(
            str(graph), str(path), op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, reduce_range=narrow,
            weight_type=QuantType.QInt8, use_external_data_format=True,
        )  # fmt: skip


@contextmanager
def _quiet_quantiser() -> Iterator[None]:
    """It writes advice to the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _key(graph: Path) -> str:
    return f"{graph.parent.name} on {machine(usable_cores())}"


def _nearest(rows: FloatArray) -> npt.NDArray[np.int64]:
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -2)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :_NEAREST]
