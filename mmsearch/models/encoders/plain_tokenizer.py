"""The fast tokenizers of transformers, without transformers: its import takes a second and may bring torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from mmsearch.models.encoders.tokenizer import TextTokenizer, TokenArray


class PlainTokenizer(TextTokenizer):
    """A ``tokenizer.json`` that frames and cuts by itself. ``lower``: small letters only."""

    kind = "plain"

    def __init__(
        self, tokenizer: Tokenizer, context_length: int, pad_id: int, lower: bool, pad_left: bool = False
    ) -> None:
        self.context_length, self._pad_id, self._lower, self._pad_left = context_length, pad_id, lower, pad_left
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._whole = tokenizer
        self._cutting = Tokenizer.from_str(tokenizer.to_str())
        self._cutting.enable_truncation(context_length)

    @classmethod
    def of_transformers(cls, tokenizer: Any, context_length: int, *, lower: bool) -> PlainTokenizer | None:
        """From a tokenizer of transformers; ``None`` where it is a slow one, or one that cuts on the left."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or tokenizer.truncation_side != "right":
            return None
        pad_id = tokenizer.pad_token_id
        return cls(
            Tokenizer.from_str(backend.to_str()),
            context_length,
            0 if pad_id is None else int(pad_id),
            lower,
            tokenizer.padding_side == "left",
        )

    @classmethod
    def open(cls, directory: Path, options: dict[str, Any]) -> PlainTokenizer:
        """Opens what `save` wrote."""
        rest = {name: value for name, value in options.items() if name != "kind"}
        return cls(Tokenizer.from_file(str(directory / "tokenizer.json")), **rest)

    def save(self, directory: Path) -> dict[str, Any]:
        """See :meth:`TextTokenizer.save`."""
        self._whole.save(str(directory / "tokenizer.json"), pretty=False)
        return {
            "kind": self.kind, "context_length": self.context_length, "pad_id": self._pad_id, "lower": self._lower,
            "pad_left": self._pad_left,
        }  # fmt: skip

    def __call__(self, texts: Sequence[str]) -> TokenArray:
        """n texts to (n, context_length) ids."""
        return self.ids_and_lengths(texts)[0]

    def ids_and_lengths(self, texts: Sequence[str]) -> tuple[TokenArray, npt.NDArray[np.int64]]:
        """n texts to (n, context_length) ids, and how many of each row are not padding."""
        found = self._cutting.encode_batch([cleaned(text, lower=self._lower) for text in texts])
        rows = np.full((len(texts), self.context_length), self._pad_id, dtype=np.int64)
        for row, encoding in zip(rows, found, strict=True):
            length = len(encoding.ids)
            row[self.context_length - length if self._pad_left else 0 :][:length] = encoding.ids
        return rows, np.array([len(encoding.ids) for encoding in found], dtype=np.int64)

    def count(self, text: str) -> int:
        """Ids of a text before it is cut, special ones included."""
        return len(self._whole.encode(cleaned(text, lower=self._lower)).ids)


def cleaned(text: str, *, lower: bool) -> str:
    """A text that tokenizers take, in small letters if ``lower``."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is no character
    return text.lower() if lower else text
