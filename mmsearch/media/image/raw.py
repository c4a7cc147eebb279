"""The JPEG preview inside camera RAW files, found without a RAW developer.

Cameras store a finished picture beside the sensor's data. Where it is, is known for TIFF-like files (CR2,
NEF, ARW, DNG, PEF, SRW, ORF, RW2), Fujifilm's RAF and Canon's CR3 (an ISO base media file); where that gives
nothing large enough, every JPEG stream in the file is a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO

from mmsearch.media.image.metadata import EXIF_IFD, GPS_IFD, ExifTags
from mmsearch.media.image.tiff_tags import TiffTags, as_tuple

_CANON_METADATA = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
_CANON_PREVIEW = bytes.fromhex("eaf42b5e1c984b88b9fbb7dc406e4d16")
_START_OF_IMAGE = b"\xff\xd8\xff"
_CHUNK = 1 << 20
_MAX_STREAMS = 2_000
_MAX_BOXES = 200


@dataclass(frozen=True)
class Preview:
    """A JPEG stream inside a file: where it starts, its size in pixels as stored."""

    offset: int
    width: int
    height: int

    @property
    def shorter(self) -> int:
        """Pixels of the shorter side."""
        return min(self.width, self.height)

    @property
    def pixels(self) -> int:
        """Pixels in all."""
        return self.width * self.height

    @property
    def aspect(self) -> float:
        """Width by height."""
        return self.width / self.height


@dataclass
class RawFile:
    """What was found in a RAW file. ``size`` is that of the largest image it claims to hold, as stored."""

    exif: ExifTags = field(default_factory=ExifTags)
    previews: list[Preview] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)


def read_raw(stream: IO[bytes], side: int) -> RawFile:
    """Tags and previews of a RAW file, the best previews first.

    Best is the smallest whose shorter side has ``side`` pixels (larger ones show the same picture, slower),
    among those of the shape of the largest: small previews may carry black bars.
    """
    header = stream.read(16)
    if header[4:8] == b"ftyp":
        raw = _read_cr3(stream)
    elif header.startswith(b"FUJIFILMCCD-RAW"):
        raw = _read_raf(stream)
    else:
        raw = _read_tiff_like(stream)
    if not any(preview.shorter >= side for preview in raw.previews):
        known = {preview.offset for preview in raw.previews}
        raw.previews += [found for found in scan_jpegs(stream) if found.offset not in known]
    raw.previews = _best_first(raw.previews, side)
    return raw


def _best_first(previews: list[Preview], side: int) -> list[Preview]:
    if not previews:
        return []
    largest = max(previews, key=lambda preview: preview.pixels)
    enough = [p for p in previews if p.shorter >= side and abs(p.aspect / largest.aspect - 1) < 0.03]
    enough.sort(key=lambda preview: preview.pixels)
    rest = [preview for preview in previews if preview not in enough]
    return enough + sorted(rest, key=lambda preview: -preview.pixels)


def _read_tiff_like(stream: IO[bytes]) -> RawFile:
    """JPEG streams named by tags 513 (thumbnail), 273 (strips) and 46 (Panasonic's JpgFromRaw)."""
    tags = TiffTags(stream)
    raw = RawFile(exif=_exif(tags))
    for directory in tags.directories():
        raw.size = max(raw.size, _stored_size(directory), key=lambda size: size[0] * size[1])
        starts = [directory.get(0x0201), as_tuple(directory.get(0x0111))[0]]
        for start in starts:
            if isinstance(start, int):
                _keep(raw, preview_at(stream, start))
        if 0x002E in directory:
            # The tag's value is the stream itself, larger than any value that is read: it is found by its
            # start.
            _keep(raw, next(scan_jpegs(stream), None))
    return raw


def _stored_size(directory: dict[int, object]) -> tuple[int, int]:
    width, height = directory.get(0x0100), directory.get(0x0101)
    return (width, height) if isinstance(width, int) and isinstance(height, int) else (0, 0)


def _exif(tags: TiffTags) -> ExifTags:
    main = tags.directory(tags.first)
    photo, gps = main.get(EXIF_IFD), main.get(GPS_IFD)
    return ExifTags(
        main,
        tags.directory(photo) if isinstance(photo, int) else {},
        tags.directory(gps) if isinstance(gps, int) else {},
    )


def _read_raf(stream: IO[bytes]) -> RawFile:
    """Fujifilm: the offset of the JPEG stands at byte 84, big-endian; its own EXIF has all the tags."""
    stream.seek(84)
    raw = RawFile()
    _keep(raw, preview_at(stream, int.from_bytes(stream.read(4), "big")))
    return raw


def _read_cr3(stream: IO[bytes]) -> RawFile:
    """Canon: tags in CMT1, CMT2, CMT4 of a uuid box in the movie box, a preview in another uuid box."""
    raw = RawFile()
    for kind, start, end in _boxes(stream, 0, None):
        if kind == b"moov":
            for inner, inner_start, inner_end in _boxes(stream, start, end):
                if inner == _CANON_METADATA:
                    raw.exif = _cr3_exif(stream, inner_start, inner_end)
        elif kind == _CANON_PREVIEW:
            stream.seek(start)
            found = stream.read(64).find(_START_OF_IMAGE)
            if found >= 0:
                _keep(raw, preview_at(stream, start + found))
    return raw


def _cr3_exif(stream: IO[bytes], start: int, end: int) -> ExifTags:
    exif = ExifTags()
    for kind, inside, _ in _boxes(stream, start, end):
        if kind in {b"CMT1", b"CMT2", b"CMT4"}:
            tags = TiffTags(stream, inside)
            directory = tags.directory(tags.first)
            if kind == b"CMT1":
                exif = replace(exif, main=directory)
            elif kind == b"CMT2":
                exif = replace(exif, photo=directory)
            else:
                exif = replace(exif, gps=directory)
    return exif


def _boxes(stream: IO[bytes], start: int, end: int | None) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of an ISO base media file between two offsets: type (or uuid), start and end of content."""
    for _ in range(_MAX_BOXES):
        stream.seek(start)
        header = stream.read(32)
        if len(header) < 8 or (end is not None and start >= end):
            return
        size, kind, skip = int.from_bytes(header[:4], "big"), header[4:8], 8
        if size == 1:
            size, skip = int.from_bytes(header[8:16], "big"), 16
        if kind == b"uuid":
            kind, skip = header[skip : skip + 16], skip + 16
        if size < skip:
            return
        yield kind, start + skip, start + size
        start += size


def scan_jpegs(stream: IO[bytes]) -> Iterator[Preview]:
    """Every baseline or progressive JPEG stream in a file, in the order of the file."""
    position, tail, streams = 0, b"", 0
    while True:
        stream.seek(position)
        block = stream.read(_CHUNK)
        if not block:
            return
        data, origin = tail + block, position - len(tail)
        place = data.find(_START_OF_IMAGE)
        while place >= 0 and streams < _MAX_STREAMS:
            streams += 1
            preview = preview_at(stream, origin + place)
            if preview is not None:
                yield preview
            place = data.find(_START_OF_IMAGE, place + 1)
        tail = data[-2:]
        position += len(block)


def preview_at(stream: IO[bytes], offset: int) -> Preview | None:
    """The JPEG stream at ``offset`` if there is one that shows a picture: lossless JPEG is sensor data.

    Walks the markers up to the frame header (ITU-T T.81, B.2.2).
    """
    stream.seek(offset)
    if stream.read(2) != _START_OF_IMAGE[:2]:
        return None
    position = offset + 2
    for _ in range(200):
        stream.seek(position)
        marker = stream.read(9)
        if len(marker) < 9 or marker[0] != 0xFF or marker[1] in {0xD8, 0xD9, 0xDA}:
            return None
        if marker[1] in {0xC0, 0xC1, 0xC2}:
            height, width = int.from_bytes(marker[5:7], "big"), int.from_bytes(marker[7:9], "big")
            return Preview(offset, width, height) if width and height and marker[4] == 8 else None
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in {0xC4, 0xC8, 0xCC}:
            return None
        position += 2 + int.from_bytes(marker[2:4], "big")
    return None


def _keep(raw: RawFile, preview: Preview | None) -> None:
    if preview is not None and preview not in raw.previews:
        raw.previews.append(preview)
