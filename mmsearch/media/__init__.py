"""Decoders: one file in, its segments out. Importing this package loads no codec."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from mmsearch.media.base import Decoded, DecodedSegment, DecodeOptions, Decoder
from mmsearch.media.formats import Format, format_by_suffix, formats, suffixes_of

DECODERS: tuple[Decoder, ...]
"""Every decoder there is, those of installed packages too. A new format of a family is one row of `formats`."""
SUFFIXES: frozenset[str]
"""Every supported suffix, lower case, with the dot."""


def decoder_for(path: Path) -> Decoder | None:
    """The decoder of a file by the suffix of its name (in any case), or ``None``: not a supported file."""
    row = format_by_suffix(path.suffix)
    return None if row is None else _decoder(row.decoder)


@cache
def _decoder(name: str) -> Decoder:
    module, _, class_ = name.partition(":")
    decoder: Decoder = getattr(import_module(module), class_)()
    return decoder


def __getattr__(name: str) -> Any:
    """Looking for what is installed takes tens of milliseconds, which the query by one photo does not pay."""
    if name == "DECODERS":
        return tuple(_decoder(decoder) for decoder in dict.fromkeys(row.decoder for row in formats()))
    if name == "SUFFIXES":
        return suffixes_of()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DECODERS",
    "SUFFIXES",
    "DecodeOptions",
    "Decoded",
    "DecodedSegment",
    "Decoder",
    "Format",
    "decoder_for",
]
