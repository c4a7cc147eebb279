"""Folders that clip-retrieval made: ``img_emb/img_emb_N.npy`` beside ``metadata/metadata_N.parquet``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.errors import UsageError, VectorError
from mmsearch.index import IndexDirectory
from mmsearch.ingest.embeddings import BATCH, EmbeddingWriter, Floats, Rows, check_vectors
from mmsearch.types import Progress, Report

PATH_COLUMNS = ("url", "image_path", "path")
"""The first of these that a table has is where the pictures lie."""
_CAPTION_COLUMNS = ("caption", "text")
_SIZE_COLUMNS = (("original_width", "original_height"), ("width", "height"))


@dataclass(frozen=True)
class ImportOptions:
    """``name``: the dataset in the index (by default that of the folder). ``path_column``: the column of the tables
    that says where the pictures lie. ``normalize``: bring vectors to length 1 that are not.
    """

    name: str | None = None
    path_column: str | None = None
    normalize: bool = False


@dataclass(frozen=True)
class _Part:
    vectors: Path
    table: Path


def import_folder(
    index: IndexDirectory,
    folder: Path,
    options: ImportOptions = ImportOptions(),
    progress: Callable[[Progress], None] = lambda _: None,
) -> Report:
    """Takes the picture embeddings of a clip-retrieval folder into an index, without embedding anything.

    The index must be of the encoder that made them: dimension and length can be checked, which weights made them
    cannot. Repeating an import changes nothing; one that was killed goes on.

    Raises:
        UsageError: it is no such folder, or its parts do not fit together.
        VectorError: vectors of another dimension, or not of length 1.
    """
    parts = find_parts(folder)
    total = sum(len(_open(part, index.tower().spec.dim, options)) for part in parts)
    with index.writing(encoder=index.manifest.encoder) as writable:
        writer = EmbeddingWriter(writable, options.name or folder.resolve().name, progress)
        return writer.add(_batches(parts, index.tower().spec.dim, options), total)


def find_parts(folder: Path) -> list[_Part]:
    """Pairs of vectors and tables by the number in their names.

    Raises:
        UsageError: there are none, or one lacks its other half.
    """
    vectors, tables = _numbered(folder / "img_emb", ".npy"), _numbered(folder / "metadata", ".parquet")
    if not vectors:
        raise UsageError(
            f"{folder} is no folder of clip-retrieval: expected img_emb/*.npy and metadata/*.parquet in it, as "
            "`clip-retrieval inference` writes them"
        )
    if alone := sorted(vectors.keys() ^ tables.keys()):
        raise UsageError(
            f"part {alone[0]} of {folder} has vectors or a table, but not both: the folder is not complete"
        )
    return [_Part(vectors[number], tables[number]) for number in sorted(vectors)]


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    found = ((re.search(r"(\d+)$", path.stem), path) for path in sorted(folder.glob(f"*{suffix}")))
    return {int(match[1]): path for match, path in found if match}


def _open(part: _Part, dim: int, options: ImportOptions) -> npt.NDArray[Any]:
    """The mapped vectors of a part, checked against its table before anything is written."""
    try:
        array: npt.NDArray[Any] = np.load(part.vectors, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{part.vectors} cannot be read as a numpy array: {error}") from error
    if array.ndim != 2 or array.shape[1] != dim:
        raise VectorError(
            f"{part.vectors} holds vectors of shape {array.shape}, the encoder of the index makes (n, {dim}): name the "
            "model that made them with --model"
        )
    table = _table(part.table)
    if table.metadata.num_rows != len(array):
        raise UsageError(f"{part.vectors} has {len(array)} vectors, {part.table.name} {table.metadata.num_rows} rows")
    _columns(table.schema_arrow.names, part.table, options)
    return array


def _table(path: Path) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "reading parquet files takes pyarrow: install it with `pip install 'mmsearch[datasets]'`"
        ) from error
    try:
        return parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UsageError(f"{path} cannot be read as a parquet table: {error}") from error


def _columns(names: list[str], path: Path, options: ImportOptions) -> dict[str, str]:
    """What of a row is taken from which column."""
    wanted = (options.path_column,) if options.path_column else PATH_COLUMNS
    place = next((name for name in wanted if name in names), None)
    if place is None:
        raise UsageError(
            f"{path} has no column {' or '.join(wanted)}, only {', '.join(names)}: name the one that says where the "
            "pictures lie with --path-column"
        )
    columns = {"path": place}
    if caption := next((name for name in _CAPTION_COLUMNS if name in names), None):
        columns["caption"] = caption
    for width, height in _SIZE_COLUMNS:
        if "width" not in columns and {width, height} <= set(names):
            columns.update(width=width, height=height)
    return columns


def _batches(parts: list[_Part], dim: int, options: ImportOptions) -> Iterator[tuple[Floats, Rows]]:
    """One part is mapped at a time, so memory does not grow with their number."""
    for part in parts:
        array = _open(part, dim, options)
        table = _table(part.table)
        columns = _columns(table.schema_arrow.names, part.table, options)
        start = 0
        for batch in table.iter_batches(batch_size=BATCH, columns=sorted(set(columns.values()))):
            values = batch.to_pydict()
            named = [(name, values[column]) for name, column in columns.items()]
            rows = [_row(named, number) for number in range(batch.num_rows)]
            try:
                vectors = check_vectors(array[start : start + len(rows)], array.shape[1], normalize=options.normalize)
            except VectorError as error:
                raise VectorError(f"{part.vectors}, from row {start} on: {error}") from error
            start += len(rows)
            yield vectors, rows


def _row(columns: list[tuple[str, list[Any]]], number: int) -> dict[str, Any]:
    row: dict[str, Any] = {"modality": "image"}
    for name, values in columns:
        value = values[number]
        row[name] = value if value is None or name in ("width", "height") else str(value)
    return row
