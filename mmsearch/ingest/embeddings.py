"""Vectors that were made elsewhere: checked, and committed with what is said of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import UsageError, VectorError
from mmsearch.core.modalities import MODALITIES
from mmsearch.core.types import MediaInfo, Progress, Report
from mmsearch.store.base import DATASET, NewDocument, NewSegment, Store
from mmsearch.store.local.catalogue.bulk import INFO_COLUMNS, Imported, ImportedDocument, ImportedSegment
from mmsearch.store.local.commit import Batch, commit
from mmsearch.store.local.directory import IndexDirectory

LENGTH_TOLERANCE = 0.01
"""How far from 1 the length of a vector may be; float16 costs less than a tenth of that."""
DECODING = "imported/1"
BATCH = 50_000
"""Rows of one commit."""
_SEGMENT_KEYS = {"start_s", "end_s", "text"}
_KEYS = {"path", "modality", "caption", *_SEGMENT_KEYS, *INFO_COLUMNS}

Rows = Sequence[Mapping[str, Any]]
Floats = npt.NDArray[np.floating[Any]]


def add_embeddings(
    index: IndexDirectory | Store, vectors: npt.ArrayLike, rows: Rows, dataset: str = "embeddings", *,
    normalize: bool = False,
) -> Report:  # fmt: skip
    """Adds documents with their vectors to the dataset ``dataset`` of an index, as `Index.add_embeddings` says."""
    checked = check_vectors(vectors, dim_of(index), normalize=normalize)
    if len(rows) != len(checked):
        raise UsageError(f"there are {len(checked)} vectors and {len(rows)} rows: give one row for each vector")
    with writing(index) as writable:
        return EmbeddingWriter(writable, dataset).add(iter([(checked, rows)]))


def dim_of(index: IndexDirectory | Store) -> int:
    """The dimension of its vectors."""
    return index.spec.dim if isinstance(index, Store) else index.space().spec.dim


@contextmanager
def writing(index: IndexDirectory | Store) -> Iterator[IndexDirectory | Store]:
    """The same, open for writing as its only writer; other stores than a directory settle that themselves."""
    if isinstance(index, Store):
        yield index
        return
    with index.writing(encoder=index.manifest.encoder) as writable:
        yield writable


def check_vectors(vectors: npt.ArrayLike, dim: int, *, normalize: bool = False) -> Floats:
    """The vectors as a float array (n, dim) of rows of length 1.

    Raises:
        VectorError: no floats, another shape, a value that is not finite, or another length than 1 (unless
            ``normalize``, which divides by it; a vector of zeros has no direction and is refused all the same).
    """
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] != dim:
        raise VectorError(f"expected vectors of shape (n, {dim}) for the encoder of this index, got {array.shape}")
    if not np.issubdtype(array.dtype, np.floating):
        raise VectorError(f"expected vectors of a float type, got {array.dtype}")
    lengths = np.zeros(len(array), dtype=np.float32)
    for start in range(0, len(array), 1 << 16):  # in parts: a mapped file may be larger than memory
        part = np.asarray(array[start : start + (1 << 16)], dtype=np.float32)
        lengths[start : start + (1 << 16)] = np.sqrt(np.einsum("ij,ij->i", part, part))
    if not np.isfinite(lengths).all():
        raise VectorError(f"row {int(np.argmin(np.isfinite(lengths)))} of the vectors is not finite")
    if normalize and len(array):
        if lengths.min() == 0:
            raise VectorError(f"row {int(np.argmin(lengths))} of the vectors is all zeros: it has no direction")
        return array.astype(np.float32) / lengths[:, None]
    wrong = np.flatnonzero(np.abs(lengths - 1) > LENGTH_TOLERANCE)
    if len(wrong):
        raise VectorError(
            f"{len(wrong)} of {len(array)} vectors are not of length 1 (row {wrong[0]} has {lengths[wrong[0]]:.4g}): "
            "normalise them before, or ask for it (--normalize, normalize=True)"
        )
    return array


class EmbeddingWriter:
    """Writes batches of vectors and rows; each batch is one commit, so an import that is killed can be repeated."""

    def __init__(
        self, index: IndexDirectory | Store, dataset: str, progress: Callable[[Progress], None] = lambda _: None
    ) -> None:
        if not dataset or "\0" in dataset:
            raise UsageError("a dataset needs a name")
        self._index = index
        self._root = DATASET + dataset
        self._progress = progress
        self._indexed = self._updated = self._unchanged = self._segments = 0

    def add(self, batches: Iterator[tuple[Floats, Rows]], total: int | None = None) -> Report:
        """Commits all batches and says what came of them. An interrupt ends between two batches."""
        started, interrupted = time.perf_counter(), False
        try:
            for vectors, rows in batches:
                for start in range(0, len(rows), BATCH):
                    self._commit(vectors[start : start + BATCH], rows[start : start + BATCH])
                    self._progress(Progress("index", self._indexed + self._updated + self._unchanged, total))
        except KeyboardInterrupt:
            interrupted = True
        seconds = {"total": round(time.perf_counter() - started, 3)}
        return Report(
            indexed=self._indexed,
            updated=self._updated,
            unchanged=self._unchanged,
            segments=self._segments,
            interrupted=interrupted,
            seconds=seconds,
        )

    def _commit(self, vectors: Floats, rows: Rows) -> None:
        half = np.ascontiguousarray(vectors, dtype="<f2")
        documents = grouped(half, rows)
        if isinstance(self._index, Store):
            self._upsert(self._index, documents, half)
            return
        imported = Imported(self._root, DECODING, documents, half)
        done = commit(self._index, Batch(self._index.space().id, imported=imported))
        self._indexed += len(imported.documents) - done.known - done.replaced
        self._updated += done.replaced
        self._unchanged += done.known
        self._segments += done.vectors

    def _upsert(self, store: Store, documents: Sequence[ImportedDocument], vectors: npt.NDArray[np.float16]) -> None:
        before, new = store.count(), [_new_document(one, self._root) for one in documents]
        order = [part.source for one in documents for part in one.segments]
        store.upsert(new, vectors[order].astype(np.float32))
        added = store.count() - before
        self._indexed += added
        self._updated += len(new) - added
        self._segments += len(order)


def _new_document(one: ImportedDocument, root: str) -> NewDocument:
    segments = [NewSegment(part.start_s, part.end_s, part.text) for part in one.segments]
    info: dict[str, Any] = dict(zip(INFO_COLUMNS, one.info, strict=True))
    return NewDocument(one.path, one.modality, one.hash, segments, root, MediaInfo(**info), caption=one.caption)


def grouped(vectors: npt.NDArray[np.float16], rows: Rows) -> list[ImportedDocument]:
    """Rows with the same path are the segments of one document, in their order; what is said of the document is
    taken from the first of them.

    Raises:
        UsageError: a row without path or modality, with an unknown key, or that contradicts another one.
    """
    places: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        _check(row, number)
        places.setdefault(row["path"], []).append(number)
    return [_document(vectors, rows, numbers) for numbers in places.values()]


def _check(row: Mapping[str, Any], number: int) -> None:
    if not row.keys() <= _KEYS:
        unknown = sorted(map(str, row.keys() - _KEYS))
        raise UsageError(f"row {number} has unknown keys ({', '.join(unknown)}); there are {', '.join(sorted(_KEYS))}")
    path, modality = row.get("path"), row.get("modality")
    if not isinstance(path, str) or not path or not isinstance(modality, str) or modality not in MODALITIES:
        raise UsageError(
            f"row {number} has path {path!r} and modality {modality!r}: a path (or address) is needed, and a modality "
            f"out of {', '.join(MODALITIES)}"
        )


def _document(vectors: npt.NDArray[np.float16], rows: Rows, numbers: list[int]) -> ImportedDocument:
    first = rows[numbers[0]]
    info = tuple([first.get(name) for name in INFO_COLUMNS])
    segments = []
    digest = blake2b(repr((first["path"], first["modality"], first.get("caption"), info)).encode(), digest_size=20)
    for number in numbers:
        row = rows[number]
        if row["modality"] != first["modality"]:
            raise UsageError(
                f"row {number} calls {row['path']} a {row['modality']}, an earlier one a {first['modality']}"
            )
        segment = ImportedSegment(number, row.get("start_s"), row.get("end_s"), row.get("text"))
        digest.update(vectors[number].data)
        digest.update(repr(segment[1:]).encode())
        segments.append(segment)
    return ImportedDocument(first["path"], first["modality"], digest.digest(), first.get("caption"), info, segments)
