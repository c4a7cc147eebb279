"""The tokenizers of open_clip models, without open_clip: its own module imports torch, a query must not.

Two families cover its models: the byte-pair encoding of CLIP, and tokenizers of the Hugging Face hub that
come as a ``tokenizer.json``. Both can be saved beside an exported text encoder and opened again from there.
"""

from __future__ import annotations

import gzip
import html
import re
import string
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models

from mmsearch.core.errors import EncoderError
from mmsearch.models.encoders.weights import read_json

TokenArray = npt.NDArray[np.int64]

_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2
_START, _END = "<start_of_text>", "<end_of_text>"
_WORDS = rf"""{_START}|{_END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+"""
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TextTokenizer(ABC):
    """Texts to rows of token ids, all as long as the context of the text encoder."""

    context_length: int

    @abstractmethod
    def __call__(self, texts: Sequence[str]) -> TokenArray:
        """n texts to (n, context_length) ids, cut and padded as the model was trained."""

    @abstractmethod
    def count(self, text: str) -> int:
        """How many ids a text has before it is cut, special ones included."""

    def save(self, directory: Path) -> dict[str, Any] | None:
        """Writes what ``open_tokenizer`` needs; returns the settings to give it, ``None`` if it cannot."""
        return None


class ClipTokenizer(TextTokenizer):
    """The byte-pair encoding of CLIP (Radford et al., 2021), as ``open_clip.SimpleTokenizer`` does it.

    The merging is done by the ``tokenizers`` library; cleaning and splitting follow the original in Python,
    because the Unicode tables of its regular expressions differ from those of ``tokenizers``.
    """

    def __init__(self, bpe: Tokenizer, context_length: int = 77, clean: str = "lower") -> None:
        self.context_length = context_length
        self._clean = clean
        self._bpe = bpe
        self._start, self._end = _known_id(bpe, _START), _known_id(bpe, _END)
        self._words = {_START: [self._start], _END: [self._end]}

    @classmethod
    def from_open_clip(cls, context_length: int = 77, clean: str = "lower") -> ClipTokenizer:
        """Reads the vocabulary out of the installed open_clip package, which is not imported for it."""
        spec = find_spec("open_clip")
        if spec is None or not spec.submodule_search_locations:
            raise EncoderError("open_clip is not installed; install open_clip_torch")
        return cls(_read_vocabulary(Path(spec.submodule_search_locations[0]) / _VOCABULARY), context_length, clean)

    def encode(self, text: str) -> list[int]:
        """The ids of a text without the two that frame it."""
        ids: list[int] = []
        for word in _split(clean_text(text, self._clean)):
            ids += self._word_ids(word)
        return ids

    def __call__(self, texts: Sequence[str]) -> TokenArray:
        """n texts to (n, context_length) ids."""
        rows = np.zeros((len(texts), self.context_length), dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = [self._start, *self.encode(text), self._end][: self.context_length]
            row[: len(ids)] = ids
            if len(ids) == self.context_length:
                row[-1] = self._end
        return rows

    def count(self, text: str) -> int:
        """Ids of a text before it is cut, the two that frame it included."""
        return len(self.encode(text)) + 2

    def save(self, directory: Path) -> dict[str, Any]:
        """Writes the vocabulary; returns the settings for ``open_tokenizer``."""
        self._bpe.save(str(directory / "tokenizer.json"), pretty=False)
        return {"kind": "clip", "context_length": self.context_length, "clean": self._clean}

    def _word_ids(self, word: str) -> list[int]:
        ids = self._words.get(word)
        if ids is None:
            letters = _byte_letters()
            ids = [token.id for token in self._bpe.model.tokenize("".join(letters[b] for b in word.encode()))]
            if len(self._words) < 100_000:
                self._words[word] = ids
        return ids


class HubTokenizer(TextTokenizer):
    """A ``tokenizer.json`` of the hub, cut and padded to the context as ``open_clip.HFTokenizer`` does it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        context_length: int,
        clean: str = "whitespace",
        pad_id: int = 0,
        pad_left: bool = False,
        strip_id: int | None = None,
    ) -> None:
        self.context_length = context_length
        self._tokenizer, self._clean = tokenizer, clean
        self._pad_id, self._pad_left, self._strip_id = pad_id, pad_left, strip_id
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._cutting = Tokenizer.from_str(tokenizer.to_str())
        self._cutting.enable_truncation(context_length)

    @classmethod
    def from_directory(
        cls, directory: Path, context_length: int, clean: str = "whitespace", strip_sep_token: bool = False
    ) -> HubTokenizer:
        """Opens ``tokenizer.json``, with the special tokens that the files beside it name."""
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        settings = {
            **read_json(directory / "special_tokens_map.json"),
            **read_json(directory / "tokenizer_config.json"),
        }
        pad = _special_id(tokenizer, settings, "pad_token")
        return cls(
            tokenizer,
            context_length,
            clean,
            pad_id=0 if pad is None else pad,
            pad_left=settings.get("padding_side") == "left",
            strip_id=_special_id(tokenizer, settings, "sep_token") if strip_sep_token else None,
        )

    def __call__(self, texts: Sequence[str]) -> TokenArray:
        """n texts to (n, context_length) ids."""
        rows = np.full((len(texts), self.context_length), self._pad_id, dtype=np.int64)
        cleaned = [clean_text(text, self._clean) for text in texts]
        for row, encoding in zip(rows, self._cutting.encode_batch(cleaned), strict=True):
            ids = encoding.ids
            if ids:
                row[slice(-len(ids), None) if self._pad_left else slice(len(ids))] = ids
        if self._strip_id is not None:
            rows[rows == self._strip_id] = 0
        return rows

    def count(self, text: str) -> int:
        """Ids of a text before it is cut, special ones included."""
        return len(self._tokenizer.encode(clean_text(text, self._clean)).ids)

    def save(self, directory: Path) -> dict[str, Any]:
        """Writes the tokenizer; returns the settings for ``open_tokenizer``."""
        self._tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
        return {
            "kind": "hub",
            "context_length": self.context_length,
            "clean": self._clean,
            "pad_id": self._pad_id,
            "pad_left": self._pad_left,
            "strip_id": self._strip_id,
        }


def open_tokenizer(directory: Path, settings: dict[str, Any]) -> TextTokenizer:
    """Opens what ``TextTokenizer.save`` wrote."""
    options = dict(settings)
    kind = options.pop("kind")
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return ClipTokenizer(tokenizer, **options) if kind == "clip" else HubTokenizer(tokenizer, **options)


def end_positions(tokens: TokenArray, end_id: int | None) -> TokenArray:
    """Where each row ends: its first ``end_id``, or its largest id (CLIP's end is the last of its table)."""
    positions: TokenArray = np.argmax(tokens if end_id is None else tokens == end_id, axis=1)
    return positions


def clean_text(text: str, how: str) -> str:
    """What open_clip does to a text before it splits it: ``lower``, ``whitespace`` or ``canonicalize``.

    The last drops ASCII punctuation, as SigLIP's training did.
    """
    text = _fix(text)
    if how == "canonicalize":
        text = text.replace("_", " ").translate(_PUNCTUATION).lower()
    text = " ".join(text.split())
    return text.lower() if how == "lower" else text


def _fix(text: str) -> str:
    if text.isascii() and text.isprintable() and "&" not in text:
        return text  # ftfy and HTML entities have nothing to do here, and ftfy takes 30 ms to import
    import ftfy

    # A lone surrogate is no character: UTF-8 cannot write it.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return html.unescape(html.unescape(ftfy.fix_text(text)))


def _split(text: str) -> list[str]:
    if text.isascii():
        return list(_ascii_words().findall(text))
    return list(_all_words().findall(text))


@cache
def _ascii_words() -> re.Pattern[str]:
    return re.compile(_WORDS.replace(r"\p{L}", "a-z").replace(r"\p{N}", "0-9"), re.IGNORECASE | re.ASCII)


@cache
def _all_words() -> Any:
    import regex  # type: ignore[import-untyped,unused-ignore]

    return regex.compile(_WORDS, regex.IGNORECASE)


@cache
def _byte_letters() -> tuple[str, ...]:
    """One printable character for each byte, as GPT-2 chose them."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        letters.setdefault(byte, chr(256 + len(letters) - len(plain)))
    return tuple(letters[byte] for byte in range(256))


def _read_vocabulary(path: Path) -> Tokenizer:
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    merges = [(first, second) for first, second in (line.split() for line in lines[1 : _MERGES + 1])]
    # The order of the single letters is that of open_clip's table: printable bytes first, the others after.
    letters = sorted(_byte_letters(), key=lambda letter: (ord(letter) > 255, ord(letter)))
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += [first + second for first, second in merges]
    vocabulary = {token: number for number, token in enumerate([*tokens, _START, _END])}
    return Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>", cache_capacity=0))


def _known_id(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    if number is None:
        raise EncoderError(f"the vocabulary of the tokenizer lacks {token}; it is not CLIP's")
    return number


def _special_id(tokenizer: Tokenizer, settings: dict[str, Any], name: str) -> int | None:
    token = settings.get(name)
    if isinstance(token, dict):
        token = token.get("content")
    return tokenizer.token_to_id(token) if isinstance(token, str) else None
