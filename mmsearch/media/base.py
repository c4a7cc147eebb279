"""The contract of a decoder: one file in, its description and its segments out."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, cast

from mmsearch.core.errors import MediaError
from mmsearch.core.regular import open_regular
from mmsearch.core.types import MediaInfo, Modality
from mmsearch.media.formats import suffixes_of

if TYPE_CHECKING:
    from PIL.Image import Image


TRUSTED_BYTES = 100_000_000
"""A file up to this size is read whatever it is."""


@dataclass(frozen=True)
class DecodeOptions:
    """What the pipeline wants from decoders.

    ``min_side``: pixels of the shorter side that the image encoder needs. ``max_megapixels``: larger images are
    refused (1 megapixel = 10⁶ pixels). ``frame_interval_s``: at most so many seconds between two looks at a
    video. ``cut_wide``: whether very wide and tall pictures come in parts (``decoders.wide``). ``codec_threads``:
    threads that decode one video. ``max_tokens`` and ``count_tokens``: the longest passage that the text encoder
    reads whole.
    """

    min_side: int = 224
    max_megapixels: float = 89.0
    frame_interval_s: float = 2.0
    cut_wide: bool = True
    codec_threads: int = 2
    max_tokens: int = 128
    count_tokens: Callable[[str], int] = field(default=lambda text: len(text.split()) + 2)


@dataclass(frozen=True)
class DecodedSegment:
    """One segment before it has an id: an upright RGB image (a photo, a frame) or a text passage.

    ``start_s``/``end_s`` are seconds of presentation time for frames, ``None`` otherwise.
    """

    image: Image | None = None
    text: str | None = None
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class Decoded:
    """A file being read. ``info`` is known at once; ``segments`` are made as they are asked for.

    ``info`` may be replaced by ``final_info()`` after the last segment (a video's broken tail is known late).
    """

    info: MediaInfo
    segments: Iterator[DecodedSegment]
    final_info: Callable[[], MediaInfo] | None = None


class Decoder(ABC):
    """Reads one family of files. Holds no state, so one object serves all workers."""

    modality: Modality
    max_bytes: int = 4_000_000_000
    """A larger file is refused unread."""
    version: int = 1
    """Raised when the same bytes would give other segments than before."""

    @property
    def suffixes(self) -> frozenset[str]:
        """Of the files that it reads, by the table of formats; lower case, with the dot."""
        return suffixes_of(f"{type(self).__module__}:{type(self).__qualname__}")

    def signature(self, options: DecodeOptions) -> str:
        """Names what made the segments: another signature means that the file must be read again.

        Decoders whose segments depend on ``options`` (not only their size) add what they depend on.
        """
        return f"{self.modality}/{self.version}"

    def describe(self, path: Path, options: DecodeOptions) -> MediaInfo | Literal["again"] | None:
        """What `decode` would say of a file, from its header alone; ``None``: no older version has said less;
        ``"again"``: an older version showed it otherwise, so it is to be decoded anew.

        Raises:
            MediaError: as `decode`.
        """
        return None

    def check_size(self, path: Path, size: int) -> None:
        """Refuses what cannot be a file of this family before all its bytes are read for their hash.

        Up to `TRUSTED_BYTES` nothing is looked at. Above, it must begin with something else than zeros, as every format
        does: a hole in the disk may be as large as somebody likes.

        Raises:
            MediaError: it is larger than `max_bytes`, or begins with zeros.
        """
        limit = self.max_bytes
        if size > limit:
            raise MediaError(f"too large: {size / 1e9:,.1f} GB, the limit is {limit / 1e9:,.1f} GB")
        if size <= TRUSTED_BYTES:
            return
        with opened(path, None) as stream:
            header = stream.read(512)
        if not header.strip(b"\0"):
            raise MediaError(f"it begins with zeros only ({size / 1e9:,.1f} GB): not written yet, or never")

    @abstractmethod
    def decode(self, path: Path, options: DecodeOptions, data: bytes | None = None) -> Decoded:
        """Opens ``path``, or reads ``data``: the bytes of the file, where they are at hand. Then nothing need lie at
        ``path``; its name still says what kind of file it is.

        Raises:
            MediaError: nothing can be had from the file; the message is the reason shown to the user, in
                plain words, without the path. It may also come later, from the iterator.
        """


def _raw(path: Path) -> io.RawIOBase:
    return cast(io.RawIOBase, open_regular(path))


@contextmanager
def opened(path: Path, data: bytes | None) -> Iterator[IO[bytes]]:
    """The bytes of a file, or those at hand; what the operating system has against reading becomes a reason.

    Raises:
        MediaError: the file cannot be opened or read.
    """
    try:
        with io.BufferedReader(_raw(path)) if data is None else io.BytesIO(data) as stream:
            yield stream
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror or error}") from error
