"""What changes an index: `commit` adds to it, `compact` gives back the space of what is gone.

Both write rows to files first and sync them, and let one transaction of the catalogue name them then. So a crash at any
instant leaves the state before or the state after; bytes behind the committed rows are overwritten or cut by the next
writer, and readers of the old state keep reading the old files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.types import NOTHING_BESIDE, Beside, MediaInfo, Modality
from mmsearch.store.local.catalogue import Catalogue, NewContent, NewSegment, RowArray
from mmsearch.store.local.catalogue.bulk import BulkInsert, Imported
from mmsearch.store.local.catalogue.coverage import add_vectors, lacking_segments, leave_out, segments_of_content
from mmsearch.store.local.catalogue.read_text import put_reading
from mmsearch.store.local.catalogue.reranker_cache import (
    TokenTable,
    live_places,
    put_tokens,
    renumber_tokens,
    token_table,
)
from mmsearch.store.local.catalogue.sounds import SoundContent, put_sounds
from mmsearch.store.local.catalogue.speech import HeardContent, put_heard
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.files.rows import RowFile
from mmsearch.store.local.files.tokens import TokenFile

ContentKey = tuple[bytes, str]
"""Content hash and decoding: what a file holds, under whatever path."""
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class EncodedContent:
    """A content with everything that was made of it. ``vectors`` (n, dim): one for each of the n segments, whose start,
    end and text are ``segments``. ``tokens``: what the reranker cache keeps of each, (n, …), or nothing.
    """

    key: ContentKey
    modality: Modality
    info: MediaInfo
    segments: Sequence[tuple[float | None, float | None, str | None]]
    vectors: Floats
    tokens: Sequence[Floats] = ()


@dataclass(frozen=True)
class PlacedDocument:
    """A file and what it holds: a content by its id, or by the key of one in the same batch.

    ``moved`` is the id of the document whose file lies here now.
    """

    root_id: int
    path: str
    modality: Modality
    size: int
    mtime_ns: int
    content: int | ContentKey
    beside: Beside = NOTHING_BESIDE
    sidecars: str = ""
    moved: int | None = None


@dataclass(frozen=True)
class SkippedFile:
    """Why there is no document of a file; ``decoding`` names what would refuse it again (empty: nothing would)."""

    root_id: int
    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    decoding: str
    reason: str


@dataclass(frozen=True)
class ReadArchive:
    """An archive of which all samples, with these paths, are accounted for."""

    root_id: int
    path: str
    size: int
    mtime_ns: int
    decoding: str
    samples: frozenset[str]


@dataclass(frozen=True)
class ContentText:
    """What an OCR reader found in a content: lines by segment id, or what kept it from reading."""

    content_id: int
    reader: str
    lines: Mapping[int, Sequence[str]]
    problem: str | None = None


@dataclass
class Batch:
    """What one commit makes true. Vectors are of the space ``space_id``; ``vectors`` and ``tokens`` are of segments, by
    id, that are in the index already; ``left_out``: contents, by id, that have no vectors of the space, and why.
    """

    space_id: int
    contents: list[EncodedContent] = field(default_factory=list)
    documents: list[PlacedDocument] = field(default_factory=list)
    removed_below: list[tuple[int, str]] = field(default_factory=list)
    """(root id, path): all documents there."""
    removed: list[tuple[int, int, str]] = field(default_factory=list)
    """Documents as (id, root id, path)."""
    skipped: list[SkippedFile] = field(default_factory=list)
    archives: list[ReadArchive] = field(default_factory=list)
    vectors: list[tuple[int, Floats]] = field(default_factory=list)
    left_out: list[tuple[int, str]] = field(default_factory=list)
    tokens: list[tuple[int, Floats]] = field(default_factory=list)
    texts: list[ContentText] = field(default_factory=list)
    heard: list[tuple[HeardContent, Floats]] = field(default_factory=list)
    """What is said in contents that are in the index, and the vectors (n, dim) of its passages."""
    sounds: list[SoundContent] = field(default_factory=list)
    """What sounds in contents that are in the index, with vectors of the encoder of sounds."""
    imported: Imported | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to commit."""
        return any(getattr(self, part.name) for part in fields(self) if part.name != "space_id")


@dataclass(frozen=True)
class Committed:
    """What came of a batch: the content id of each of its documents, how many ``vectors`` were written and documents
    ``removed`` from archives, and how many imported documents were there already or took another one's place.
    """

    contents: Sequence[int]
    vectors: int
    removed: int
    known: int = 0
    replaced: int = 0


def commit(index: IndexDirectory, batch: Batch) -> Committed:
    """Makes all of a batch true, or, where the process dies, nothing of it. ``index`` must be open for writing.

    Segments that are gone, or that another process has given their vectors meanwhile, are left as they are.

    Raises:
        VectorError: vectors or tokens of another shape, or not finite; nothing is committed then.
        IndexDamaged: a file is shorter than the catalogue says.
    """
    catalogue = index.catalogue
    space = next(space for space in catalogue.spaces() if space.id == batch.space_id)
    known = dict(batch.vectors)
    segments = lacking_segments(catalogue, space.id, known)
    bulk = None if batch.imported is None else BulkInsert(catalogue, space.id, batch.imported)
    parts = [content.vectors for content in batch.contents] + [known[segment][None] for segment in segments]
    parts += [vectors for _, vectors in batch.heard]
    if bulk is not None:
        parts.append(bulk.vectors)
    starts = list(accumulate((len(part) for part in parts), initial=space.row_count))
    written = starts[-1] - space.row_count
    if written:
        vectors = parts[0] if len(parts) == 1 else np.concatenate(parts)
        index.vector_file(space).append(vectors, at=space.row_count)
    tokens = _append_tokens(index, batch)
    with catalogue.transaction():
        ids = {
            content.key: catalogue.add_content(space, _numbered(content, row))
            for content, row in zip(batch.contents, starts, strict=False)
        }
        add_vectors(catalogue, space.id, segments, starts[len(batch.contents)])
        for (heard, _), row in zip(batch.heard, starts[len(batch.contents) + len(segments) :], strict=False):
            put_heard(catalogue, space.id, heard, row)
        if bulk is not None:
            bulk.insert(starts[-2])
        if written:
            catalogue.set_row_count(space.id, starts[-1])
        leave_out(catalogue, space.id, batch.left_out)
        if tokens is not None:
            _record_tokens(catalogue, batch, *tokens)
        contents = [_place(catalogue, document, ids) for document in batch.documents]
        for place in batch.removed_below:
            catalogue.remove_below(*place)
        catalogue.remove_documents(batch.removed)
        removed = sum(_close(catalogue, archive) for archive in batch.archives)
        for skipped in batch.skipped:
            catalogue.put_skipped(*(getattr(skipped, part.name) for part in fields(skipped)))
        for text in batch.texts:
            put_reading(catalogue, text.content_id, text.reader, text.lines, text.problem)
        for sounding in batch.sounds:
            put_sounds(catalogue, sounding)
    imported = (0, 0) if bulk is None else (len(bulk.known), bulk.replaced)
    return Committed(contents, written, removed, *imported)


def _numbered(content: EncodedContent, first_row: int) -> NewContent:
    """With the rows of its vectors."""
    segments = [NewSegment(first_row + number, *segment) for number, segment in enumerate(content.segments)]
    return NewContent(*content.key, content.modality, content.info, segments)


def _place(catalogue: Catalogue, document: PlacedDocument, ids: Mapping[ContentKey, int]) -> int:
    """Writes a document; returns the id of its content."""
    content = document.content if isinstance(document.content, int) else ids[document.content]
    file = (document.size, document.mtime_ns)
    described = (document.beside, document.sidecars)
    if document.moved is not None:
        catalogue.move_document(document.moved, document.root_id, document.path, *file, content, *described)
    else:
        catalogue.put_document(document.root_id, document.path, document.modality, *file, content, *described)
    return content


def _close(catalogue: Catalogue, archive: ReadArchive) -> int:
    """Records that an archive need not be read again; returns how many documents of it are no longer in it."""
    below = (archive.root_id, archive.path)
    gone = [
        (document.id, archive.root_id, document.path)
        for document in catalogue.documents_below(*below)
        if document.path not in archive.samples
    ]
    catalogue.forget_skipped(archive.root_id, catalogue.skipped_below(*below).keys() - archive.samples)
    catalogue.put_archive(*below, archive.size, archive.mtime_ns, archive.decoding)
    return catalogue.remove_documents(gone)


def _append_tokens(index: IndexDirectory, batch: Batch) -> tuple[TokenTable, int] | None:
    """The reranker cache's table and its row for the first of the tokens; ``None`` where there are none."""
    tokens = [one for content in batch.contents for one in content.tokens] + [one for _, one in batch.tokens]
    table = token_table(index.catalogue) if tokens else None
    if table is None:
        return None
    TokenFile(index.path / table.file, table.shape).append(np.stack(tokens), at=table.row_count)
    return table, table.row_count


def _record_tokens(catalogue: Catalogue, batch: Batch, table: TokenTable, first: int) -> None:
    """In the order in which they were appended."""
    segments: list[int] = []
    for content in batch.contents:
        if len(content.tokens):
            segments += segments_of_content(catalogue, *content.key)
    segments += [segment for segment, _ in batch.tokens]
    put_tokens(catalogue, table, first, segments)


def compact(index: IndexDirectory) -> int:
    """Rewrites the vector files and the reranker cache without what no segment owns any more; returns how many rows
    of the answering space that gave back. ``index`` must be open for writing.
    """
    catalogue, table, answering = index.catalogue, token_table(index.catalogue), index.space()
    if table is not None:
        alive, renumber = live_places(catalogue, table), partial(renumber_tokens, catalogue, table)
        _rewrite(index, TokenFile(index.path / table.file, table.shape), alive, table.row_count, renumber)
    reclaimed = {}
    for space in sorted(catalogue.spaces(), key=lambda space: space.id == answering.id):
        dead = catalogue.rows_given_up(space.id)
        if len(dead) and space.id == answering.id:  # what was built knows the old rows
            index.with_manifest(recipe="exact", vector_index=None)
        alive = np.setdiff1d(np.arange(space.row_count, dtype=np.int64), dead, assume_unique=True)
        renumber = partial(catalogue.renumber_rows, space.id)
        reclaimed[space.id] = _rewrite(index, index.vector_file(space), alive, space.row_count, renumber)
    return reclaimed[answering.id]


def _rewrite(
    index: IndexDirectory, old: RowFile, alive: RowArray, rows: int, renumber: Callable[[RowArray, str], None]
) -> int:
    """Copies the rows ``alive`` of the first ``rows`` to a new file, and lets the catalogue name it with ``renumber``;
    returns how many rows that gave back.
    """
    if len(alive) == rows:
        return 0
    taken = {space.file for space in index.catalogue.spaces()}
    name = _next_generation(old.path.name)
    while name in taken:
        name = _next_generation(name)
    fresh = old.at(index.path / name)
    fresh.delete()
    old.copy_to(fresh, alive, rows)
    with index.catalogue.transaction():
        renumber(alive, name)
    old.delete()
    return rows - len(alive)


def _next_generation(file: str) -> str:
    """``vectors-ab12.f16`` → ``vectors-ab12-1.f16`` → ``vectors-ab12-2.f16``."""
    match = re.fullmatch(r"([a-z]+-[^-.]+)(?:-(\d+))?(\.\w+)", file)
    stem, number, suffix = match.groups() if match else (Path(file).stem, None, Path(file).suffix)
    return f"{stem}-{int(number or 0) + 1}{suffix}"
