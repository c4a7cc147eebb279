"""Tar archives as img2dataset, video2dataset and other writers of webdatasets make them: samples, in their order.

Neighbouring members whose names are equal up to the first dot of the file name form a sample: ``000000012.jpg`` (or
``.mp4``), ``000000012.txt``, ``000000012.json``. Its pictures and videos are documents, ``00000.tar/000000012.jpg``;
its text, or the caption in its JSON, is their caption.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from mmsearch.core.errors import MediaError
from mmsearch.core.modalities import has_pictures
from mmsearch.media import DECODERS, decoder_for
from mmsearch.media.base import DecodeOptions, Decoder
from mmsearch.media.text.caption_table import CAPTION_COLUMNS

MAX_MEMBER_BYTES = 256_000_000
"""A member is held in memory while it is read; a larger one is left out."""
MAX_CAPTION_BYTES = 1_000_000
_VERSION = 2
_CAPTIONS = {".txt", ".json"}
_SHOWN: tuple[Decoder, ...] = tuple(decoder for decoder in DECODERS if has_pictures(decoder.modality))


@dataclass(frozen=True)
class Member:
    """One picture or video of a sample, with the sample's caption."""

    name: str
    mtime_ns: int
    data: bytes
    caption: str | None


@dataclass
class ArchiveReading:
    """One archive while it is read; ``left_out`` and ``broken`` say afterwards what could not be had from it."""

    path: Path
    left_out: int = 0
    too_large: int = 0
    broken: str | None = None
    _sample: list[tuple[str, int, bytes]] = field(default_factory=list)

    def members(self) -> Iterator[Member]:
        """The pictures and videos of all samples, in order; ends where the archive is broken.

        Raises:
            MediaError: it is no tar archive, or cannot be opened.
        """
        key = None
        try:
            with self.path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    cast(Any, tar).members.clear()  # or tarfile would remember every one
                    if not member.isfile():
                        continue
                    if (own := sample_key(member.name)) != key:
                        yield from self._finish()
                        key = own
                    self._take(tar, member)
                _check_end(tar)
            yield from self._finish()
        except (tarfile.TarError, EOFError, UnicodeError) as error:
            if key is None:
                raise MediaError(f"not a tar archive, or a damaged one: {error}") from error
            yield from self._finish()
            self.broken = f"damaged, only what comes before was read: {error}"
        except OSError as error:
            raise MediaError(f"cannot be read: {error.strerror or error}") from error

    def _take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        suffix = PurePosixPath(member.name).suffix.lower()
        if suffix not in _CAPTIONS and shown_by(member.name) is None:
            self.left_out += 1
            return
        if member.size > (MAX_CAPTION_BYTES if suffix in _CAPTIONS else MAX_MEMBER_BYTES):
            self.too_large += 1
            return
        reader = tar.extractfile(member)
        data = reader.read() if reader is not None else b""
        if len(data) < member.size:
            raise tarfile.ReadError("unexpected end of data")
        self._sample.append((member.name, int(member.mtime * 1e9), data))

    def _finish(self) -> Iterator[Member]:
        """What the sample at hand shows. Captions without a picture have nothing to stand for."""
        sample, self._sample = self._sample, []
        shown = [part for part in sample if _suffix(part[0]) not in _CAPTIONS]
        if not shown:
            self.left_out += len(sample)
            return
        caption = sample_caption({_suffix(name): data for name, _, data in sample})
        for name, mtime_ns, data in shown:
            yield Member(name, mtime_ns, data, caption)

    def problem(self) -> str | None:
        """What could not be had from the archive, in plain words; known after the last member."""
        found = [self.broken] if self.broken else []
        if self.left_out:
            found.append(f"{self.left_out} members are no pictures, videos or captions")
        if self.too_large:
            found.append(f"{self.too_large} members are larger than {MAX_MEMBER_BYTES // 10**6} MB")
        return "; ".join(found) or None


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a header that it cannot read for the end; the end is a block of zeros, or of the file."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError("a header that cannot be read")


def archive_decoding(options: DecodeOptions) -> str:
    """Names what makes an archive's documents: another one means that it must be read again."""
    shown = " ".join(decoder.signature(options) for decoder in _SHOWN)
    return f"tar/{_VERSION} {shown} max-megapixels={options.max_megapixels:g}"


def shown_by(name: str) -> Decoder | None:
    """What reads a member of this name, if it is one that shows something."""
    decoder = decoder_for(Path(name))
    return decoder if decoder in _SHOWN else None


def sample_key(name: str) -> str:
    """What the members of one sample have in common: the path up to the first dot of the file name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.split(".", 1)[0]


def sample_caption(parts: dict[str, bytes]) -> str | None:
    """The caption of a sample from its members by suffix: its text, else the caption that its JSON names."""
    text = parts.get(".txt", b"").decode("utf-8", "replace").strip()
    if text:
        return text
    try:
        described = json.loads(parts.get(".json", b"null"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(described, dict):
        return None
    found = (described.get(name) for name in CAPTION_COLUMNS)
    caption = next((value.strip() for value in found if isinstance(value, str) and value.strip()), None)
    return caption.encode("utf-8", "replace").decode() if caption else None


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
