"""The directories (IFDs) of TIFF and its relatives: what camera RAW files keep their tags and previews in.

Pillow reads TIFF proper; this reader is for files that only look like it (other magic numbers, directories
inside boxes), and it never reads more than a bounded number of bytes from them.
Source of the layout: TIFF 6.0 specification, section 2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, Any, Literal

MAX_ENTRIES = 1_000
MAX_VALUE_BYTES = 65_536
MAX_DIRECTORIES = 40

SUB_IFDS, NEXT = 0x014A, -1
"""``NEXT`` is no tag: under it a directory keeps the offset of the one that follows, 0 for none."""

_FORMATS = {1: "B", 2: "s", 3: "H", 4: "L", 5: "L", 6: "b", 7: "s", 8: "h", 9: "l", 10: "l", 13: "L"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 13: 4}

Directory = dict[int, Any]


class TiffTags:
    """A TIFF structure that starts at ``base`` of a seekable stream; all offsets inside count from there."""

    def __init__(self, stream: IO[bytes], base: int = 0) -> None:
        self._stream = stream
        self._base = base
        header = self._read(0, 8)
        self._order: Literal["<", ">"] = ">" if header[:2] == b"MM" else "<"
        self.first: int = self._unpack("L", header[4:8])[0] if len(header) == 8 else 0

    def directory(self, offset: int) -> Directory:
        """The tags at ``offset``: text as ``str``, bytes as ``bytes``, single numbers plain, others as
        tuples.

        Rationals become floats, NaN where the denominator is 0. Entries that lie outside the file are left
        out.
        """
        count_bytes = self._read(offset, 2)
        if offset <= 0 or len(count_bytes) < 2:
            return {}
        count: int = min(self._unpack("H", count_bytes)[0], MAX_ENTRIES)
        block = self._read(offset + 2, count * 12 + 4)
        tags: Directory = {}
        for start in range(0, min(count * 12, len(block) - 11), 12):
            tag, kind, length = self._unpack("HHL", block[start : start + 8])
            value = self._value(kind, length, block[start + 8 : start + 12])
            if value is not None:
                tags[tag] = value
        tags[NEXT] = self._unpack("L", block[count * 12 :])[0] if len(block) == count * 12 + 4 else 0
        return tags

    def directories(self) -> Iterator[Directory]:
        """The main chain with all sub-directories, each once."""
        waiting, seen = [self.first], set[int]()
        while waiting and len(seen) < MAX_DIRECTORIES:
            offset = waiting.pop(0)
            if offset in seen or offset <= 0:
                continue
            seen.add(offset)
            tags = self.directory(offset)
            if tags:
                yield tags
                children = tags.get(SUB_IFDS, ())
                waiting.extend(child for child in as_tuple(children) if isinstance(child, int))
                waiting.append(tags[NEXT])

    def _value(self, kind: int, length: int, inline: bytes) -> Any:
        size = _SIZES.get(kind, 0) * length
        if not 0 < size <= MAX_VALUE_BYTES:
            return None
        data = inline[:size] if size <= 4 else self._read(self._unpack("L", inline)[0], size)
        if len(data) < size:
            return None
        if kind == 2:
            return data.split(b"\0", 1)[0].decode("utf-8", "replace")
        if kind in {1, 7} and length > 1:
            return data
        repeat = length * 2 if kind in {5, 10} else length
        numbers: tuple[Any, ...] = struct.unpack(f"{self._order}{repeat}{_FORMATS[kind]}", data)
        if kind == 7:
            return data
        if kind in {5, 10}:
            numbers = tuple(a / b if b else float("nan") for a, b in zip(numbers[::2], numbers[1::2], strict=True))
        return numbers[0] if len(numbers) == 1 else numbers

    def _unpack(self, layout: str, data: bytes) -> tuple[Any, ...]:
        return struct.unpack(self._order + layout, data)

    def _read(self, offset: int, size: int) -> bytes:
        self._stream.seek(self._base + offset)
        return self._stream.read(size)


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A tag's value as a tuple, however many numbers it holds."""
    return value if isinstance(value, tuple) else (value,)
