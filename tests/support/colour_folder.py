"""A folder of the built-in layout whose towers know colours: small graphs, the real loading code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from tests.support.colours import COLOURS

NAMES = list(COLOURS)[:6]
SIZE = 12
DIGEST = "d" * 64


def save_encoder(
    folder: Path, image: Any, text: Any, image_outputs: Sequence[str], text_outputs: Sequence[str]
) -> Path:
    """Writes torch modules as the towers of an encoder of three dimensions that knows the words `NAMES`."""
    import onnx
    import torch

    from mmsearch.training.builtin_export import _axis, export_graph

    n, length = _axis("n", 1, 64), _axis("length", 2, 16)
    pixels = torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8)
    onnx.save(export_graph(image, (pixels,), ["pixels"], list(image_outputs), ({0: n},)), folder / "image.onnx")
    ids = torch.ones(2, 5, dtype=torch.int64)
    axes = ({0: n, 1: length}, {0: n, 1: length})
    inputs = ["input_ids", "attention_mask"]
    onnx.save(export_graph(text, (ids, torch.ones_like(ids)), inputs, list(text_outputs), axes), folder / "text.onnx")
    words = {word: number for number, word in enumerate(["<unk>", "<pad>", *NAMES])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    description = {
        "format": 1, "name": "colours", "digest": DIGEST, "digest_files": [], "dim": 3, "score_type": "cosine",
        "image": {"file": "image.onnx", "size": SIZE, "zoom": 1.0, "crop": 0.0},
        "text": {"file": "text.onnx", "tokenizer": "tokenizer.json", "max_tokens": 16},
    }  # fmt: skip
    (folder / "encoder.json").write_text(json.dumps(description))
    return folder
