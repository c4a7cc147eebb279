"""Texts: passages of prose and Markdown, rows of caption tables."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from mmsearch.core.errors import MediaError
from mmsearch.core.types import MediaInfo, Modality
from mmsearch.media.base import TRUSTED_BYTES, Decoded, DecodedSegment, DecodeOptions, Decoder, opened
from mmsearch.media.formats import format_by_suffix
from mmsearch.media.text.caption_table import Row, table_rows
from mmsearch.media.text.encoding import decode_text
from mmsearch.media.text.passages import cut, markdown_to_text, passages

MAX_PROSE_BYTES = 20_000_000
MAX_ROWS = 1_000_000


class TextDecoder(Decoder):
    """Texts.

    - Prose (.txt, .text, .md, .markdown): one segment a paragraph, with the heading before it; paragraphs
      that the text encoder cannot read whole are cut at sentences. Files above 20 MB are refused.
    - Tables (.csv, .tsv, .jsonl, .ndjson): one segment a row, from the first column named as in
      :data:`~mmsearch.media.text.caption_table.CAPTION_COLUMNS`; a row that is too long is cut like a
      paragraph. Rows are streamed; damaged rows are left out and counted in the note, rows beyond a million
      are left out.
    """

    modality: Modality = "text"

    def check_size(self, path: Path, size: int) -> None:
        """See :meth:`Decoder.check_size`."""
        super().check_size(path, size)
        if size > TRUSTED_BYTES and _form(path) != "table":
            raise MediaError(_too_large(size))

    def decode(self, path: Path, options: DecodeOptions, data: bytes | None = None) -> Decoded:
        """See :meth:`Decoder.decode`."""
        form = _form(path)
        if form == "table":
            return _decode_table(path, options, data)
        text = _read_prose(path, data)
        if form == "markdown":
            text = markdown_to_text(text)
        found = passages(text, options.max_tokens, options.count_tokens)
        first = next(found, None)
        if first is None:
            raise MediaError("no text in it")
        return Decoded(MediaInfo(), (DecodedSegment(text=passage) for passage in chain([first], found)))


def _read_prose(path: Path, data: bytes | None) -> str:
    found = _read_bytes(path, MAX_PROSE_BYTES + 1, data)
    if not found:
        raise MediaError("empty file")
    if len(found) > MAX_PROSE_BYTES:
        size = path.stat().st_size if data is None else len(data)
        raise MediaError(_too_large(size))
    return decode_text(found).replace("\r\n", "\n").replace("\r", "\n")


def _form(path: Path) -> str:
    format_ = format_by_suffix(path.suffix)
    return "prose" if format_ is None else format_.reader


def _too_large(size: int) -> str:
    return f"too large: {size / 1e6:.1f} MB of text, the limit is {MAX_PROSE_BYTES // 10**6} MB; split the file"


def _read_bytes(path: Path, limit: int, data: bytes | None = None) -> bytes:
    with opened(path, data) as stream:
        return stream.read(limit)


class _TableReading:
    """One table while it is read: its segments, and what had to be left out."""

    def __init__(self, path: Path, options: DecodeOptions, data: bytes | None) -> None:
        self._path = path
        self._data = data
        self._options = options
        self._damaged = 0
        self._cut_short = False

    def segments(self) -> Iterator[DecodedSegment]:
        rows = 0
        for row in self._rows():
            if row is None:
                self._damaged += 1
                continue
            if rows == MAX_ROWS:
                self._cut_short = True
                break
            rows += 1
            for passage in cut(row, self._options.max_tokens, self._options.count_tokens):
                yield DecodedSegment(text=passage)
        if not rows:
            raise MediaError("no row with a caption")

    def _rows(self) -> Iterator[Row]:
        with opened(self._path, self._data) as stream:
            yield from table_rows(stream, self._path.suffix.lower())

    def info(self) -> MediaInfo:
        notes = []
        if self._damaged:
            notes.append(f"{self._damaged} rows without a readable caption were left out")
        if self._cut_short:
            notes.append(f"only the first {MAX_ROWS} rows were read")
        return MediaInfo(note="; ".join(notes) or None)


def _decode_table(path: Path, options: DecodeOptions, data: bytes | None) -> Decoded:
    reading = _TableReading(path, options, data)
    return Decoded(MediaInfo(), reading.segments(), reading.info)
