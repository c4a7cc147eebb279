"""Decoders: one file in, its segments out. Importing this package loads no codec."""

from __future__ import annotations

from pathlib import Path

from mmsearch.media.base import Decoded, DecodedSegment, DecodeOptions, Decoder
from mmsearch.media.image.reader import ImageDecoder
from mmsearch.media.text.reader import TextDecoder
from mmsearch.media.video.reader import VideoDecoder

DECODERS: tuple[Decoder, ...] = (ImageDecoder(), VideoDecoder(), TextDecoder())
"""Every decoder there is. A new family of files is a new file in this package and one entry here."""

_BY_SUFFIX = {suffix: decoder for decoder in DECODERS for suffix in decoder.suffixes}

SUFFIXES = frozenset(_BY_SUFFIX)
"""Every supported suffix, lower case, with the dot."""


def decoder_for(path: Path) -> Decoder | None:
    """The decoder of a file by the suffix of its name (in any case), or ``None``: not a supported file."""
    return _BY_SUFFIX.get(path.suffix.lower())


__all__ = [
    "DECODERS",
    "SUFFIXES",
    "DecodeOptions",
    "Decoded",
    "DecodedSegment",
    "Decoder",
    "decoder_for",
]
