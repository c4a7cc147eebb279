"""Files whose picture is whole although something beside it is not: their bytes, put right for a second try.

Nothing here is done to a file that can be read as it is. What cannot be put right stays refused, and so does every file
of which a part of the picture itself is missing or wrong.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

MAX_BYTES = 512_000_000
"""Larger files are not mended: it is done in memory."""
MAX_TEXT_BYTES = 1_000_000
"""Of one text of a PNG, unpacked: Pillow refuses the whole picture for a longer one, so it is left out."""
MAX_TEXTS_BYTES = 16_000_000
"""Of all texts of a PNG together."""
MAX_PROFILE_BYTES = 16_000_000
MAX_SIDE_CHUNK_BYTES = 32_000_000
"""A chunk beside the picture that is longer as it stands is not looked at."""


@dataclass(frozen=True)
class Mended:
    """One way to put a file right; ``info`` is what the plugin's ``info`` gains, for what had to be taken out."""

    stream: IO[bytes]
    info: dict[str, Any] = field(default_factory=dict)


def mended(stream: IO[bytes], format_: str) -> list[Mended]:
    """What to try in place of a file that Pillow refused; nothing where nothing can be done for its format.

    The file is whole only if all of these can be read and show the same pixels.
    """
    way = _WAYS.get(format_)
    stream.seek(0, io.SEEK_END)
    if way is None or stream.tell() > MAX_BYTES:
        return []
    stream.seek(0)
    return way(stream)


def _jpeg(stream: IO[bytes]) -> list[Mended]:
    """The end marker is missing. It is put behind the file once at once, once after bits that mean something else.

    Where the picture is whole, nothing of what follows it is read, so both give the same. Where it is cut, libjpeg goes
    on with what it finds (zeros, or these bits), so they differ.
    """
    data = stream.read()
    end = b"\xff\xd9"
    cut = data[:-1] if data.endswith(b"\xff") else data
    return [Mended(io.BytesIO(cut + other + end)) for other in (b"", b"\x5a\xa5\x3c\xc3" * 32)]


def _webp(stream: IO[bytes]) -> list[Mended]:
    """The size in the RIFF header (https://developers.google.com/speed/webp/docs/riff_container) is not the file's."""
    data = stream.read()
    size = struct.pack("<I", (len(data) - 8) & ~1)
    return [] if data[4:8] == size else [Mended(io.BytesIO(data[:4] + size + data[8:]))]


def _png(stream: IO[bytes]) -> list[Mended]:
    """Without the chunks beside the picture that are damaged, too large, or of no use here.

    As libpng does: an ancillary chunk (PNG specification, third edition, 5.4) whose checksum is wrong is left out,
    a critical one is an error, which Pillow then tells.
    """
    side = _PngSide()
    out = io.BytesIO()
    out.write(stream.read(8))
    has_pixels = False
    for kind, body, checksum in _png_chunks(stream):
        if kind == b"IEND":
            break
        has_pixels |= kind == b"IDAT"
        if kind == b"IHDR":
            side.colour_type = body[9:10]
        if kind[0] & 0x20 and not side.keeps(kind, body, checksum):
            continue
        out.write(struct.pack(">I", len(body)) + kind + body + checksum)
    if not has_pixels:
        return []
    out.write(struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND")))
    out.seek(0)
    return [Mended(out, side.info)]


def _png_chunks(stream: IO[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, content and checksum of the chunks, as far as they go; long ones beside the picture are passed over."""
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if not kind.isalpha():
            return
        if kind[0] & 0x20 and kind not in _FRAMES and length > MAX_SIDE_CHUNK_BYTES:
            stream.seek(length + 4, io.SEEK_CUR)
            continue
        body = stream.read(length)
        if len(body) < length:
            if kind == b"IDAT":  # its end may be behind the last pixel; else Pillow says that it is cut
                yield kind, body, struct.pack(">I", zlib.crc32(kind + body))
            return
        yield kind, body, stream.read(4).ljust(4, b"\0")


_FRAMES = frozenset({b"acTL", b"fcTL", b"fdAT"})
_LEAST = {b"acTL": 8, b"fcTL": 26, b"fdAT": 4, b"eXIf": 1, b"cICP": 4}
"""Of chunks that count, the bytes without which Pillow refuses the picture."""


class _PngSide:
    """Decides which chunks beside the picture stay."""

    def __init__(self) -> None:
        self.info: dict[str, Any] = {}
        self.colour_type = b""
        self._texts = 0

    def keeps(self, kind: bytes, body: bytes, checksum: bytes) -> bool:
        if struct.pack(">I", zlib.crc32(kind + body)) != checksum:
            return False
        if kind == b"iCCP":
            return self._keeps_profile(body)
        if kind in {b"tEXt", b"zTXt", b"iTXt"}:
            size = _text_size(kind, body)
            self._texts += size or 0
            return size is not None and self._texts <= MAX_TEXTS_BYTES
        if kind == b"tRNS":
            return len(body) >= {b"\0": 2, b"\2": 6}.get(self.colour_type, 1)
        return len(body) >= _LEAST.get(kind, MAX_SIDE_CHUNK_BYTES)

    def _keeps_profile(self, body: bytes) -> bool:
        """A profile that Pillow would find too large is taken out, to be handed over beside the file."""
        name, _, packed = body.partition(b"\0")
        profile = _unpacked(packed[1:], MAX_PROFILE_BYTES)
        if len(name) > 79 or packed[:1] != b"\0" or not profile:
            return False
        if len(profile) <= MAX_TEXT_BYTES:
            return True
        self.info["icc_profile"] = profile
        return False


def _text_size(kind: bytes, body: bytes) -> int | None:
    """Bytes of a text when it is unpacked; ``None`` where Pillow could not read it."""
    key, found, rest = body.partition(b"\0")
    if not found or not 0 < len(key) < 80:
        return None
    packed = b""
    if kind == b"zTXt":
        if rest[:1] != b"\0":
            return None
        packed = rest[1:]
    elif kind == b"iTXt" and rest[:2] == b"\x01\0":
        packed = rest[2:].split(b"\0", 2)[-1]
    text = _unpacked(packed, MAX_TEXT_BYTES) if packed else rest
    return None if text is None or len(text) > MAX_TEXT_BYTES else len(text)


def _unpacked(packed: bytes, most: int) -> bytes | None:
    """At most so many bytes; ``None`` where there are more, or it is not zlib's."""
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(packed, most)
    except zlib.error:
        return None
    return None if unpacking.unconsumed_tail else data


_WAYS: dict[str, Callable[[IO[bytes]], list[Mended]]] = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp}
