"""A module of torch to a graph of ONNX."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def write_graph(
    module: torch.nn.Module,
    example: Sequence[torch.Tensor],
    path: Path,
    *,
    inputs: Sequence[str],
    dynamic: Sequence[Mapping[int, tuple[int, int]]],
) -> None:
    """Writes ``module``, whose one output is called ``rows``, to ``path`` with the weights in a file beside it.

    ``dynamic``: for each input, the axes of any length, with the least and the greatest. ``example`` must have lengths
    there that no fixed one of the model equals by chance.
    """
    import torch

    dimensions: dict[tuple[int, int, int], Any] = {}
    shapes = []
    for axes in dynamic:
        shape = {}
        for axis, (least, most) in axes.items():
            key = (axis, least, most)  # one name for what is equally long in several inputs
            dimensions.setdefault(key, torch.export.Dim(f"axis_{axis}", min=least, max=most))
            shape[axis] = dimensions[key]
        shapes.append(shape)
    with quiet_exporter(), torch.no_grad():
        torch.onnx.export(
            module.eval(), tuple(example), str(path), dynamo=True, verbose=False, dynamic_shapes=tuple(shapes),
            input_names=list(inputs), output_names=["rows"], external_data=True,
        )  # fmt: skip


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """The exporter warns and logs of its own inner workings; none of it is for a user of a search engine."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch.__trace")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
