"""Tables with a caption column (CSV, TSV, JSON Lines): one text a row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

from mmsearch.core.errors import MediaError
from mmsearch.media.text.encoding import text_encoding

CAPTION_COLUMNS = ("caption", "captions", "text", "description", "title", "sentence", "alt_text", "alt")
"""The first of these names that the table has, in any case, is its caption column."""

MAX_LINE = 1_000_000
"""Characters; longer lines are left out."""
_SAMPLE_BYTES = 1 << 16

Row = str | None
"""A row's text, or ``None``: the row is damaged or has none."""


def table_rows(stream: IO[bytes], suffix: str) -> Iterator[Row]:
    """The caption of every row of a table, lazily, in order.

    Raises:
        MediaError: not text, or no caption column. It comes with the first row, so the caller should ask for
        one.
    """
    sample = stream.read(_SAMPLE_BYTES)
    stream.seek(0)
    if not sample:
        raise MediaError("empty file")
    encoding = text_encoding(sample)
    text = io.TextIOWrapper(stream, encoding=encoding, errors="replace", newline="")
    try:
        lines = _bounded_lines(text)
        yield from _json_rows(lines) if suffix in {".jsonl", ".ndjson"} else _csv_rows(lines, suffix)
    finally:
        text.detach()  # the stream is the caller's to close


def _bounded_lines(text: io.TextIOWrapper) -> Iterator[str]:
    """Lines; of one that is absurdly long only the beginning, so that memory stays bounded."""
    while line := text.readline(MAX_LINE):
        yield line
        while len(line) == MAX_LINE and not line.endswith("\n"):
            line = text.readline(MAX_LINE)


def _csv_rows(lines: Iterator[str], suffix: str) -> Iterator[Row]:
    header_line = next((line for line in lines if line.strip()), "")
    delimiter = "\t" if suffix == ".tsv" else max(",;\t|", key=header_line.count)
    # Most TSV files are written without quoting, where a quote is a quote and must not swallow the lines
    # after it.
    quoted = delimiter != "\t" or '"' in header_line
    style: dict[str, Any] = {
        "delimiter": delimiter,
        "quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    }
    try:
        header = [name.strip().lower() for name in next(csv.reader([header_line], **style), [])]
    except csv.Error as error:
        raise MediaError(f"the header of the table cannot be read: {error}") from error
    column = _caption_column(header)
    reader = csv.reader(lines, **style)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None
            continue
        if row:
            yield _clean(row[column]) if column < len(row) else None


def _caption_column(header: list[str]) -> int:
    for name in CAPTION_COLUMNS:
        if name in header:
            return header.index(name)
    found = ", ".join(name[:30] for name in header[:12]) or "nothing"
    raise MediaError(f"no caption column: the header has {found}; expected one of {', '.join(CAPTION_COLUMNS)}")


def _json_rows(lines: Iterable[str]) -> Iterator[Row]:
    found = False
    for line in lines:
        if line.strip():
            caption = _json_caption(line)
            found = found or caption is not None
            yield caption
    if not found:
        raise MediaError(f"no row with a caption: expected JSON objects with one of {', '.join(CAPTION_COLUMNS)}")


def _json_caption(line: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(row, str):
        return _clean(row)
    if not isinstance(row, dict):
        return None
    fields = {str(name).lower(): value for name, value in row.items()}
    for name in CAPTION_COLUMNS:
        value = fields.get(name)
        if isinstance(value, list):
            value = " ".join(part for part in value if isinstance(part, str))
        if isinstance(value, str) and value.strip():
            return _clean(value)
    return None


def _clean(value: str) -> Row:
    """One line, without surrogates that a JSON escape may have left."""
    value = " ".join(value.encode("utf-8", "replace").decode("utf-8").split())
    return value or None
