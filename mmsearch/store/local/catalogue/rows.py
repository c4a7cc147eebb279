"""What the catalogue hands out and takes in: one type for each kind of row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmsearch.core.types import EncoderSpec, MediaInfo, Modality
from mmsearch.store.base import DATASET


class Space(NamedTuple):
    """One encoder's vectors in this index."""

    id: int
    spec: EncoderSpec
    file: str
    row_count: int


class KnownDocument(NamedTuple):
    """What is known of a file from the last run."""

    id: int
    path: str
    size: int
    mtime_ns: int
    decoding: str
    content_id: int
    sidecars: str
    is_absent: bool = False
    """Its file, or the whole place where it lies, was not there when it was last looked for."""


class KeptScope(NamedTuple):
    """A part of a root that is to be kept up to date, with the options it was last indexed with."""

    root_id: int
    below: str
    options: dict[str, Any]


class Root(NamedTuple):
    """A folder whose files are documents. ``path`` may be relative to the index directory.

    Or a dataset whose vectors were imported: then ``path`` is ``dataset:NAME``, and its documents' paths (or
    addresses) stand as they were given, nothing need lie there.
    """

    id: int
    path: str
    is_relative: bool

    @property
    def is_dataset(self) -> bool:
        """Whether nothing on disk stands behind it."""
        return self.path.startswith(DATASET)


class Found(NamedTuple):
    """A segment as a search result needs it."""

    row: int
    document_id: int
    root: str
    root_is_relative: bool
    path: str
    modality: Modality
    ordinal: int
    start_s: float | None
    end_s: float | None
    text: str | None
    date: str | None = None
    """Where it was asked for: when the photo was taken, else when the file was changed."""

    @classmethod
    def of(cls, row: Sequence[Any]) -> Found:
        """From what a query for ``FOUND`` gives."""
        return cls(row[0], row[1], row[2], bool(row[3]), *row[4:])


FOUND = "v.row, d.id, r.path, r.is_relative, d.path, v.modality, s.ordinal, s.start_s, s.end_s, s.text"
"""The columns of a `Found`, of vectors v, documents d, roots r and segments s."""


@dataclass(frozen=True)
class NewSegment:
    """A segment to be committed, with the row of the vector file that holds its vector."""

    row: int
    start_s: float | None = None
    end_s: float | None = None
    text: str | None = None


@dataclass(frozen=True)
class NewContent:
    """A content to be committed with all its segments, in order."""

    hash: bytes
    decoding: str
    modality: Modality
    info: MediaInfo
    segments: Sequence[NewSegment]
