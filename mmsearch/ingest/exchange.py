"""Parquet as the exchange format: vectors, segments and metadata of a store as tables that pandas, DuckDB and Lance
read, and a store out of such tables.

One row a segment, those of a document one after another; see `SCHEMA` for the columns. The encoder stands in the
metadata of each file, under ``mmsearch``, as JSON: without it nobody could tell which queries fit the vectors.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.core.errors import EncoderMismatch, UsageError, VectorError
from mmsearch.core.extras import install_hint
from mmsearch.core.modalities import MODALITIES
from mmsearch.core.types import EncoderSpec, MediaInfo, Progress, Report
from mmsearch.filters import Where
from mmsearch.ingest.embeddings import check_vectors
from mmsearch.store.base import DATASET, Exported, FloatArray, NewDocument, NewSegment, Store

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
FILE_ROWS = 200_000
"""Segments of one file, at least; a document is never in two."""
GROUP_ROWS = 10_000
SPEECH = "speech"
READ_ROWS = 4096
_DOCUMENT = ("root", "path", "modality", "hash", "size", "mtime_ns", "caption")
_INFO = tuple(field.name for field in fields(MediaInfo))


@dataclass(frozen=True)
class ExportReport:
    """What was written to ``folder``; ``bytes`` on disk."""

    folder: Path
    documents: int
    segments: int
    files: int
    bytes: int


@dataclass(frozen=True)
class Described:
    """What exported files say of themselves: the name that opens the encoder, and its identity."""

    model: str
    spec: EncoderSpec


def schema(dim: int) -> pa.Schema:
    """The columns, as version `SCHEMA_VERSION` has them.

    ``root``: the folder that was indexed, or ``dataset:NAME``; ``path``: the document's place in there; ``hash``: of
    the bytes of the source, hexadecimal, equal for equal sources; ``size`` in bytes and ``mtime_ns`` as of indexing;
    ``caption``: what lies beside the source in words; ``segment``: its number in the document, from 0;
    ``start_s``, ``end_s``: seconds of a moment; ``text``: of a passage; ``kind``: ``speech`` where the segment is what
    is said in its document, else null; the fields of `MediaInfo`; ``vector``: of
    length 1, float32 (dim,). (An index keeps float16, so half of the bits are zero, and are compressed away.)
    """
    pa = _pyarrow()[0]
    types = {"size": pa.int64(), "mtime_ns": pa.int64()}
    columns = [pa.field(name, types.get(name, pa.string()), name == "caption") for name in _DOCUMENT]
    columns.append(pa.field("segment", pa.int32(), False))
    columns += [pa.field("start_s", pa.float64()), pa.field("end_s", pa.float64()), pa.field("text", pa.string())]
    columns.append(pa.field("kind", pa.string()))
    columns += [pa.field(name, _info_type(name)) for name in _INFO]
    columns.append(pa.field("vector", pa.list_(pa.field("element", pa.float32(), False), dim), False))
    return pa.schema(columns)


def _info_type(name: str) -> pa.DataType:
    pa = _pyarrow()[0]
    annotation = str(MediaInfo.__annotations__[name])
    if "tuple" in annotation:
        return pa.list_(pa.string())
    return pa.int64() if annotation.startswith("int") else pa.float64() if "float" in annotation else pa.string()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(f"Parquet needs pyarrow: {install_hint('datasets')}") from error
    return pyarrow, pyarrow.parquet


def export_parquet(
    store: Store,
    folder: Path,
    where: Where | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    file_rows: int = FILE_ROWS,
) -> ExportReport:
    """Writes the documents that satisfy ``where`` (all, without one) to files ``part-00000.parquet`` … in ``folder``.

    It must be new or empty, and comes into being when everything is written: until then the files lie in
    ``FOLDER.unfinished``, and an export that is repeated begins anew.

    Raises:
        UsageError: there is something in the folder, or pyarrow is not installed.
    """
    _pyarrow()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty: an export needs a new or empty folder")
    draft = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    total, writer = store.count(where), _Writer(draft, store, file_rows)
    try:
        for part in store.export(where):
            writer.write(part)
            progress(Progress("index", writer.documents, total))
        writer.close()
        for path in draft.iterdir():  # on the disk before the folder has its name
            with path.open("rb") as file:
                os.fsync(file.fileno())
        size = sum(path.stat().st_size for path in draft.iterdir())
        draft.replace(folder)
    except BaseException:
        writer.close()
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return ExportReport(folder, writer.documents, writer.segments, writer.files, size)


class _Writer:
    """Writes parts to files of ``file_rows`` rows and a little more; at least one file, which has the columns."""

    def __init__(self, folder: Path, store: Store, file_rows: int) -> None:
        pa, self._parquet = _pyarrow()
        self._pa, self._folder, self._file_rows = pa, folder, file_rows
        said = {
            "schema": SCHEMA_VERSION,
            "model": store.metadata["name"],
            "encoder": asdict(store.spec),
        }
        self._schema = schema(store.spec.dim).with_metadata({"mmsearch": json.dumps(said)})
        self.documents = self.segments = self.files = self._rows = 0
        self._file: Any = None
        self._open()

    def _open(self) -> None:
        self._file = self._parquet.ParquetWriter(
            self._folder / f"part-{self.files:05}.parquet",
            self._schema,
            compression="zstd",
            use_dictionary=["root", "modality", "camera", "lens"],
            column_encoding={"vector.list.element": "BYTE_STREAM_SPLIT"},
        )
        self.files += 1
        self._rows = 0

    def write(self, part: Exported) -> None:
        """Adds the rows of some documents."""
        if not len(part.documents):
            return
        if self._rows >= self._file_rows:
            self._file.close()
            self._open()
        self._file.write_table(_table(part, self._schema), row_group_size=GROUP_ROWS)
        self.documents += len(part.documents)
        self.segments += len(part.ids)
        self._rows += len(part.ids)

    def close(self) -> None:
        """Ends the last file."""
        self._file.close()


def _table(part: Exported, columns: pa.Schema) -> pa.Table:
    pa = _pyarrow()[0]
    rows: dict[str, list[Any]] = {name: [] for name in columns.names if name != "vector"}
    for document in part.documents:
        own = asdict(document.info) | {name: getattr(document, name) for name in _DOCUMENT}
        own["hash"] = document.hash.hex()
        for number, segment in enumerate(document.segments):
            for name, value in (own | asdict(segment) | {"segment": number}).items():
                rows[name].append(value)
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(part.vectors.astype(np.float32).ravel()), type=columns.field("vector").type
    )
    arrays = [vectors if name == "vector" else pa.array(rows[name], columns.field(name).type) for name in columns.names]
    return pa.Table.from_arrays(arrays, schema=columns)


def parquet_files(folder: Path) -> list[Path]:
    """The files of an export, in their order; ``folder`` may be one of them.

    Raises:
        UsageError: there are none.
    """
    files = [folder] if folder.is_file() else sorted(folder.glob("*.parquet"))
    if not files:
        raise UsageError(f"there are no .parquet files in {folder}: give a folder that `mmsearch export` wrote")
    return files


def describe(folder: Path) -> Described | None:
    """What the files say of their encoder; ``None`` where another program wrote them.

    Raises:
        UsageError: a file cannot be read, or is of a newer schema.
    """
    file = _opened(parquet_files(folder)[0])
    said = _said(file)
    if said is None:
        return None
    known = {field.name for field in fields(EncoderSpec)}
    return Described(said["model"], EncoderSpec(**{k: v for k, v in said["encoder"].items() if k in known}))


def _opened(path: Path) -> Any:
    pa, parquet = _pyarrow()
    try:
        return parquet.ParquetFile(path, pre_buffer=False)  # buffers would be kept until the file ends
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read as Parquet ({error}): write or copy it again") from error


def _said(file: Any) -> dict[str, Any] | None:
    kept = (file.schema_arrow.metadata or {}).get(b"mmsearch")
    if kept is None:
        return None
    try:
        said: dict[str, Any] = json.loads(kept)
        version = int(said["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"what the file says of its encoder is damaged ({error}): export it again") from error
    if version > SCHEMA_VERSION:
        raise UsageError(f"the files are of schema {version}, this mmsearch reads up to {SCHEMA_VERSION}: upgrade it")
    return said


def import_parquet(store: Store, folder: Path, progress: Callable[[Progress], None] = lambda _: None) -> Report:
    """Stores the documents of exported files, in place of those at the same paths; vectors are taken as they are.

    Files of other programs may be of any columns of `schema`, in any order, of which ``path``, ``modality`` and
    ``vector`` must be there; ``root`` is ``dataset:parquet`` where it is missing, and their vectors are believed to be
    of the store's encoder. Repeating an import changes nothing; one that was killed is repeated.

    Raises:
        EncoderMismatch: another encoder made the vectors.
        UsageError: files that cannot be read, lack a column, or hold values that do not fit.
        VectorError: vectors of another dimension, not finite, or not of length 1.
    """
    started, files = time.perf_counter(), parquet_files(folder)
    opened = [_opened(path) for path in files]
    for path, file in zip(files, opened, strict=True):
        _check_columns(path, file, store.spec)
    total = sum(file.metadata.num_rows for file in opened)
    documents = segments = 0
    interrupted = False
    before = store.count()
    try:
        for path, file in zip(files, opened, strict=True):
            for new, vectors in _batches(path, file, store.spec.dim):
                store.upsert(new, vectors)
                documents, segments = documents + len(new), segments + len(vectors)
                progress(Progress("index", segments, total))
    except KeyboardInterrupt:
        interrupted = True
    added = store.count() - before
    seconds = {"total": round(time.perf_counter() - started, 3)}
    return Report(indexed=added, updated=documents - added, segments=segments, interrupted=interrupted, seconds=seconds)


def _check_columns(path: Path, file: Any, spec: EncoderSpec) -> None:
    missing = {"path", "modality", "vector"} - set(file.schema_arrow.names)
    if missing:
        raise UsageError(f"{path} lacks the columns {', '.join(sorted(missing))}; there are {file.schema_arrow.names}")
    said = _said(file)
    if said is None:
        return
    made = said["encoder"]
    if any(made[name] != getattr(spec, name) for name in ("digest", "dim", "preprocessing")):
        raise EncoderMismatch(
            f"the vectors in {path} are of {made['name']} ({made['dim']}-d, weights {made['digest'][:12]}, "
            f"{made['preprocessing']}), the index is of {spec.describe()}: import them into an index of their own"
        )


def _batches(path: Path, file: Any, dim: int) -> Iterator[tuple[list[NewDocument], FloatArray]]:
    """Whole documents with their vectors, a few thousand segments at once."""
    wanted = [*_DOCUMENT, "segment", "start_s", "end_s", "text", "kind", *_INFO, "vector"]
    columns = [name for name in wanted if name in file.schema_arrow.names]
    rows: list[dict[str, Any]] = []
    vectors = np.zeros((0, dim), dtype=np.float32)
    pa = _pyarrow()[0]
    try:
        for batch in file.iter_batches(READ_ROWS, columns=columns):
            rows += batch.drop_columns(["vector"]).to_pylist()
            vectors = np.concatenate([vectors, _vectors(path, batch.column("vector"), dim)])
            last = len(rows) - 1
            while last > 0 and _place(rows[last - 1]) == _place(rows[-1]):
                last -= 1
            if last > 0:  # the last document may go on in the next batch
                yield _documents(path, rows[:last], vectors[:last]), vectors[:last]
                rows, vectors = rows[last:], vectors[last:]
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} is damaged ({error}): what came before is imported; copy it again") from error
    if rows:
        yield _documents(path, rows, vectors), vectors


def _vectors(path: Path, column: Any, dim: int) -> FloatArray:
    """(n, dim) of a column of lists of any float type, each as long as the others or not."""
    import pyarrow.compute

    values = column.flatten()
    if column.null_count or values.null_count:
        raise UsageError(f"{path} has rows without a vector, or with numbers missing in it")
    lengths = pyarrow.compute.list_value_length(column).unique().to_pylist()
    if lengths != [dim]:
        raise VectorError(f"{path} has vectors of {sorted(lengths)} numbers, the encoder of this index makes {dim}")
    return check_vectors(values.to_numpy(zero_copy_only=False).reshape(-1, dim), dim).astype(np.float32)


def _place(row: Mapping[str, Any]) -> tuple[str | None, str]:
    return row.get("root"), row["path"]


def _documents(path: Path, rows: Sequence[Mapping[str, Any]], vectors: FloatArray) -> list[NewDocument]:
    made: list[NewDocument] = []
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or _place(rows[end]) != _place(rows[start]):
            made.append(_document(path, rows[start:end], vectors[start:end]))
            start = end
    return made


def _document(path: Path, rows: Sequence[Mapping[str, Any]], vectors: FloatArray) -> NewDocument:
    first = rows[0]
    name, modality = first["path"], first["modality"]
    root = first.get("root") or DATASET + "parquet"
    if not name or "\0" in name or modality not in MODALITIES:
        raise UsageError(
            f"{path} has a document with path {name!r} and modality {modality!r}: a path is needed, and a modality out "
            f"of {', '.join(MODALITIES)}"
        )
    if not root.startswith(DATASET) and (not Path(root).is_absolute() or ".." in Path(name).parts):
        raise UsageError(
            f"{path} has a document {name!r} below {root!r}: a root is an absolute folder, of which documents lie "
            f"below, or {DATASET}NAME"
        )
    segments = [NewSegment(*map(row.get, ("start_s", "end_s", "text", "kind"))) for row in rows]
    for one in segments:
        if one.kind not in (None, SPEECH) or (one.kind and None in (one.start_s, one.end_s, one.text)):
            expected = f"expected null, or {SPEECH} with start_s, end_s and text"
            raise UsageError(f"{path}: a segment of {name} has kind {one.kind!r}: {expected}")
    try:
        digest = bytes.fromhex(first.get("hash") or "")
    except ValueError as error:
        raise UsageError(f"{path}: the hash of {name} is not hexadecimal: {first['hash']!r}") from error
    if not digest:  # nothing says what the bytes of the source are: then what is known of it names it
        digest = blake2b(repr((_place(first), segments)).encode() + vectors.tobytes(), digest_size=20).digest()
    return NewDocument(
        name, modality, digest, segments, root,
        MediaInfo(**{key: first.get(key) for key in _INFO}), first.get("size") or 0, first.get("mtime_ns") or 0,
        first.get("caption"),
    )  # fmt: skip
