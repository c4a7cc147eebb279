"""By what a picture was taken with."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from mmsearch.filters.base import Filter, Parameters, check_text


@dataclass(frozen=True)
class CameraFilter(Filter):
    """Documents whose camera (maker and model) contains the text; case does not matter."""

    text: str

    def __post_init__(self) -> None:
        check_text(self.text, "camera")

    def condition(self, parameters: Parameters) -> str:
        """``c.camera`` contains it."""
        return f"mmsearch_contains(c.camera, {parameters.add(self.text)})"


@dataclass(frozen=True)
class LensFilter(Filter):
    """Documents whose lens contains the text; case does not matter."""

    text: str

    def __post_init__(self) -> None:
        check_text(self.text, "lens")

    def condition(self, parameters: Parameters) -> str:
        """``c.lens`` contains it."""
        return f"mmsearch_contains(c.lens, {parameters.add(self.text)})"


@lru_cache(maxsize=4096)
def contains_text(text: str | None, part: str) -> bool | None:
    """Does the text contain the part, whatever the case? SQL's ``mmsearch_contains``; NULL for NULL."""
    return None if text is None else _folded(part) in _folded(text)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
