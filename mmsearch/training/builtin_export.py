"""Writes trained encoders as a folder of the built-in layout, which ``mmsearch index --model DIR`` takes.

The layout is that of ``mmsearch/models/encoders/builtin.py`` with ``joint_shares`` more in ``encoder.json``: the shares
of the learned space in the vectors of captions and of names. The image graph also gives ``logits`` and ``grid``,
the text graph ``tokens``, which a reranker reads.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmsearch.training.onnx_weights import narrow_convolutions, narrow_matrices, narrow_words, store_half

if TYPE_CHECKING:
    import onnx

    from mmsearch.training.builtin_model import BuiltinModel

IMAGE_FILE, TEXT_FILE, TOKENIZER_FILE = "image.onnx", "text.onnx", "tokenizer.json"


def export_builtin(network: BuiltinModel, directory: Path) -> None:
    """Writes the graphs, the tokenizer and the description of ``network`` into ``directory``."""
    import onnx

    source = json.loads((network.directory / "encoder.json").read_text(encoding="utf-8"))
    image = export_graph(
        copy.deepcopy(network.image).cpu(),
        (torch.randint(0, 256, (2, network.image_size, network.image_size, 3), dtype=torch.uint8),),
        ["pixels"],
        ["vector", "logits", "grid"],
        ({0: _axis("n", 1, 4096)},),
    )
    narrow_convolutions(image)
    store_half(image)
    length = len(network.text.positions)
    n, tokens = _axis("n", 1, 4096), _axis("length", 2, length)
    ids = torch.randint(1, 1000, (2, 9))
    text = export_graph(
        copy.deepcopy(network.text).cpu(),
        (ids, torch.ones_like(ids)),
        ["input_ids", "attention_mask"],
        ["vector", "tokens"],
        ({0: n, 1: tokens}, {0: n, 1: tokens}),
    )
    narrow_words(text, "words.weight")
    narrow_matrices(text)
    narrow_convolutions(text)
    store_half(text)
    onnx.save(image, str(directory / IMAGE_FILE))
    onnx.save(text, str(directory / TEXT_FILE))
    for old, new in ((source["text"]["tokenizer"], TOKENIZER_FILE), ("classes.tsv", "classes.tsv")):
        path = network.directory / old
        if path.is_file() and path.resolve() != (directory / new).resolve():
            shutil.copyfile(path, directory / new)
    _write_description(directory, source, network)


def export_graph(
    module: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str], axes: tuple[Any, ...]
) -> onnx.ModelProto:
    """A module as an ONNX graph with free axes, without the exporter's traces of this machine."""
    module.eval().requires_grad_(False)
    with _quiet():
        program = torch.onnx.export(
            module,
            example,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=axes,
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model: Any = program.model_proto
    model.graph.ClearField("value_info")
    model.graph.ClearField("metadata_props")
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    return model  # type: ignore[no-any-return]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints, logs and warns about itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _axis(name: str, smallest: int, largest: int) -> Any:
    return torch.export.Dim(name, min=smallest, max=largest)


def _write_description(directory: Path, source: dict[str, Any], network: BuiltinModel) -> None:
    files = (IMAGE_FILE, TEXT_FILE, TOKENIZER_FILE)
    digest = hashlib.sha256()
    for name in files:
        digest.update((directory / name).read_bytes())
    joint = network.image.head.straight.out_features
    # The multilingual encoder and what names know were learned for the space of the weights that were; the same
    # holds for the graph in int8.
    kept = {name: value for name, value in source.items() if name not in ("multilingual", "names")}
    description = {
        **kept,
        "digest": digest.hexdigest(),
        "digest_files": list(files),
        "dim": joint + network.image.classes.shape[1],
        "joint_shares": list(network.text.shares),
        "image": {name: value for name, value in source["image"].items() if name != "int8"} | {"file": IMAGE_FILE},
        "text": {**source["text"], "file": TEXT_FILE, "tokenizer": TOKENIZER_FILE},
    }
    (directory / "encoder.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
